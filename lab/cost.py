# SPDX-License-Identifier: GPL-3.0-or-later
"""What directory trees cost: blocks on disk, pages in memory."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512
_AT_ONCE = 1000  # paths in one command line


def disk(*roots: str) -> int:
    """Bytes that the trees occupy, a file with several names counted once."""
    seen: dict[tuple[int, int], int] = {}
    for root in roots:
        for path in _walk(root):
            status = os.lstat(path)
            seen[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK
    return sum(seen.values())


def page_cache(*roots: str) -> int:
    """Bytes of the trees' files that are in memory, see fincore(1)."""
    paths = [path for root in roots for path in _files(root)]
    total = 0
    for start in range(0, len(paths), _AT_ONCE):
        command = ["fincore", "--bytes", "--noheadings", "--output=RES", "--"]
        done = subprocess.run(
            [*command, *paths[start : start + _AT_ONCE]],
            check=True,
            capture_output=True,
            text=True,
        )
        total += sum(map(int, done.stdout.split()))
    return total


def evict(*roots: str) -> None:
    """Ask the kernel to forget the trees' pages; those that a process has mapped stay."""
    os.sync()  # a dirty page cannot go
    for root in roots:
        for path in _files(root):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _files(root: str) -> Iterator[str]:
    """Regular files that hold something."""
    for path in _walk(root):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            yield path


def _walk(root: str) -> Iterator[str]:
    yield root
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            yield os.path.join(directory, name)
