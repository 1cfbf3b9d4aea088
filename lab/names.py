# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of odd names, and at the end of long paths."""

from __future__ import annotations

import contextlib
import os

from pycor_hooks.descent import Place

PATH_BYTES = 4000
ODD = [
    b"\xff\xfe not utf-8 \x80",
    b"n" * 255,
    b"\xff" * 255,
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode() * 127,
    b"line\nend \x1b[31m\t\r",
    b" ",
    b"-rf",
    b"\\134 \\x2d",
    b".pycor-hooks.new.",
]
LONG = [b"d" * 200, b"\xff" * 249, b"d"]
"""Names of directories that a path of PATH_BYTES is made of: 20, 16, and 2,000 of them."""


def make(root: str, content: bytes) -> None:
    """Make a file of each odd name, and one at the end of each long path.

    Args:
        root: a directory; what is in it already is replaced, its directories are kept.
        content: of each file.
    """
    for name in ODD:
        _write(root, name, content)
    for name in LONG:
        with Place(root) as place:
            for _ in range(PATH_BYTES // (len(name) + 1)):
                enter(place, os.fsdecode(name))
            _write(f"/proc/self/fd/{place.fd}", b"file", content)


def enter(place: Place, name: str) -> None:
    """Go into a subdirectory, which is made where there is none."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=place.fd)
    place.enter(name)


def contents(root: str) -> set[bytes]:
    """What the files hold that :func:`make` has made, all of them.

    Raises:
        OSError: one is missing.
    """
    found = {_read(root, name) for name in ODD}
    for name in LONG:
        with Place(root) as place:
            for _ in range(PATH_BYTES // (len(name) + 1)):
                place.enter(os.fsdecode(name))
            found.add(_read(f"/proc/self/fd/{place.fd}", b"file"))
    return found


def _write(directory: str, name: bytes, content: bytes) -> None:
    with open(os.fsencode(directory) + b"/" + name, "wb") as file:
        file.write(content)


def _read(directory: str, name: bytes) -> bytes:
    with open(os.fsencode(directory) + b"/" + name, "rb") as file:
        return file.read()
