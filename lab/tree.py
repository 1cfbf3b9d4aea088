# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory tree, described byte for byte, so that two moments can be compared.

Paths may be longer than a system call takes, and deeper than there are descriptors.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.descent import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Entry(NamedTuple):
    """All of a file that a copy would keep, and its content; access times are nobody's fault."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    device: int
    xattrs: tuple[tuple[str, bytes], ...]
    content: str


@contextlib.contextmanager
def deep(top: str, names: Iterable[str], *, make: bool = False) -> Iterator[int]:
    """Go down into directories, one by one, and make them where told so; the last, open."""
    at = os.open(top, os.O_RDONLY)
    for name in names:
        if make:
            os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    yield at
    os.close(at)


def describe(root: str) -> dict[str, Entry]:
    """Every entry below ``root``, and ``.`` itself, by its relative path."""
    found = {".": _entry(root)}
    with Place(root) as place:
        found |= _below(place)
    return found


def _below(place: Place) -> Iterator[tuple[str, Entry]]:
    names: list[str] = []
    pending = [os.listdir(place.fd)]
    while pending:
        if pending[-1]:
            name = pending[-1].pop()
            entry = _entry(f"/proc/self/fd/{place.fd}/{name}")
            yield "/".join([*names, name]), entry
            if stat.S_ISDIR(entry.mode):
                place.enter(name)
                names.append(name)
                pending.append(os.listdir(place.fd))
        else:
            pending.pop()
            if pending:
                place.leave()
                names.pop()


def changes(before: dict[str, Entry], after: dict[str, Entry]) -> list[str]:
    """What differs, one line for each path: ``etc/hosts: size 10 -> 12, mtime_ns …``."""
    lines = [f"{path}: gone" for path in sorted(before.keys() - after.keys())]
    lines += [f"{path}: new" for path in sorted(after.keys() - before.keys())]
    for path in sorted(before.keys() & after.keys()):
        pairs = zip(Entry._fields, before[path], after[path], strict=True)
        differing = [f"{field} {old!r} -> {new!r}" for field, old, new in pairs if old != new]
        if differing:
            lines.append(f"{path}: {', '.join(differing)}")
    return lines


def _entry(path: str) -> Entry:
    status = os.lstat(path)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    content = ""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    return Entry(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        0 if stat.S_ISDIR(status.st_mode) else status.st_size,  # a directory's is no content
        status.st_mtime_ns,
        status.st_rdev,
        xattrs,
        content,
    )
