# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories that a cure copied up: which they are, and how they go again.

OverlayFS can unlink only in a directory that upper has, so a cure leaves directories in upper
that the container never asked for. They stay while it runs, as taking them from below a live
overlay breaks what is copied up into them later. ``overlay/parents`` in its volume tells which
they are and how the cure left each: one that is empty and still like that goes when the overlay
is unmounted, and the base's shows again. The file goes then, too.

Imported by the hooks, and only where that file is found: standard library only.
"""

from __future__ import annotations

import contextlib
import os

from pycor_hooks import attributes
from pycor_hooks.beneath import Tree, read_regular
from pycor_hooks.layer import PARENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NEW = f"{PARENTS}.new"
_HEADING = "pycor-hooks parents 1"
_LIMIT = 64 << 20  # bytes; an imported volume may bring whatever its maker liked
_ANY = "*"
"""In place of attributes: it was found to be ours, and is being changed or removed by us."""
_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Parents:
    """The record of one container, for whoever holds the lock of its overlay.

    Args:
        own: ``overlay`` in the container's volume.

    Attributes:
        known: for each path, relative to the container's root, the attributes that a cure has
            left it with, as text.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self.known: dict[str, set[str]] = {}
        text = self._read()
        heading, _, entries = text.partition("\0")
        if heading == _HEADING:
            for entry in entries.split("\0")[:-1]:
                left, _, path = entry.partition(" ")
                self.known.setdefault(path, set()).add(left)

    def add(self, path: str, left: attributes.Attributes) -> None:
        """Take note of how a directory will be left."""
        self.known.setdefault(path, set()).add(str(left))

    def begin(self, path: str, left: attributes.Attributes) -> None:
        """Take note that a directory of ours is about to be changed, and how it will be left."""
        self.known[path] |= {_ANY, str(left)}

    def cancel(self, paths: Iterable[str]) -> None:
        """Take note that what :meth:`begin` announced was not done."""
        for path in paths:
            self.known[path].discard(_ANY)

    def end(self, path: str, left: attributes.Attributes) -> None:
        """Take note that a directory was left so, and not as ever before."""
        self.known[path] = {str(left)}

    def is_as_left(self, path: str, descriptor: int) -> bool:
        """Whether an open directory of upper is one of ours, and as a cure left it."""
        left = self.known.get(path, set())
        return bool({_ANY, str(attributes.of(descriptor))} & left) and not (
            attributes.is_opaque(descriptor)
        )

    def holds_nothing_own(self, path: str, upper: Tree) -> bool:
        """Whether all that is in a directory of upper are directories that are ours, too.

        False where there is no such directory, or somebody has changed what it is like.
        """
        pending = [path]  # and no recursion: it may be as deep as the container likes
        while pending:
            one = pending.pop()
            names = self._names_in(one, upper) if one in self.known else None
            if names is None:
                return False
            pending += [f"{one}/{name}" for name in names]
        return True

    def _names_in(self, path: str, upper: Tree) -> list[str] | None:
        """What is in a directory that is as a cure left it; None where it is not."""
        try:
            descriptor = upper.open(path)
        except OSError:
            return None
        try:
            return os.listdir(descriptor) if self.is_as_left(path, descriptor) else None
        finally:
            os.close(descriptor)

    def save(self) -> None:
        """Write the record, so that it outlives a power failure; none where nothing is known.

        Raises:
            OSError: there is no room for it; the record is as it was.
        """
        directory = os.open(self._own, _PLACE)
        try:
            if not self.known:
                for name in (_NEW, PARENTS):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=directory)
                return
            entries = [f"{one} {path}" for path, left in self.known.items() for one in left]
            with open(os.open(_NEW, _WRITE, 0o600, dir_fd=directory), "wb") as file:
                file.write(os.fsencode("".join(f"{one}\0" for one in [_HEADING, *entries])))
                file.flush()
                os.fsync(file.fileno())
            os.rename(_NEW, PARENTS, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self) -> str:
        try:
            return read_regular(f"{self._own}/{PARENTS}", _LIMIT) or ""
        except FileNotFoundError:
            return ""


def remove(own: str) -> None:
    """Remove the directories that hold nothing and are as a cure left them; forget the others.

    Those are the container's own now: whoever writes in a directory changes its mtime. A kill at
    any step leaves what the next call finishes. Where there is no room to take note of it,
    nothing is removed: they are as good as the base's.

    Args:
        own: ``overlay`` in the container's volume; the overlay is not mounted, and the caller
            holds its lock.
    """
    with contextlib.suppress(OSError):
        _remove(own, Parents(own))


def _remove(own: str, parents: Parents) -> None:
    with Tree(f"{own}/upper") as upper:
        going = [path for path in parents.known if parents.holds_nothing_own(path, upper)]
        if going:
            for path in going:
                parents.known[path].add(_ANY)
            parents.save()
        for path in sorted(going, key=lambda path: path.count("/"), reverse=True):
            _rmdir(upper, path)
    parents.known = {}
    parents.save()


def _rmdir(upper: Tree, path: str) -> None:
    """Remove an empty directory, and let its parent keep its mtime."""
    parent = upper.open(path.rpartition("/")[0])
    try:
        before = os.fstat(parent)
        upper.rmdir(path)
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(parent)
