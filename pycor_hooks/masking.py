# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a container's own hides a newer file of its base, so that an update never arrives.

How newer is told. Of two files that differ, the base's is the newer one where

- the container's is a copy-up of another file than the base has now: OverlayFS keeps the handle
  of the file that it copied (``overlay.origin``), which every copy of the volume keeps too, and
  a package manager puts another file in the place of the old one;
- the base's was changed after the container's was born: by ctime, which nobody can set, and
  birth, which for a copy-up is its moment, and for what was written anew by a rename that of the
  writing;
- its content was written later: by mtime, which a copy of the volume keeps as well.

A whiteout has no time of its own, as OverlayFS makes one inode for all. It hides a newer file
where the base's was changed after anything was last changed in the directory that it is in. The
database of dpkg is compared package by package, since each run of dpkg writes it anew.

What cannot be told is not shown: a file that the container rewrites after the base has changed
it is taken for the newer one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import dpkg, kernel

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from pycor_hooks.layerdiff import Difference

_ORIGIN = ("user.overlay.origin", "trusted.overlay.origin")
# struct ovl_fb of fs/overlayfs/overlayfs.h: version, magic, length, flags, type, uuid; the handle
_ORIGIN_HEAD = struct.Struct("=BBBBB16s")
_ORIGIN_MAGIC = 0xFB
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_DATABASES = ("var/lib/dpkg/", "var/lib/rpm/", "lib/apk/db/", "usr/lib/apk/db/")
_SHOWN = 3
_NEVER_OLDER = sys.maxsize

DATABASE = "package database"
CACHE = "etc/ld.so.cache"
ACCOUNTS = frozenset(f"etc/{name}" for name in ("passwd", "group", "shadow", "gshadow"))


class Times(NamedTuple):
    """When a file was what, in ns since the epoch, and which one it is.

    `born` is None where the file system does not tell; `handle` as kernel.file_handle, in upper
    that of the base's file that it was copied from; b"" for none.
    """

    born: int | None
    changed: int
    modified: int
    handle: bytes


class Masked(NamedTuple):
    """A difference that hides a newer file of the base, why that is thought, and what to do."""

    difference: Difference
    reason: str
    remedy: str


def newer(base: Times, own: Times) -> str | None:
    """Why a file of the base is newer than the container's, which is not like it."""
    if own.handle and base.handle and own.handle != base.handle:
        return "it is a copy of a file that the base has replaced since"
    if base.changed > (own.born or own.changed):
        return "the base's was changed after the container made its own"
    if base.modified > own.modified:
        return "the base's was written later"
    return None


def masked(
    found: Iterable[Difference], upperdir: str, lowerdir: str, name: str
) -> Iterator[Masked]:
    """Pick what hides a newer file of the base.

    Args:
        found: of layerdiff.differences.
        upperdir, lowerdir: the layers that it is about.
        name: of the container, for the remedies.
    """
    upper = os.open(upperdir, _PLACE | os.O_CLOEXEC)
    base = os.open(lowerdir, _PLACE | os.O_CLOEXEC)
    try:
        for difference in found:
            reason = _why(difference, upper, base)
            if reason:
                yield Masked(difference, reason, _remedy(difference, upper, base, name))
    finally:
        os.close(upper)
        os.close(base)


def _why(difference: Difference, upper: int, base: int) -> str | None:
    if difference.base is None or stat.S_ISDIR(difference.base.st_mode):
        return None
    if difference.path == dpkg.STATUS and difference.own:
        unpacked = dpkg.unpacked(upper)
        return compare_packages(dict(dpkg.installed(upper)), dict(dpkg.installed(base)), unpacked)
    try:
        reason = newer(_of_base(base, difference.path), _of_upper(upper, difference.path))
    except OSError:
        return None  # it went just now
    if reason and difference.path.startswith(_DATABASES):
        return f"{DATABASE}: {reason}"
    return reason


