# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory tree that somebody else writes to, reached from its root and never left.

A container's root may swap a directory for a symlink, or rename it, at any moment. So there are
no joined paths here: the directory of each path is opened by openat2(2), which follows nothing and
crosses nothing, and what is done then is done to a name in that directory.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice

from pycor_hooks import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_AT_ONCE = 1000  # characters, of four bytes at most: PATH_MAX is 4,096 (limits.h)
# What openat2(2) says of a path that leads nowhere within this tree.
NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG}


class Tree:
    """What lies below one directory; paths are relative to it, "" is the directory itself.

    The directory of the last path stays open, so ask in the order of directories; what is open
    pins its dentry, so :meth:`forget` it before a refresh.
    """

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _PLACE | os.O_CLOEXEC)
        self._parent = ""
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        os.close(self._root)

    def forget(self) -> None:
        """Close the directory of the last path."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def place(self, path: str) -> tuple[int, str]:
        """The directory that holds ``path``, as a descriptor that is ours, and its name there.

        Raises:
            OSError: there is no such directory in this tree.
        """
        parent, _, name = path.rpartition("/")
        if self._descriptor < 0 or parent != self._parent:
            self.forget()
            self._descriptor = self._open(parent, _PLACE)
            self._parent = parent
        return self._descriptor, name or "."

    def lstat(self, path: str) -> os.stat_result | None:
        """What is at ``path``, None where nothing is."""
        try:
            directory, name = self.place(path)
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in NOWHERE:
                return None
            raise

    def open(self, path: str) -> int:
        """Open a directory to be read; the caller closes it.

        Raises:
            OSError: there is no such directory in this tree.
        """
        return self._open(path, _READ)

    def _open(self, path: str, flags: int) -> int:
        """Open a directory; one whose path is longer than a system call takes, piece by piece."""
        at = self._root
        try:
            while len(path) > _AT_ONCE:
                end = path.rfind("/", 0, _AT_ONCE)
                if end < 0:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
                below = kernel.open_beneath(at, path[:end], _PLACE)
                path = path[end + 1 :]
                if at != self._root:
                    os.close(at)
                at = below
            return kernel.open_beneath(at, path, flags)
        finally:
            if at != self._root:
                os.close(at)

    def has(self, path: str, what: Callable[[int], bool]) -> bool:
        """Whether ``what`` is true of an open directory."""
        descriptor = self.open(path)
        try:
            return what(descriptor)
        finally:
            os.close(descriptor)

    def list(self, path: str, most: int | None = None) -> list[str]:
        """The names in a directory, ``most`` of them; none where there is no such directory."""
        try:
            descriptor = self.open(path)
        except OSError as error:
            if error.errno in NOWHERE:
                return []
            raise
        try:
            with os.scandir(descriptor) as entries:
                return [entry.name for entry in islice(entries, most)]
        finally:
            os.close(descriptor)

    def unlink(self, path: str) -> None:
        """unlinkat(2), of anything but a directory."""
        directory, name = self.place(path)
        os.unlink(name, dir_fd=directory)

    def rmdir(self, path: str) -> None:
        """unlinkat(2), of an empty directory."""
        directory, name = self.place(path)
        os.rmdir(name, dir_fd=directory)


def enter(directory: int, name: str) -> int:
    """Open a subdirectory to be read; -1 where it is gone, something else, or has a mount on it.

    Args:
        directory: descriptor of the one that it is in.
        name: of it there.
    """
    try:
        return kernel.open_beneath(directory, name, _READ)
    except OSError as error:
        if error.errno in NOWHERE:
            return -1
        raise


def read_regular(path: str, most: int, dir_fd: int | None = None) -> str | None:
    """Read a file that somebody else may have put there, a fifo or a link too.

    Args:
        path: of which the last component may be anything; nothing is followed or waited for.
        most: bytes that are read, at most.
        dir_fd: the directory that it is relative to.

    Returns:
        What it holds, None where it is no regular file.

    Raises:
        OSError: nothing is there, or a link.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        return os.fsdecode(file.read(most))
