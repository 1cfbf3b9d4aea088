# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container's upper changes against its base, without the overlay: it may be stopped.

It is what a comparison of the two whole trees would say: whiteouts, opaque directories and what
they hide are resolved (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories"), and a copy that is no different is no change. Times alone are no difference.

Both trees are other people's: every step goes from a directory's descriptor to a name in it, and
follows nothing. What the container changes meanwhile is seen before or after.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import attributes, regular
from pycor_hooks.beneath import NOWHERE, enter

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDED, MODIFIED, DELETED = "A", "M", "D"

# Each level holds two descriptors. No system has a tree so deep; a container may make one.
MAX_DEPTH = 256
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_XWHITEOUTS = b"x"
"""The value of an opaque mark in whose directory files may be whiteouts by an attribute."""
_WHITEOUT = ("user.overlay.whiteout", "trusted.overlay.whiteout")


class Difference(NamedTuple):
    """A path that is not as in the base.

    `path` is relative to the root, "" for itself; `change` is ADDED, MODIFIED or DELETED;
    `own` is what upper has there, None where it hides the base's; `base` is that, None where it
    has none.
    """

    path: str
    change: str
    own: os.stat_result | None
    base: os.stat_result | None

    @property
    def shown(self) -> os.stat_result:
        """What the container has there, or had, where it has nothing any more."""
        found = self.own or self.base
        assert found is not None  # noqa: S101 - one of the layers has it
        return found


class Pair(NamedTuple):
    """The same directory in both layers, open; -1 where one has none, or it does not count.

    `opaque` tells that the container sees nothing of the base's in it, `xwhiteouts` that files
    in it may be whiteouts by an attribute.
    """

    upper: int
    base: int
    opaque: bool = False
    xwhiteouts: bool = False


def differences(upperdir: str, lowerdir: str, shift: int) -> Iterator[Difference]:
    """Compare a layer with the base that it was written on.

    Args:
        upperdir, lowerdir: of an overlay, whether it is mounted or not.
        shift: what to add to an id as the base stores it, to get it as upper does.

    Yields:
        What differs, a directory before what is in it, by name.

    Raises:
        OSError: a layer cannot be read, or is deeper than MAX_DEPTH (ELOOP).
    """
    upper = os.open(upperdir, _OPEN | os.O_CLOEXEC)
    try:
        base = os.open(lowerdir, _OPEN | os.O_CLOEXEC)
        try:
            yield from _Comparison(shift).run(Pair(upper, base))
        finally:
            os.close(base)
    finally:
        os.close(upper)


class _Comparison:
    def __init__(self, shift: int) -> None:
        self._shift = shift

    def run(self, root: Pair) -> Iterator[Difference]:
        yield from self._directory("", root, os.fstat(root.upper), os.fstat(root.base))
        yield from self._below("", root, MAX_DEPTH)

    def _below(self, prefix: str, pair: Pair, depth: int) -> Iterator[Difference]:
        """What differs in a directory, and below it."""
        if not depth:
            raise OSError(errno.ELOOP, f"more than {MAX_DEPTH} directories deep", prefix)
        own = set(_names(pair.upper))
        hidden = pair.opaque or pair.upper < 0
        for name in sorted(own | set(_names(pair.base)) if hidden else own):
            mine = _lstat(pair.upper, name) if name in own else None
            theirs = _lstat(pair.base, name)
            if mine is not None and is_whiteout(pair, name, mine):
                mine = None
            yield from self._compare(prefix, name, pair, (mine, theirs), depth)

    def _compare(
        self,
        prefix: str,
        name: str,
        pair: Pair,
        sides: tuple[os.stat_result | None, os.stat_result | None],
        depth: int,
    ) -> Iterator[Difference]:
        mine, theirs = sides
        path = f"{prefix}{name}"
        below = Pair(
            enter(pair.upper, name) if _is_directory(mine) else -1,
            enter(pair.base, name) if _is_directory(theirs) else -1,
        )
        try:
            if below.upper >= 0:
                below = _with_marks(below, hidden=pair.opaque)
            if mine and theirs and below.upper >= 0 and below.base >= 0:
                yield from self._directory(path, below, mine, theirs)
            elif mine is None and theirs:
                yield Difference(path, DELETED, None, theirs)
            elif mine and theirs is None:
                yield Difference(path, ADDED, mine, None)
            elif mine and theirs and not self._same(pair, name, mine, theirs):
                yield Difference(path, MODIFIED, mine, theirs)
            if below.upper >= 0 or below.base >= 0:
                yield from self._below(f"{path}/", below, depth - 1)
        finally:
            for descriptor in below[:2]:
                if descriptor >= 0:
                    os.close(descriptor)

    def _directory(
        self, path: str, pair: Pair, mine: os.stat_result, theirs: os.stat_result
    ) -> Iterator[Difference]:
        own = attributes.of(pair.upper)
        base = attributes.of(pair.base).shifted(self._shift)
        if not own.same_but_for_times(base):
            yield Difference(path, MODIFIED, mine, theirs)

    def _same(self, pair: Pair, name: str, mine: os.stat_result, theirs: os.stat_result) -> bool:
        """Whether two things that are not both directories are alike, apart from times."""
        if mine.st_mode != theirs.st_mode or mine.st_rdev != theirs.st_rdev:
            return False
        if (mine.st_uid - self._shift, mine.st_gid - self._shift) != (
            theirs.st_uid,
            theirs.st_gid,
        ):
            return False
        if stat.S_ISLNK(mine.st_mode):
            links = (os.readlink(name, dir_fd=side) for side in pair[:2])
            return next(links) == next(links)
        if not stat.S_ISREG(mine.st_mode):
            return True
        return mine.st_size == theirs.st_size and self._same_file(pair, name)

    def _same_file(self, pair: Pair, name: str) -> bool:
        try:
            with (
                regular.opened(pair.upper, name) as mine,
                regular.opened(pair.base, name) as theirs,
            ):
                own = attributes.of(mine.fileno())
                base = attributes.of(theirs.fileno()).shifted(self._shift)
                return own.same_but_for_times(base) and regular.same_content(mine, theirs)
        except OSError as error:
            if error.errno in {*NOWHERE, errno.EINVAL}:
                return False  # it was swapped just now
            raise


def is_whiteout(pair: Pair, name: str, found: os.stat_result) -> bool:
    """Whether a name of upper stands for nothing."""
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev == 0
    if not pair.xwhiteouts or not stat.S_ISREG(found.st_mode) or found.st_size:
        return False
    place = f"/proc/self/fd/{pair.upper}/{name}"
    try:
        return any(mark in _WHITEOUT for mark in os.listxattr(place, follow_symlinks=False))
    except OSError:
        return False


def _with_marks(pair: Pair, *, hidden: bool) -> Pair:
    """The same with what upper's directory says of itself; below an opaque one all is hidden."""
    marks = attributes.opaque_marks(pair.upper)
    return pair._replace(opaque=hidden or b"y" in marks, xwhiteouts=_XWHITEOUTS in marks)


def _names(directory: int) -> list[str]:
    return os.listdir(directory) if directory >= 0 else []


def _is_directory(found: os.stat_result | None) -> bool:
    return found is not None and stat.S_ISDIR(found.st_mode)


def _lstat(directory: int, name: str) -> os.stat_result | None:
    if directory < 0:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
