# SPDX-License-Identifier: GPL-3.0-or-later
"""How much disk a container's own layer takes.

The tree was written by the container's root, so every step goes from a directory's descriptor to
a name in it, follows no link, and stays on the file system where it began.
"""

from __future__ import annotations

import errno
import os
import stat

# Each level holds a descriptor. No system has a tree so deep; a container may make one.
MAX_DEPTH = 256
BLOCK = 512
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def upper_bytes(upperdir: str) -> int:
    """The bytes allocated to a tree, a file with several names once.

    Args:
        upperdir: its root; the directories above it are the host's.

    Raises:
        OSError: it cannot be read, or is deeper than MAX_DEPTH (ELOOP).
    """
    root = os.open(upperdir, _OPEN)
    try:
        here = os.fstat(root)
        return (here.st_blocks + _walk(root, here.st_dev, set(), MAX_DEPTH)) * BLOCK
    finally:
        os.close(root)


def _walk(directory: int, device: int, seen: set[int], depth: int) -> int:
    """The blocks of all that is in a directory, and below it."""
    if not depth:
        raise OSError(errno.ELOOP, f"more than {MAX_DEPTH} directories deep")
    subdirectories, blocks = _measure(directory, device, seen)
    for name in subdirectories:
        child = _enter(directory, name)
        if child is None:
            continue
        try:
            if os.fstat(child).st_dev == device:
                blocks += _walk(child, device, seen, depth - 1)
        finally:
            os.close(child)
    return blocks


def _enter(directory: int, name: str) -> int | None:
    """Open a subdirectory; None where it is gone, or now something else."""
    try:
        return os.open(name, _OPEN, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return None


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
