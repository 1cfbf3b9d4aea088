# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container's upper hides of its base, as Documentation/filesystems/overlayfs.rst has it.

An upper hides a path that it has, or that lies below a whiteout, a file, a symlink or an opaque
directory. A directory that both have is merged, and hides nothing but its own attributes.
"""

from __future__ import annotations

import stat
from enum import Enum
from typing import TYPE_CHECKING

from pycor_hooks import attributes

if TYPE_CHECKING:
    from pycor_hooks.beneath import Tree


class Upper(Enum):
    """What upper has at a path, or says of it."""

    ABSENT = "absent"
    HIDES = "hides"
    MERGES = "merges"


class Hiding:
    """What one upper hides, looked at now; make another one to look again.

    Args:
        upper: the tree, which the container may be changing.
    """

    def __init__(self, upper: Tree) -> None:
        self._upper = upper
        self._directories: dict[str, Upper] = {}

    def of(self, path: str) -> Upper:
        """What it says of a path, relative to the container's root."""
        above, end = self._of_directory(""), path.find("/")
        while above is Upper.MERGES and end >= 0:
            above, end = self._of_directory(path[:end]), path.find("/", end + 1)
        return self._look(path) if above is Upper.MERGES else above

    def _of_directory(self, path: str) -> Upper:
        """The same for a directory, all above which are merged."""
        known = self._directories.get(path)
        if known is None:
            known = self._directories[path] = self._look(path)
        return known

    def _look(self, path: str) -> Upper:
        found = self._upper.lstat(path)
        if found is None:
            return Upper.ABSENT
        if not stat.S_ISDIR(found.st_mode):
            return Upper.HIDES
        try:
            return Upper.HIDES if self._upper.has(path, attributes.is_opaque) else Upper.MERGES
        except OSError:
            return Upper.HIDES  # it was swapped just now
