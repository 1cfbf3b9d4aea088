# SPDX-License-Identifier: GPL-3.0-or-later
"""Killing a hook between each two of its steps, by strace(1).

A step is a system call that changes a file system, a mount or a lock. strace's ``-D`` leaves the
hook a child of whoever started it, as its parent tells it which start it belongs to.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from lab.wait import until

KILLED = 128 + 9
"""The exit status of a killed command, as the shell that started it has it."""

# "?": as far as this architecture has it.
_CALLS = (
    *("mkdir", "mkdirat", "rmdir", "rename", "renameat", "renameat2", "unlink", "unlinkat"),
    *("symlink", "symlinkat", "chown", "lchown", "fchown", "fchownat", "chmod", "fchmod"),
    *("fchmodat", "fchmodat2", "utimensat", "open", "openat", "write", "sendfile", "fsync"),
    *("mount", "umount2", "open_tree", "mount_setattr", "move_mount", "clone3", "setfsuid"),
    *("flock",),
)
_LINE = re.compile(r"^(?P<call>\w+)\((?P<arguments>.*)\) += ")


class Step(NamedTuple):
    """The ``number``-th call of one system call in a run; ``arguments`` as strace shows them."""

    call: str
    number: int
    arguments: str

    def __str__(self) -> str:
        return f"{self.call}({self.arguments})"

    def kill(self) -> list[str]:
        """What to put before a command, which is killed at the entry of this call."""
        return [
            *("strace", "-D", "-qq", "-o", "/dev/null", "-e", f"trace={self.call}"),
            *("-e", f"inject={self.call}:signal=KILL:when={self.number}"),
        ]


def record(path: str) -> list[str]:
    """What to put before a command, whose steps go to the file ``path``."""
    calls = ",".join(f"?{call}" for call in _CALLS)
    return ["strace", "-D", "-q", "-o", path, "-e", f"trace={calls}"]


def read(path: str) -> list[Step]:
    """The steps of a recorded run, in their order; waits for strace to have written them."""
    until(lambda: _finished(path), what="strace has seen the end of it")
    counts: Counter[str] = Counter()
    steps = []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for match in filter(None, map(_LINE.match, lines)):
            call, arguments = match.group("call", "arguments")
            counts[call] += 1
            if not call.startswith("open") or call == "open_tree" or "O_CREAT" in arguments:
                steps.append(Step(call, counts[call], arguments))
    return steps


def _finished(path: str) -> bool:
    with open(path, encoding="utf-8", errors="replace") as lines:
        return "+++ exited with 0 +++" in lines.read()
