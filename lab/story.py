# SPDX-License-Identifier: GPL-3.0-or-later
"""A story told on a private LXD: each command as an operator types it, and what it printed."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from lab import debian, pidns
from lab.daemon import Daemon
from lab.overlays import Overlays
from lab.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.client import Instance
    from lab.debian import Recipe

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BOLD, FAINT, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def say(text: str) -> None:
    """A headline."""
    print(f"\n{BOLD}# {text}{PLAIN}", flush=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` took."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


class Story:
    """A base, and commands that are shown."""

    def __init__(self, daemon: Daemon, base: str) -> None:
        self.daemon = daemon
        self.overlays = Overlays(daemon, base)
        self.base = self.overlays.base
        self.containers: list[Instance] = []

    def typed(self, command: str) -> None:
        """Show a command."""
        print(f"{FAINT}$ {command}{PLAIN}", flush=True)

    def lxc(self, *words: str, quiet: bool = False) -> str:
        """Show a command, run it, show what it printed."""
        if not quiet:
            self.typed(f"lxc {shlex.join(words)}")
        printed = self.daemon.client(*words).stdout.rstrip()
        if printed and not quiet:
            print(printed, flush=True)
        return printed

    def command(self, *words: str, check: bool = True) -> None:
        """The same for pycor-hooks; ``check`` expects exit status 0."""
        self.typed(f"pycor-hooks {shlex.join(words)}")
        done = self.overlays.pycor_hooks(*words, check=check)
        if printed := (done.stdout + done.stderr).rstrip():
            print(printed, flush=True)


def run(tell: Callable[[Daemon, str], None], recipe: Recipe) -> None:
    """Make the image, tell the story on a private LXD, and take all of it away again.

    Args:
        tell: gets the daemon, and the path of the image.
        recipe: of the image.
    """
    pidns.enter()
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    start = time.monotonic()
    say("Debian packages for the base, downloaded once")
    image = debian.image(recipe=recipe)
    downloaded = time.monotonic()
    with World() as world, Daemon(world, "lxd", "dir") as daemon:
        tell(daemon, image)
        say("All of it is taken away again")
    print(f"{time.monotonic() - downloaded:.0f} s, after {downloaded - start:.0f} s of downloads")


def _interrupted(number: int, _frame: object) -> NoReturn:
    """Leave by way of all cleaning up."""
    stay()
    print("\ncleaning up", flush=True)
    sys.exit(128 + number)


def stay() -> None:
    """Let no second Ctrl-C disturb the cleaning up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
