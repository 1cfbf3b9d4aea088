# SPDX-License-Identifier: GPL-3.0-or-later
"""Going down a tree and up again, however deep it is, with a bounded number of descriptors.

Every step goes from a directory's descriptor to a name in it, and follows no link; so whoever
moves or replaces directories meanwhile leads nobody out of the tree.

Imported by a hook that finds strays: standard library only.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
HELD = 256
"""So many of the directories above are kept open; the way to those below goes by ``..``."""


class Place:
    """A directory in a tree. Entered with ``with``, which closes what is open in the end.

    Attributes:
        fd: its descriptor, another one after each step.
    """

    def __init__(self, root: str) -> None:
        """Begin at the root of a tree; the directories above it are the host's."""
        self.fd = os.open(root, OPEN)
        self._held: list[int] = []
        self._closed: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (*self._held, self.fd):
            os.close(descriptor)

    def enter(self, name: str) -> None:
        """Go down into a subdirectory.

        Raises:
            OSError: it is gone, or no directory any more; the place is the same then.
        """
        self.take(os.open(name, OPEN, dir_fd=self.fd))

    def take(self, below: int) -> None:
        """Go down into a subdirectory that has been opened; its descriptor is the place's now."""
        if len(self._held) < HELD:
            self._held.append(self.fd)
        else:
            self._closed.append(_identity(self.fd))
            os.close(self.fd)
        self.fd = below

    def leave(self) -> None:
        """Go up again.

        Raises:
            OSError: ESTALE where somebody moved this directory to another one meanwhile.
        """
        if self._closed:
            above = os.open("..", OPEN, dir_fd=self.fd)
            if _identity(above) != self._closed.pop():
                os.close(above)
                raise OSError(errno.ESTALE, "a directory was moved meanwhile")
        else:
            above = self._held.pop()
        os.close(self.fd)
        self.fd = above


class Pair:
    """A directory of one tree, and the one of the same path in another.

    Attributes:
        source, target: both; target stays behind where its tree has no such directory.
        names: the path.
    """

    def __init__(self, source: Place, target: Place) -> None:
        self.source = source
        self.target = target
        self.names: list[str] = []
        self._beyond = 0

    def path_of(self, name: str) -> str:
        """The path of something in this directory, from the root."""
        return "/".join(["", *self.names, name])

    def target_of(self, name: str) -> os.stat_result | None:
        """What the other tree has under a name in this directory."""
        return None if self._beyond else lstat(name, self.target.fd)

    def enter(self, name: str) -> None:
        """Go down, on both sides where there are both."""
        found = self.target_of(name)
        self.source.enter(name)
        self.names.append(name)
        if found is None:
            self._beyond += 1
        else:
            self.target.enter(name)

    def leave(self) -> None:
        """Go up."""
        self.source.leave()
        self.names.pop()
        if self._beyond:
            self._beyond -= 1
        else:
            self.target.leave()


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def lstat(name: str, directory: int) -> os.stat_result | None:
    """What has a name in an open directory, None for nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
