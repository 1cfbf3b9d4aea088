# SPDX-License-Identifier: GPL-3.0-or-later
"""The process table, as far as the lab needs it: who descends from whom, and who still lives."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import signal

DEAD = "ZX"
NAMESPACES = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}


class Process(NamedTuple):
    """One row of the process table; pid and start together never come again."""

    pid: int
    parent: int
    state: str
    start: int
    command: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        now = look_up(self.pid)
        return now is not None and now.start == self.start and now.state not in DEAD


class Usage(NamedTuple):
    """What a process holds, and has used: resident memory and its peak in KiB, seconds of CPU."""

    resident: int
    peak: int
    cpu_s: float
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Of the process ``pid``, which has to run (proc_pid_status(5), proc_pid_stat(5))."""
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in lines)
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            user, system = map(int, stat.read().rpartition(")")[2].split()[11:13])
        resident, peak = (int(status[name].split()[0]) for name in ("VmRSS", "VmHWM"))
        return cls(
            resident,
            peak,
            (user + system) / os.sysconf("SC_CLK_TCK"),
            len(os.listdir(f"/proc/{pid}/fd")),
        )


def look_up(pid: int) -> Process | None:
    """The process ``pid``, None when there is none. See proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            # the name stands in parentheses and may hold anything, further ones too
            fields = stat.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as cmdline:
            command = cmdline.read().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(fields[1]), fields[0], int(fields[19]), command)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal; see proc_pid_status(5), "SigCgt"."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            masks = [line.split()[1] for line in status if line.startswith("SigCgt:")]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(int(masks[0], 16) >> (number - 1) & 1)


def open_namespaces(pid: int) -> set[str]:
    """The namespaces that a process has open, as ``user:[4026532178]``; see namespaces(7)."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # gone by now
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if target.partition(":[")[0] in NAMESPACES:
                    found.add(target)
    return found


def table() -> list[Process]:
    """All processes that /proc shows."""
    rows = (look_up(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [row for row in rows if row is not None]


def in_our_mounts() -> list[Process]:
    """Other processes, zombies aside, that are in this process's mount namespace.

    Process 1 is not counted: a lab's own follows where we go (see `lab.pidns`).
    """
    ours = os.readlink("/proc/self/ns/mnt")
    return [
        row for row in table() if row.pid not in {1, os.getpid()} and _mounts_of(row.pid) == ours
    ]


def _mounts_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except (FileNotFoundError, PermissionError):  # gone, or a zombie
        return ""


def descendants(ancestor: int) -> list[Process]:
    """Children of ``ancestor``, their children, and so on; zombies too."""
    children: dict[int, list[Process]] = {}
    for row in table():
        children.setdefault(row.parent, []).append(row)
    found: list[Process] = []
    generation = children.get(ancestor, [])
    while generation:
        found += generation
        generation = [child for row in generation for child in children.get(row.pid, [])]
    return found
