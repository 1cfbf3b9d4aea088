# SPDX-License-Identifier: GPL-3.0-or-later
"""Regular files of a tree that somebody else writes to, opened without opening anything else.

Opening a fifo waits, opening a device may do something, and what was a file a moment ago may be
either now. So a name is opened with O_PATH first, which opens nothing but the name, looked at,
and then opened through that descriptor (open(2), "O_PATH").
"""

from __future__ import annotations

import errno
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


def same_content(one: IO[bytes], other: IO[bytes], chunk: int = 1 << 20) -> bool:
    """Whether two files hold the same, from where they are to their ends."""
    while True:
        mine, theirs = one.read(chunk), other.read(chunk)
        if mine != theirs:
            return False
        if not mine:
            return True
