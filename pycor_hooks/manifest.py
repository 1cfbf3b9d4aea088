# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a base: what its tree held when it last stopped, and what has changed since.

Everything is a stream in one order, so that a base of any size is walked and compared in the
memory of a few directories. Paths are relative to the rootfs, "" for itself, as os.fsdecode
makes them. :mod:`pycor_hooks.generations` keeps it.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.beneath import enter
from pycor_hooks.descent import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ADDED = "added"
CHANGED = "changed"
DELETED = "deleted"
REPLACED = "replaced"
KINDS = (ADDED, CHANGED, DELETED, REPLACED)

PATH_MAX = 4096
"""Bytes of a path. No call takes longer ones; root in a base may make them all the same."""


class Entry(NamedTuple):
    """One path of a base, as lstat(2) tells; owners are those on disk.

    `mode` holds the type; `size` is in bytes; `target` is what a symlink says, else "".
    """

    path: str
    mode: int
    uid: int
    gid: int
    ino: int
    ctime_ns: int
    size: int
    target: str


class Change(NamedTuple):
    """What became of one path.

    `kind` is ADDED, CHANGED, DELETED, or REPLACED: a directory that is another one now, or came
    or went in the place of something else. `old` is None when it was added, `new` when deleted.
    """

    path: str
    kind: str
    old: Entry | None
    new: Entry | None

    @property
    def alters(self) -> bool:
        """Whether the same file or directory got another mode or owner."""
        if self.old is None or self.new is None or self.old.ino != self.new.ino:
            return False
        before, after = ((one.mode, one.uid, one.gid) for one in (self.old, self.new))
        return before != after and stat.S_IFMT(self.old.mode) == stat.S_IFMT(self.new.mode)


class Touched(NamedTuple):
    """What some generations made of one path: `new` is None where it was deleted in the end.

    `altered`: whether one of them gave it another mode or owner in its place.
    """

    path: str
    new: Entry | None
    altered: bool = False


def order(path: str) -> str:
    """What entries are sorted by: a directory comes right before what is in it."""
    return path.replace("/", "\0")


def walk(rootfs: str) -> Iterator[Entry]:
    """Walk a tree in the order of :func:`order`, from descriptor to descriptor.

    No link is followed, and no mount is entered: a directory with one on it stands alone. What
    goes meanwhile is left out: somebody may push files into a base that is stopped.

    Raises:
        OSError: it cannot be read, or has a directory beyond PATH_MAX (ENAMETOOLONG).
    """
    with Place(rootfs) as place:
        levels = [("", _names(place.fd))]
        yield _entry("", os.fstat(place.fd), "")
        while levels:
            prefix, names = levels[-1]
            for name in names:
                try:
                    found = os.stat(name, dir_fd=place.fd, follow_symlinks=False)
                    link = stat.S_ISLNK(found.st_mode)
                    target = os.readlink(name, dir_fd=place.fd) if link else ""
                except FileNotFoundError:
                    continue
                yield _entry(prefix + name, found, target)
                if stat.S_ISDIR(found.st_mode) and _enter(place, prefix, name):
                    levels.append((f"{prefix}{name}/", _names(place.fd)))
                    break
            else:
                levels.pop()
                if levels:
                    place.leave()


def _enter(place: Place, prefix: str, name: str) -> bool:
    """Go into a directory, unless something is mounted on it, or it is none any more."""
    if len(os.fsencode(prefix)) + len(os.fsencode(name)) > PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{prefix[:60]}…")
    below = enter(place.fd, name)
    if below >= 0:
        place.take(below)
    return below >= 0


def _names(directory: int) -> Iterator[str]:
    yield from sorted(os.listdir(directory))


def _entry(path: str, found: os.stat_result, target: str) -> Entry:
    owner = found.st_uid, found.st_gid
    rest = found.st_ino, found.st_ctime_ns, found.st_size, target
    return Entry._make((path, found.st_mode, *owner, *rest))


def compare(old: Iterable[Entry], new: Iterable[Entry]) -> Iterator[Change]:
    """Compare two manifests, in constant memory.

    A directory in which names came or went is not changed by that, so its times and size do not
    count: its owner and mode do. Of everything else each field counts, so a file that was written
    in place is changed, with the same inode.

    Args:
        old, new: in the order of :func:`order`.

    Yields:
        What differs, in the same order.
    """
    before, after = iter(old), iter(new)
    was, now = next(before, None), next(after, None)
    while was is not None or now is not None:
        if was is not None and now is not None and was.path == now.path:
            if was != now:
                yield from change(was, now)
            was, now = next(before, None), next(after, None)
        elif now is None or (was is not None and order(was.path) < order(now.path)):
            yield from change(was, None)
            was = next(before, None)
        else:
            yield from change(None, now)
            now = next(after, None)


def change(old: Entry | None, new: Entry | None) -> Iterator[Change]:
    """What became of one path; nothing where only the times of a directory differ."""
    if old is None or new is None:
        one = old or new
        if one is not None:
            yield Change(one.path, DELETED if new is None else ADDED, old, new)
        return
    directories = stat.S_ISDIR(old.mode), stat.S_ISDIR(new.mode)
    if any(directories) and (old.ino, stat.S_IFMT(old.mode)) != (new.ino, stat.S_IFMT(new.mode)):
        yield Change(old.path, REPLACED, old, new)
    elif all(directories):
        if (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid):
            yield Change(old.path, CHANGED, old, new)
    elif old != new:
        yield Change(old.path, CHANGED, old, new)


def touched(histories: Iterable[Iterable[Change]]) -> Iterator[Touched]:
    """Every path that some of the generations changed, and what is there in the end.

    That includes what is in the end as it was at first: somebody may have looked between.

    Args:
        histories: the oldest first, each as :func:`compare` gives it.
    """
    for steps in _by_path(histories):
        yield Touched(steps[-1].path, steps[-1].new, any(step.alters for step in steps))


def _by_path(histories: Iterable[Iterable[Change]]) -> Iterator[list[Change]]:
    """The changes of each path, the oldest first."""
    merged = heapq.merge(*histories, key=lambda one: order(one.path))  # stable: the oldest first
    for _, group in groupby(merged, key=attrgetter("path")):
        yield list(group)
