# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks into a tree that a container's root writes: nothing in it leads out of it.

Each path is opened by openat2(2), which follows no symlink and crosses no mount; what is opened
for reading is seen to be a regular file first, since opening a device or a fifo has effects.
"""

from __future__ import annotations

import itertools
import os
import stat
from typing import NamedTuple

from pycor_hooks import beneath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_LIMIT = 4096
MOST_ENTRIES = 1_000_000
MOST_NAMES = 10_000


class Owners(NamedTuple):
    """By which ids a tree is stored: each user or group id, with a path that has it.

    `whole`: whether all of it was looked at.
    """

    uids: dict[int, str]
    gids: dict[int, str]
    whole: bool


class Tree(beneath.Tree):
    """What lies below one directory, with looks that are bounded whatever a container made."""

    def _look(self, path: str, flags: int) -> int | None:
        try:
            return self._open(path, flags)
        except OSError as error:
            if error.errno in beneath.NOWHERE:
                return None
            raise

    def mode(self, path: str) -> int:
        """st_mode of what is at ``path``, 0 where nothing is; a symlink is not followed."""
        descriptor = self._look(path, os.O_PATH | os.O_NOFOLLOW)
        if descriptor is None:
            return 0
        try:
            return os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        """The first 10,000 names in a directory; none where there is no such directory."""
        descriptor = self._look(path, _DIRECTORY)
        if descriptor is None:
            return []
        try:
            with os.scandir(descriptor) as entries:
                return sorted(entry.name for entry in itertools.islice(entries, MOST_NAMES))
        finally:
            os.close(descriptor)

    def read(self, path: str) -> bytes:
        """The first 4 KiB of a regular file; nothing where there is no such file."""
        place = self._look(path, os.O_PATH | os.O_NOFOLLOW)
        if place is None:
            return b""
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                return b""
            with open(f"/proc/self/fd/{place}", "rb") as file:
                return file.read(_LIMIT)
        finally:
            os.close(place)

    def owners(self) -> Owners:
        """The ids of everything in it, of the first million entries at most."""
        found = Owners({}, {}, whole=True)
        left = MOST_ENTRIES
        pending = [""]
        while pending:
            path = pending.pop()
            descriptor = self._look(path, _DIRECTORY)
            if descriptor is None:
                continue  # gone, or now something else
            try:
                left -= _note(descriptor, path, found, pending)
            finally:
                os.close(descriptor)
            if left < 0:
                return found._replace(whole=False)
        return found


def is_directory(path: str) -> bool:
    """Whether a directory is at ``path``, and no symlink to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _note(descriptor: int, path: str, found: Owners, pending: list[str]) -> int:
    """Note the ids of what a directory holds, and its directories; how many entries it has."""
    number = 0
    with os.scandir(descriptor) as entries:
        for entry in entries:
            number += 1
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            below = f"{path}/{entry.name}".lstrip("/")
            found.uids.setdefault(status.st_uid, below)
            found.gids.setdefault(status.st_gid, below)
            if stat.S_ISDIR(status.st_mode):
                pending.append(below)
    return number
