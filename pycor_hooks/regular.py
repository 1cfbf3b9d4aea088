# SPDX-License-Identifier: GPL-3.0-or-later
"""Regular files of a tree that somebody else writes to, opened without opening anything else.

Opening a fifo waits, opening a device may do something, and what was a file a moment ago may be
either now. So a name is opened with O_PATH first, which opens nothing but the name, looked at,
and then opened through that descriptor (open(2), "O_PATH").
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from pycor_hooks import kernel

if TYPE_CHECKING:
    from typing import IO


def opened(root: int, path: str) -> IO[bytes]:
    """Open a regular file for reading; the caller closes it.

    Args:
        root: descriptor of a directory.
        path: relative to it; no symlink and no mount point is crossed.

    Raises:
        OSError: there is none, or it is something else (EINVAL).
    """
    place = kernel.open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return open(f"/proc/self/fd/{place}", "rb")
    finally:
        os.close(place)


def is_open(root: int, name: str) -> bool:
    """Whether somebody has a regular file open, or mapped.

    A write lease is given only where nobody else has (fcntl(2), "Leases"); it is given back.

    Args:
        root: descriptor of the directory.
        name: of a file in it.

    Raises:
        OSError: there is none.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=root)
    except BlockingIOError:
        return True  # who has it open has a lease himself
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def same_content(one: IO[bytes], other: IO[bytes], chunk: int = 1 << 20) -> bool:
    """Whether two files hold the same, from where they are to their ends."""
    while True:
        mine, theirs = one.read(chunk), other.read(chunk)
        if mine != theirs:
            return False
        if not mine:
            return True
