# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory tree, described byte for byte, so that two moments can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple


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


def describe(root: str) -> dict[str, Entry]:
    """Every entry below ``root``, and ``.`` itself, by its relative path."""
    found = {".": _entry(root)}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = _entry(path)
    return found


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
