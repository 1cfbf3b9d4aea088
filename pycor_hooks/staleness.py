# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about a path of a container whose base has changed: pure decisions; no I/O.

A lookup goes stale where the container holds the dentry of what the base replaced or deleted: a
refresh drops only the unused ones. A file can be cured, by unlinking that dentry. What cannot be
is reported, with its reason and the way out. What upper hides is the container's own, and left.
"""

from __future__ import annotations

import errno
import stat
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.hiding import Upper

if TYPE_CHECKING:
    import os
    from collections.abc import Container


class Reason(Enum):
    """Why a path is stale and stays so: its word, what that means, and the remedy."""

    MOUNTED = (
        "mounted",
        "something is mounted on it in the container, which the cure would detach",
        "unmount it there, then run pycor-hooks remount {name}; or restart container {name}",
    )
    DIRECTORY = (
        "directory",
        "the base has replaced or deleted this directory, and the container holds the old one",
        "restart what works in it, then pycor-hooks remount {name}; or restart container {name}",
    )
    BELOW = (
        "below",
        "the base has replaced a directory above it, and the container holds the old one",
        "restart what works there, then pycor-hooks remount {name}; or restart container {name}",
    )
    NO_SPACE = (
        "no-space",
        "the container's volume is full, and the cure needs room for directories",
        "free some, or raise the quota of the root disk, then run pycor-hooks remount {name}",
    )
    READ_ONLY = (
        "read-only",
        "the file system of the container's upper is read-only",
        "make it writable, then restart container {name}",
    )
    UNMAPPED = (
        "unmapped",
        "its owner, or that of a directory above it, has no id in the container",
        "give {name} more ids, or restart it",
    )
    NOT_PERMITTED = (
        "not-permitted",
        "the kernel forbids to unlink it; it may be immutable in the base (lsattr)",
        "restart container {name}",
    )
    NOT_FROZEN = (
        "not-frozen",
        "the container's processes could not be frozen for the cure",
        "run pycor-hooks remount {name} when it is less busy; or restart container {name}",
    )
    TOO_SLOW = (
        "too-slow",
        "the cure could not be done without freezing the container for too long",
        "run pycor-hooks remount {name} when the host is less busy; or restart container {name}",
    )
    TOO_MUCH = (
        "too-much",
        "the container's processes hold too much, or a directory too many names, to be compared",
        "restart or remove that, then run pycor-hooks remount {name}; or restart container {name}",
    )
    IN_USE = (
        "in-use",
        "a process has the container's own file open, and it would stand in the way of the base's",
        "restart what has it open, and try again; or stop {name} first",
    )
    ALTERED = (
        "altered",
        "its mode or owner was changed in the base, and what uses it keeps the old ones in force",
        "stop that, run pycor-hooks remount {name}, and start it; or restart container {name}",
    )
    REPORTED = (
        "reported",
        "the container is to be told of it only (user.pycor.after-update=report)",
        "run pycor-hooks remount {name}; or restart container {name}",
    )
    PENDING = (
        "pending",
        "the container has not been converged with the last update of its base",
        "start pycor-hooks watch, or run pycor-hooks remount {name}",
    )
    REPLACED = (
        "replaced",
        "the whole tree of the base was replaced or re-owned, and the container holds the old one",
        "restart container {name}",
    )
    FAILED = (
        "failed",
        "it could not be unlinked",
        "restart container {name}",
    )

    @property
    def word(self) -> str:
        """One word, for those who sort by it."""
        return self.value[0]

    @property
    def text(self) -> str:
        """What it means, for people."""
        return self.value[1]

    def remedy(self, name: str) -> str:
        """What to do about it.

        Args:
            name: of the container, as people write it.
        """
        return self.value[2].format(name=name)


_ERRNOS = {
    errno.ENOSPC: Reason.NO_SPACE,
    errno.EDQUOT: Reason.NO_SPACE,
    errno.EROFS: Reason.READ_ONLY,
    errno.EOVERFLOW: Reason.UNMAPPED,
    errno.EPERM: Reason.NOT_PERMITTED,
    errno.EACCES: Reason.NOT_PERMITTED,
    errno.EBUSY: Reason.MOUNTED,
    errno.ENOENT: Reason.DIRECTORY,  # rmdir(2) of a directory that is deleted below
}


class File(NamedTuple):
    """What lstat(2) tells of one file, as far as it decides whether two are the same.

    `altered`: whether its mode or owner are known to have been changed in its place.
    """

    mode: int
    ino: int
    altered: bool = False


def file_of(found: os.stat_result | None) -> File | None:
    """What is compared of what lstat(2) tells."""
    return None if found is None else File(found.st_mode, found.st_ino)


class Seen(NamedTuple):
    """One path that the base has changed.

    `base`: what it has there now. `merged`: what the container's lookup gives; both None where
    there is nothing. `upper`: what the container's own layer says.
    """

    path: str
    base: File | None
    merged: File | None
    upper: Upper


class Verdict(Enum):
    """What is to be done with a path that has no reason to be reported."""

    LEAVE = "leave"
    CURE = "cure"


def is_directory(found: File | None) -> bool:
    """Whether something is there, and a directory."""
    return found is not None and stat.S_ISDIR(found.mode)


def agree(base: File | None, merged: File | None) -> bool:
    """Whether a lookup gives what the base has; of two directories that cannot be told by it."""
    if base is None or merged is None:
        return base is merged
    if is_directory(base) and is_directory(merged):
        return True
    return base.ino == merged.ino and stat.S_IFMT(base.mode) == stat.S_IFMT(merged.mode)


def judge(seen: Seen, *, old_directories: Container[str]) -> Verdict | Reason:
    """Decide what is to be done about one path.

    Args:
        seen: as it is after a refresh.
        old_directories: directories that the container holds, and in whose place the base has
            another one or nothing: whatever is below them comes from the old one.

    Returns:
        LEAVE where it is as it should be, CURE where its dentry can be unlinked, or why not.
    """
    if seen.path in old_directories:
        return Reason.DIRECTORY
    if agree(seen.base, seen.merged) or seen.upper is not Upper.ABSENT:
        return Verdict.LEAVE
    if is_directory(seen.merged):
        return Reason.DIRECTORY
    if seen.merged is None or is_below(seen.path, old_directories):
        return Reason.BELOW
    return Verdict.CURE


def is_below(path: str, directories: Container[str]) -> bool:
    """Whether one of the directories lies above a path."""
    while path:
        path = path.rpartition("/")[0]
        if path in directories:
            return True
    return False


def of_errno(code: int | None) -> Reason:
    """What it means that a cure failed with this errno."""
    return _ERRNOS.get(code or 0, Reason.FAILED)
