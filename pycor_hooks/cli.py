# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: which commands there are, and how an error leaves the process.

Exit status: 0 done, 1 failed or something is wrong, 2 used wrongly. A command returns it, or
raises. Commands are imported when they are called, so that `status` never waits for pylxd.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pycor_hooks import __version__
from pycor_hooks.commands import options
from pycor_hooks.errors import PycorError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAM = "pycor-hooks"
# Name -> module below pycor_hooks.commands, in the order of --help.
COMMANDS = {
    "install": "install",
    "uninstall": "install",
    "profile": "profile",
    "status": "status",
    "remount": "remount",
    "impact": "impact",
    "stale": "stale",
    "restart": "restart",
    "diff": "diff",
    "doctor": "doctor",
    "watch": "watch",
    "completion": "completion",
}


class Commands(click.Group):
    """A group that imports a command when it is asked for, and renders errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All commands, in the order of --help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"pycor_hooks.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of ours or of the kernel becomes one that click can show."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get(options.DEBUG):
                traceback.print_exc()
            raise Failed(error) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = PROGRAM,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002, FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> NoReturn:
        """Run, and leave the process."""
        try:
            with ended_in_order():
                status = super().main(
                    args, prog_name, complete_var, standalone_mode=False, **extra
                )
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            click.echo(f"{PROGRAM}: {one_line(error)}", err=True)
            sys.exit(error.status if isinstance(error, Failed) else error.exit_code)
        except click.Abort:
            click.echo(f"{PROGRAM}: interrupted", err=True)
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, as SIGINT does: a frozen container is thawed.

    One that is ignored, as by nohup(1), stays so. The exit status is a shell's, 128 more.
    """

    def end(number: int, _frame: object) -> NoReturn:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    both = (signal.SIGTERM, signal.SIGHUP)
    ours = [number for number in both if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class Failed(click.ClickException):
    """An error on its way out: of ours, of the kernel, or one that nobody foresaw."""

    def __init__(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):  # of the watcher's tasks: the first one's
            error = error.exceptions[0]
        super().__init__(describe(error))
        self.status = error.exit_code if isinstance(error, PycorError) else 1


def describe(error: Exception) -> str:
    """What an error says, in one line, with the way out."""
    if isinstance(error, PycorError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        return f"{text}; run it as root" if isinstance(error, PermissionError) else text
    return f"unforeseen {type(error).__name__}: {error}; --debug shows where: please report it"


def one_line(error: click.ClickException) -> str:
    """What click says of an error; where it was used wrongly, with the help to read."""
    text = printable(" ".join(error.format_message().split()))
    if isinstance(error, click.UsageError) and error.ctx:
        return f"{text} See {error.ctx.command_path} --help."
    return text


@click.group(
    PROGRAM,
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 failed or something is wrong, 2 used wrongly.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@options.debug
def main() -> None:
    """Containers of LXD and Incus that share one base through OverlayFS.

    \b
    Examples:
      pycor-hooks install              # once; then, with a container named base:
      lxc launch overlay web1          # runs on base, writes to its own layer
      pycor-hooks status
      pycor-hooks profile --base debian --name web
    """  # noqa: D301 - click wants the character
