# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge one container, as the watcher does, in a process that can be killed.

Run as ``python -m lab.converging RECORD BASE PATH…``, where RECORD is the directory of its record
and BASE the base's rootfs, which has changed at these paths.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pycor_hooks import converge, manifest, overlay, record, staleness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pycor_hooks.staleness import File


def touched(
    base: str, paths: Sequence[str], *, altered: bool = False
) -> Callable[[int | None], Iterator[tuple[str, File | None]]]:
    """What a manifest would tell of paths that a base has changed, or altered in their place."""

    def tell(_: int | None) -> Iterator[tuple[str, File | None]]:
        for path in sorted(paths, key=manifest.order):
            try:
                found = os.lstat(f"{base}/{path}")
            except (FileNotFoundError, NotADirectoryError):
                yield path, None
            else:
                yield path, staleness.File(found.st_mode, found.st_ino, altered)

    return tell


def main() -> None:
    """Do it."""
    directory, base, *paths = sys.argv[1:]
    found = record.read(directory)
    overlay.refresh(found.merged)
    converge.converge(found, 2, touched(base, paths))


if __name__ == "__main__":
    main()
