# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at the system calls of a hook, one at a time, by strace(1).

A hook is recorded once; then it is run again and again, each time with one of its calls failing,
or with a kill at the entry of one. strace's ``-D`` leaves the hook a child of whoever started it,
as its parent tells it which start it belongs to.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from typing import NamedTuple

from lab.wait import until

KILLED = 128 + 9
"""The exit status of a killed command, as the shell that started it has it."""
KILL = "SIGKILL"
ERRORS = ("EIO", "ENOMEM", "ENOSPC")

_CHANGING = frozenset(
    (
        *("mkdir", "mkdirat", "rmdir", "rename", "renameat", "renameat2", "unlink", "unlinkat"),
        *("symlink", "symlinkat", "chown", "lchown", "fchown", "fchownat", "chmod", "fchmod"),
        *("fchmodat", "fchmodat2", "utimensat", "write", "sendfile", "fsync"),
        *("mount", "umount2", "open_tree", "mount_setattr", "move_mount", "clone3", "setfsuid"),
        *("flock",),
    )
)
STEPS_OVER = frozenset({"setns", "unshare"})
"""Calls by which a hook goes to another mount namespace, and comes back."""
_ERRORS_OF = {  # where the man page leaves no choice
    "exit_group": (),
    "getppid": (),
    "brk": ("ENOMEM",),
}
_LINE = re.compile(r"^(?P<call>\w+)\((?P<arguments>.*)\) += ")


class Step(NamedTuple):
    """The ``number``-th call of one system call in a run; ``arguments`` as strace shows them."""

    call: str
    number: int
    arguments: str

    def __str__(self) -> str:
        return f"{self.call}#{self.number}({self.arguments})"

    @property
    def changes(self) -> bool:
        """Whether it changes a file system, a mount or a lock."""
        opened = self.call in {"open", "openat"} and "O_CREAT" in self.arguments
        return opened or self.call in _CHANGING

    @property
    def errors(self) -> tuple[str, ...]:
        """The errors to inject: those of ERRORS that this call could return."""
        return _ERRORS_OF.get(self.call, ERRORS)

    def kill(self) -> list[str]:
        """What to put before a command, which is killed at the entry of this call."""
        return self.inject(KILL, "/dev/null")

    def inject(self, fault: str, path: str) -> list[str]:
        """What to put before a command, for a fault at this call.

        Args:
            fault: KILL, or one of ERRORS: then the call fails with that and does nothing.
            path: of a file where strace writes what it has done: see :func:`was_injected`.
        """
        kind = "signal=KILL" if fault == KILL else f"error={fault}"
        if (self.call, fault) == ("brk", "ENOMEM"):
            kind = "retval=0"  # the call itself knows no errors, it returns the break (brk(2))
        return [
            *("strace", "-D", "-qq", "-o", path, "-e", f"trace={self.call}"),
            *("-e", f"inject={self.call}:{kind}:when={self.number}"),
        ]


def record(path: str) -> list[str]:
    """What to put before a command, whose calls go to the file ``path``."""
    return ["strace", "-D", "-q", "-y", "-o", path]


def read(path: str, script: str) -> list[Step]:
    """The calls of a recorded run from its first own line on, in their order.

    That line comes when the interpreter has read the script, and closed it for the last time.

    Args:
        path: what :func:`record` was given; waits for strace to have written it.
        script: of the command, as it was called.
    """
    until(lambda: "+++ exited with 0 +++" in _text(path), what="strace has seen the end of it")
    counts: Counter[str] = Counter()
    steps: list[Step] = []
    closed = f"<{os.path.realpath(script)}>"
    for match in filter(None, map(_LINE.match, _text(path).splitlines())):
        call, arguments = match.group("call", "arguments")
        counts[call] += 1
        steps.append(Step(call, counts[call], arguments))
        if call == "close" and arguments.endswith(closed):
            steps.clear()
    return steps


def was_injected(path: str) -> bool:
    """Whether a fault was: numbers of some calls differ from run to run.

    Args:
        path: what :meth:`Step.inject` was given, and the run is over for a while.
    """
    return any(text in _text(path) for text in ("(INJECTED)", "killed by SIGKILL"))


def names(line: str, step: Step, error: str) -> bool:
    """Whether a line says what went wrong: the error, or what came of it.

    Args:
        line: of a container's log.
        step: which failed; setfsuid(2) and setfsgid(2) tell no error.
        error: one of ERRORS.
    """
    texts = [os.strerror(getattr(errno, error)), ": cannot be loaded: ", f" {step.call}("]
    texts += [": No module named ", ": cannot import name "]  # what importlib makes of a stat(2)
    return any(text in line for text in texts)


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