def compare_packages(
    own: Mapping[str, str], base: Mapping[str, str], unpacked: Container[str]
) -> str | None:
    """Say how the base's packages differ from what a container's database says of them.

    Args:
        own, base: version by name, as the databases have them.
        unpacked: what the container has installed or upgraded itself; else it was the base's.
    """
    other = [name for name, version in base.items() if own.get(name) != version]
    other += [name for name in own if name not in base and name not in unpacked]
    if not other:
        return None
    other.sort()
    some = [
        f"{name} {base.get(name, 'no more')} (here {own.get(name, 'none')})"
        for name in other[:_SHOWN]
    ]
    more = f", … {len(other)} in all" if len(other) > _SHOWN else ""
    return f"{DATABASE}: the base has {', '.join(some)}{more}"


def _remedy(difference: Difference, upper: int, base: int, name: str) -> str:
    path = f"/{difference.path}"
    drop = f"pycor-hooks diff {name} --drop"
    if difference.path == dpkg.STATUS:
        alone = dict(dpkg.installed(upper)).keys() - dict(dpkg.installed(base)).keys()
        own = sorted(alone & dpkg.unpacked(upper))
        first = (
            f"install in the base what {name} alone has ({', '.join(own)}), then " if own else ""
        )
        return f"{first}{drop} /{os.path.dirname(dpkg.STATUS)}"
    if difference.path == CACHE:
        return f"run ldconfig in {name}; or {drop} {path}, where it has no libraries of its own"
    if difference.path in ACCOUNTS:
        return f"add to it the accounts that only the base's has; or {drop} {path}"
    return f"put into it what you need of the base's; or {drop} {path}"


def _of_base(root: int, path: str) -> Times:
    with _place(root, path) as place:
        found = os.lstat(place)
        handle = kernel.file_handle(place)
    return Times(None, found.st_ctime_ns, found.st_mtime_ns, handle)


def _of_upper(root: int, path: str) -> Times:
    """What upper has at a path, or else whatever hides the base's there.

    That is a directory for a whiteout in it, and for what is missing from an opaque one.
    """
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        with _place(root, "/".join(parts[:count])) as place:
            try:
                found = os.lstat(place)
            except FileNotFoundError:
                return _hidden_by(os.path.dirname(place), born=True)
            if stat.S_ISCHR(found.st_mode) and not found.st_rdev:
                return _hidden_by(os.path.dirname(place), born=False)
            if count == len(parts) or not stat.S_ISDIR(found.st_mode):
                return Times(
                    kernel.statx(place).btime_ns or None,
                    found.st_ctime_ns,
                    found.st_mtime_ns,
                    origin(place),
                )
    raise FileNotFoundError(path)


def _hidden_by(directory: str, *, born: bool) -> Times:
    """The times of a directory, /proc/self/fd/N, in whose favour the base's file is hidden."""
    found = os.stat(directory)
    birth = kernel.statx(f"{directory}/.").btime_ns if born else 0
    return Times(birth or None, found.st_ctime_ns, _NEVER_OLDER, b"")


@contextlib.contextmanager
def _place(root: int, path: str) -> Iterator[str]:
    """A path by which the last name of one can be reached, and nothing else."""
    parent, _, name = path.rpartition("/")
    directory = kernel.open_beneath(root, parent, _PLACE)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)


def origin(place: str) -> bytes:
    """The handle of the base's file that a file of upper is a copy of, b"" for none.

    Args:
        place: a path whose last part alone may be a link.
    """
    for attribute in os.listxattr(place, follow_symlinks=False):
        if attribute in _ORIGIN:
            value = os.getxattr(place, attribute, follow_symlinks=False)
            if len(value) >= _ORIGIN_HEAD.size:
                _, magic, length, _, kind, _ = _ORIGIN_HEAD.unpack_from(value)
                if magic == _ORIGIN_MAGIC:
                    handle = value[_ORIGIN_HEAD.size : length]
                    return int(kind).to_bytes(4, sys.byteorder) + handle
    return b""
