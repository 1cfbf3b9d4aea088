# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of the host that many containers meet, against what those that run now use.

The recommended values are those of the daemons' own pages, "Server settings for a LXD production
setup" and the same of Incus. :func:`judge` is pure; the rest reads /proc.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.doctor.check import FAIL, OK, WARN, Check

if TYPE_CHECKING:
    from collections.abc import Iterator

CROWD = 50
"""So many more containers as run now should fit."""
_NEARLY = 0.9
_INOTIFY = "anon_inode:inotify"
_CGROUP = "lxc.payload."


class Limit(NamedTuple):
    """One limit: what is used of it by all, and by `containers` that run now.

    `sysctl`: its name, "" where it is no sysctl; `recommended`: 0 where the daemons' pages say
    nothing.
    """

    name: str
    sysctl: str
    limit: int
    recommended: int
    used: int
    used_by_containers: int
    containers: int


class Usage(NamedTuple):
    """What processes use: all that count, and those of containers; `containers` is their number.

    Each pair is (all, containers).
    """

    instances: tuple[int, int]
    watches: tuple[int, int]
    threads: tuple[int, int]
    containers: int


def check() -> Iterator[Check]:
    """Look at this host."""
    for limit in measure():
        yield judge(limit)


def judge(limit: Limit) -> Check:
    """Whether a limit is near, or would be with some more containers like those that run."""
    name = limit.name
    each = limit.used_by_containers / limit.containers if limit.containers else 0
    room = int((limit.limit - limit.used) / each) if each > 0 else CROWD
    cause = f"{limit.used} of {limit.limit} used"
    raised = max(limit.recommended, limit.limit * 4)
    remedy = f"sysctl -w {limit.sysctl}={raised}, and the same in /etc/sysctl.d"
    if limit.used >= limit.limit * _NEARLY:
        return Check(name, limit.sysctl, FAIL, f"{cause}: containers fail to boot", remedy)
    if room < CROWD:
        cause += f": room for about {room} more containers like the {limit.containers} that run"
        return Check(name, limit.sysctl, WARN, cause, remedy)
    if limit.recommended > limit.limit:
        cause += f" (the daemons recommend {limit.recommended})"
    return Check(name, limit.sysctl, OK, cause)


def measure(proc: str = "/proc") -> list[Limit]:
    """The limits, and what is used of them now.

    Args:
        proc: where proc(5) is mounted.
    """
    usage = look_at_processes(proc)
    many = usage.containers
    mounts = _count_lines(f"{proc}/1/mountinfo")
    keys, key_bytes = key_usage(proc)
    return [
        Limit(
            "inotify instances",
            "fs.inotify.max_user_instances",
            _sysctl(proc, "fs/inotify/max_user_instances"),
            1048576,
            *usage.instances,
            many,
        ),
        Limit(
            "inotify watches",
            "fs.inotify.max_user_watches",
            _sysctl(proc, "fs/inotify/max_user_watches"),
            1048576,
            *usage.watches,
            many,
        ),
        Limit("keys", "kernel.keys.maxkeys", *keys, many),
        Limit("bytes of keys", "kernel.keys.maxbytes", *key_bytes, many),
        Limit(
            "pids",
            "kernel.pid_max",
            _sysctl(proc, "kernel/pid_max"),
            0,
            *usage.threads,
            many,
        ),
        Limit("mounts", "fs.mount-max", _sysctl(proc, "fs/mount-max"), 0, mounts, many, many),
    ]


def look_at_processes(proc: str) -> Usage:
    """Count what processes use.

    An inotify instance of a container counts for its own user, and once more for the one who made
    its user namespace (inc_ucount() of kernel/ucount.c): root. So all containers, and what root
    runs beside them, share one limit, whatever their ids.
    """
    host = os.stat(f"{proc}/self/ns/user").st_ino
    totals = [[0, 0], [0, 0], [0, 0]]
    cgroups = set()
    for pid in filter(str.isdecimal, os.listdir(proc)):
        try:
            cgroup = _container_of(f"{proc}/{pid}")
            counts = _root_s(f"{proc}/{pid}", host)
            threads = len(os.listdir(f"{proc}/{pid}/task"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone, or hidden from us
        cgroups |= {cgroup} if cgroup else set()
        for total, number in zip(totals, (*counts, threads), strict=True):
            total[0] += number
            total[1] += number if cgroup else 0
    instances, watches, tasks = ((total[0], total[1]) for total in totals)
    return Usage(instances, watches, tasks, len(cgroups))


def _container_of(process: str) -> str:
    """The container that a process is in, as liblxc calls its cgroup; "" where it is in none."""
    with open(f"{process}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        parts = [part for line in lines for part in line.strip().split("/")]
    return next((part for part in parts if part.startswith(_CGROUP)), "")


def _root_s(process: str, host: int) -> tuple[int, int]:
    """The inotify instances and watches of a process that count for the host's root."""
    if os.stat(process).st_uid and os.stat(f"{process}/ns/user").st_ino == host:
        return 0, 0
    instances = watches = 0
    for number in os.listdir(f"{process}/fd"):
        try:
            if os.readlink(f"{process}/fd/{number}") == _INOTIFY:
                instances += 1
                watches += _count_lines(f"{process}/fdinfo/{number}", "inotify ")
        except FileNotFoundError:
            continue
    return instances, watches


def key_usage(proc: str) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Number and size of the keys of the user who is nearest to the limits, root left out.

    Returns:
        For each (limit, recommended, used, used by containers); proc_key-users(5).
    """
    number = (_sysctl(proc, "kernel/keys/maxkeys"), 2000, 0, 0)
    size = (_sysctl(proc, "kernel/keys/maxbytes"), 2000000, 0, 0)
    with open(f"{proc}/key-users", encoding="ascii") as lines:
        for line in lines:
            uid, _, _, keys, bytes_ = line.split()
            if uid != "0:":
                number = max(number, _quota(keys, 2000), key=lambda quota: quota[2])
                size = max(size, _quota(bytes_, 2000000), key=lambda quota: quota[2])
    return number, size


def _quota(text: str, recommended: int) -> tuple[int, int, int, int]:
    used, _, limit = text.partition("/")
    return int(limit), recommended, int(used), int(used)


def _sysctl(proc: str, name: str) -> int:
    with open(f"{proc}/sys/{name}", encoding="ascii") as file:
        return int(file.read())


def _count_lines(path: str, beginning: str = "") -> int:
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        return sum(line.startswith(beginning) for line in lines)
