# SPDX-License-Identifier: GPL-3.0-or-later
"""The files in which manifests and changes are kept: a line of ASCII, then entries, packed.

A file is complete or not there: it is written beside its name, synced, and renamed; and its last
entry says that it is the last.
"""

from __future__ import annotations

import contextlib
import os
import sys
from struct import Struct
from typing import IO, TYPE_CHECKING

from pycor_hooks import manifest
from pycor_hooks.errors import BadState
from pycor_hooks.manifest import Change, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# mode, uid, gid, inode, ctime in ns, size, and the bytes of path and target, which follow
_HEAD = Struct("=IIIQqQHH")
_NO_ENTRY = _HEAD.pack(*[0] * 8)
"""No entry has mode 0: this is the side of a change that is not there."""
_LINE_LIMIT = 4096
_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
"""As os.fsencode has it, which takes twice the time."""


@contextlib.contextmanager
def opened(path: str, magic: str) -> Iterator[tuple[list[str], IO[bytes]]]:
    """Open a file; give the words of its first line, and what follows it.

    Raises:
        FileNotFoundError: there is none.
        BadState: it does not begin with `magic`.
    """
    with open(path, "rb") as file:
        words = file.readline(_LINE_LIMIT).decode("ascii", "replace").split()
        if words[:1] != [magic]:
            raise BadState(path=path, reason=f"it does not begin with {magic}")
        yield words[1:], file


@contextlib.contextmanager
def begun(path: str, line: str) -> Iterator[IO[bytes]]:
    """Begin a file, to be published by a rename; one that a kill left there is written over."""
    with open(path, "wb") as file:
        file.write(line.encode("ascii") + b"\n")
        yield file
        file.write(2 * _NO_ENTRY)  # one ends entries, two end changes


def publish(new: str, path: str) -> None:
    """Put a file in its place, for good."""
    with open(new, "rb") as file:
        os.fsync(file.fileno())
    os.rename(new, path)


def put(file: IO[bytes], entry: Entry) -> None:
    """Write one entry."""
    path = entry.path.encode(*_NAMES)
    target = entry.target.encode(*_NAMES)
    file.write(_HEAD.pack(*entry[1:7], len(path), len(target)) + path + target)


def copied(file: IO[bytes], entries: Iterable[Entry]) -> Iterator[Entry]:
    """Write entries as they pass by."""
    for entry in entries:
        put(file, entry)
        yield entry


def entries(file: IO[bytes]) -> Iterator[Entry]:
    """Read entries up to the last.

    Raises:
        BadState: the file ends before that.
    """
    while entry := _get(file):
        yield entry


def put_change(file: IO[bytes], change: Change) -> None:
    """Write one change: both its sides."""
    for side in (change.old, change.new):
        if side is None:
            file.write(_NO_ENTRY)
        else:
            put(file, side)


def changes(file: IO[bytes]) -> Iterator[Change]:
    """Read changes up to the last.

    Raises:
        BadState: the file ends before that.
    """
    while True:
        old, new = _get(file), _get(file)
        if old is None and new is None:
            return
        yield from manifest.change(old, new)


def _get(file: IO[bytes]) -> Entry | None:
    """Read one entry; None for the place of one."""
    head = file.read(_HEAD.size)
    if head == _NO_ENTRY:
        return None
    if len(head) == _HEAD.size:
        mode, uid, gid, ino, ctime_ns, size, path_bytes, target_bytes = _HEAD.unpack(head)
        names = file.read(path_bytes + target_bytes)
        if len(names) == path_bytes + target_bytes:
            path = names[:path_bytes].decode(*_NAMES)
            target = names[path_bytes:].decode(*_NAMES)
            return Entry(path, mode, uid, gid, ino, ctime_ns, size, target)
    raise BadState(path=file.name, reason="it is cut off")
