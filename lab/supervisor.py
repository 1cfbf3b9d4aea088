# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one service so that nothing it ever forked can outlive us.

A daemon's containers, monitors and helpers detach themselves from it. The supervisor is their
subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so all of them stay its descendants: that is how
the lab knows which processes are its own. It reaps them as an init does. When its standard input
ends, because it is told to or because whoever started it died, it kills them all.

Run as ``python -m lab.supervisor LOGFILE COMMAND…``; prints the pid of the command.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from lab import processes
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Mapping

_PR_SET_CHILD_SUBREAPER = 36
_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Supervised:
    """A service under a supervisor, seen from the process that wants it."""

    def __init__(self, command: list[str], *, log: str, env: Mapping[str, str]) -> None:
        """Start ``command``, its output appended to the file ``log``."""
        self.command = command
        self._supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "lab.supervisor", log, *command],
            env={**env, "PYTHONPATH": _REPOSITORY},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for us; the supervisor hears of it from us
        )
        assert self._supervisor.stdout is not None  # noqa: S101 - for mypy
        first_line = self._supervisor.stdout.readline()
        if not first_line:
            raise OSError(f"{command[0]} did not start: see {log}")
        self.pid = int(first_line)
        self._main = processes.look_up(self.pid)

    @property
    def alive(self) -> bool:
        """Whether the command itself still runs; what it forked may outlive it."""
        return self._main is not None and self._main.alive

    def descendants(self) -> list[processes.Process]:
        """Everything that came from the command and is still there."""
        return processes.descendants(self._supervisor.pid)

    def own_processes(self) -> list[processes.Process]:
        """The supervisor and the command, as far as they run."""
        rows = (processes.look_up(self._supervisor.pid), self._main if self.alive else None)
        return [row for row in rows if row is not None]

    def signal(self, number: signal.Signals, *, timeout_s: float = 60) -> None:
        """Send a signal to the command, and wait until it is gone."""
        if self.alive:
            os.kill(self.pid, number)
            until(
                lambda: not self.alive,
                what=f"{self.command[0]} ends on {number.name}",
                timeout_s=timeout_s,
            )

    def end(self) -> None:
        """Kill the command and all that came from it."""
        # close, rather than communicate: a second call is as good as one
        for pipe in (self._supervisor.stdin, self._supervisor.stdout):
            if pipe is not None:
                pipe.close()
        self._supervisor.wait()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _kill_descendants() -> bool:
    """One round of killing; True when nobody was left to kill."""
    victims = processes.descendants(os.getpid())
    for victim in victims:
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _reap()
    return not victims


def main(log: str, *command: str) -> None:
    """Run ``command`` until standard input ends; then leave no descendant."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    process.returncode = 0  # it is reaped below, with all others
    print(process.pid, flush=True)  # noqa: T201 - the answer that the starter waits for
    wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _reap()
    while 0 not in (ready := select.select([0, wakeup_read], [], [])[0]):
        os.read(ready[0], 4096)
        _reap()
    until(_kill_descendants, what="all processes are gone", timeout_s=60)


if __name__ == "__main__":
    main(*sys.argv[1:])
