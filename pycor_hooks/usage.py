# SPDX-License-Identifier: GPL-3.0-or-later
"""How much disk a container's own layer takes.

The tree was written by the container's root, so every step goes from a directory's descriptor to
a name in it, follows no link, and stays on the file system where it began, however deep it goes.
"""

from __future__ import annotations

import os
import stat

from pycor_hooks.descent import Place

BLOCK = 512


def upper_bytes(upperdir: str) -> int:
    """The bytes allocated to a tree, a file with several names once.

    Args:
        upperdir: its root; the directories above it are the host's.

    Raises:
        OSError: it cannot be read.
    """
    with Place(upperdir) as place:
        here = os.fstat(place.fd)
        blocks = here.st_blocks
        seen: set[int] = set()
        pending: list[list[str]] = []
        while True:
            subdirectories, more = _measure(place.fd, here.st_dev, seen)
            blocks += more
            pending.append(subdirectories)
            if not _go_on(place, pending, here.st_dev):
                return blocks * BLOCK


def _go_on(place: Place, pending: list[list[str]], device: int) -> bool:
    """Go to the next directory; whether there is one.

    Args:
        place: where we are.
        pending: the subdirectories to enter yet, of the root, of the one below it, and so on.
        device: of the file system to stay on.
    """
    while pending:
        if pending[-1]:
            if _enter(place, pending[-1].pop(), device):
                return True
        else:
            pending.pop()
            if pending:
                place.leave()
    return False


def _enter(place: Place, name: str, device: int) -> bool:
    """Go into a subdirectory, unless it is gone, something else now, or another file system."""
    try:
        place.enter(name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if os.fstat(place.fd).st_dev == device:
        return True
    place.leave()
    return False


def _measure(directory: int, device: int, seen: set[int]) -> tuple[list[str], int]:
    """The names of the subdirectories, and the blocks of all entries that were not seen yet."""
    subdirectories = []
    blocks = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if found.st_dev != device:
                continue
            if stat.S_ISDIR(found.st_mode):
                subdirectories.append(entry.name)
            elif found.st_nlink > 1:
                if found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
            blocks += found.st_blocks
    return subdirectories, blocks
