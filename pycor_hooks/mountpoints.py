# SPDX-License-Identifier: GPL-3.0-or-later
"""Which paths of a container's tree are mount points, in whichever of its mount namespaces.

unlink(2) of a mount point in another mount namespace detaches what is mounted there
(mount_namespaces(7), "Restrictions on mount namespaces"), so a cure keeps off them.

A container may have as many mounts as fs.mount-max allows, and is frozen while they are read: so
tables are read as streams, nothing is kept but what is asked for, and the reader can be stopped.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.mountinfo import unescape

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

MAX_BINDS = 1000
"""Directories of the overlay that are bound elsewhere, in one mount namespace."""
_BETWEEN_QUESTIONS = 1000


class Bind(NamedTuple):
    """A mount of an overlay: which directory of it, and where, from the namespace's root."""

    root: str
    target: str


class OutOfTime(Exception):
    """What is done while a container is frozen takes too long."""


def of_tasks(
    tasks: Iterable[int], wanted: Container[str], device: str, still: Callable[[], bool]
) -> set[str]:
    """Those of the wanted paths that are mount points for some task.

    Nothing that the tasks have mounted is touched: a file system whose server is one of them,
    and frozen, would not answer.

    Args:
        tasks: their ids; each mount namespace is read once for every root directory.
        wanted: paths relative to the root of the overlay.
        device: "major:minor" of the overlay.
        still: asked now and then whether to go on.

    Raises:
        OutOfTime: ``still`` said no, or there are too many mounts to tell.
    """
    read: set[tuple[str, str]] = set()
    found: set[str] = set()
    for task in tasks:
        if not still():
            raise OutOfTime
        try:
            root = os.readlink(f"/proc/{task}/root")
            place = os.readlink(f"/proc/{task}/ns/mnt"), root
            if place not in read:
                read.add(place)
                found |= on(Table(task, still), wanted, device, root)
        except OSError:
            continue  # it is gone
    return found


def on(table: Iterable[str], wanted: Container[str], device: str, root: str) -> set[str]:
    """Those of the wanted paths that are mount points in one mount table.

    Args:
        table: the lines of a process's mountinfo, which are gone through twice.
        wanted, device: as for :func:`of_tasks`.
        root: that process's root directory, as its mount namespace knows it.

    Returns:
        Paths. A mount whose parent the process does not see, below a root of its own, counts as
        one on the overlay: no harm is done by leaving a path alone.

    Raises:
        OutOfTime: there are too many mounts to tell.
    """
    overlay: dict[str, tuple[str, str]] = {}
    unseen: dict[str, set[str]] = {}
    for mount_id, parent, its_device, its_root, target in map(_fields, table):
        if its_device == device:
            overlay[mount_id] = (its_root, target)
        if _join(root, target) in wanted:
            unseen.setdefault(parent, set()).add(_join(root, target))
        if len(overlay) > MAX_BINDS:
            raise OutOfTime
    found = set()
    for mount_id, parent, _, _, target in map(_fields, table):
        unseen.pop(mount_id, None)
        if parent in overlay:
            path = inside(*overlay[parent], target)
            if path in wanted:
                found.add(path)
    return found.union(*unseen.values())


def layout(table: Iterable[str], device: str, root: str) -> tuple[list[Bind], Iterator[str]]:
    """Where one mount table has the overlay, and what it has mounted on that.

    Args:
        table, device, root: as for :func:`on`.

    Returns:
        The directories of the overlay that are mounted somewhere; and each mount point on them,
        as a path of the overlay.

    Raises:
        OutOfTime: there are too many mounts to tell.
    """
    overlay: dict[str, tuple[str, str]] = {}
    for mount_id, _, its_device, its_root, target in map(_fields, table):
        if its_device == device:
            overlay[mount_id] = (its_root, target)
        if len(overlay) > MAX_BINDS:
            raise OutOfTime
    points = (
        inside(*overlay[parent], target)
        for _, parent, _, _, target in map(_fields, table)
        if parent in overlay
    )
    return [Bind(its_root, f"/{_join(root, at)}") for its_root, at in overlay.values()], points


def inside(its_root: str, at: str, path: str) -> str:
    """The path in the overlay of what lies below a mount of it.

    Args:
        its_root: what of the overlay is mounted.
        at: where.
        path: ``at``, or below that.
    """
    return _join(its_root, path.removeprefix(at.rstrip("/")))


class Table:
    """The mount table of a task, as lines, as often as it is asked for."""

    def __init__(self, task: int, still: Callable[[], bool]) -> None:
        self._task = task
        self._still = still

    def __iter__(self) -> Iterator[str]:
        with open(f"/proc/{self._task}/mountinfo", "rb") as lines:
            for number, line in enumerate(lines):
                if number % _BETWEEN_QUESTIONS == 0 and not self._still():
                    raise OutOfTime
                yield os.fsdecode(line)


def _fields(line: str) -> tuple[str, str, str, str, str]:
    """Mount id, parent id, device, root and mount point (proc_pid_mountinfo(5))."""
    mount_id, parent, device, root, target, _ = line.split(" ", 5)
    return mount_id, parent, device, unescape(root), unescape(target)


def _join(*paths: str) -> str:
    return "/".join(part for path in paths for part in path.split("/") if part)
