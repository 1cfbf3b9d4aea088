# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pycor_hooks.commands import options

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@options.debug
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      pycor-hooks completion bash > /etc/bash_completion.d/pycor-hooks
      pycor-hooks completion zsh > /usr/local/share/zsh/site-functions/_pycor-hooks
      pycor-hooks completion fish > /etc/fish/completions/pycor-hooks.fish
    """  # noqa: D301 - click wants the character
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click cannot complete for {shell}")
    root = context.find_root().command
    click.echo(kind(root, {}, "pycor-hooks", "_PYCOR_HOOKS_COMPLETE").source())
