# SPDX-License-Identifier: GPL-3.0-or-later
"""The trees of one live overlay: what the container sees, what it wrote, what its base has."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pycor_hooks.beneath import Tree

if TYPE_CHECKING:
    from typing import Self

    from pycor_hooks.record import Record


class Trees:
    """Entered with ``with``.

    Args:
        record: of the overlay, which is mounted.

    Attributes:
        own: ``overlay`` in the container's volume.
        merged, upper, base: the trees.
        device: of the overlay, as mount tables write it.
        shift: what to add to an id of the base as stored, to get the same id as upper stores it.
    """

    merged: Tree
    upper: Tree
    base: Tree

    def __init__(self, record: Record) -> None:
        self._record = record
        self._open = contextlib.ExitStack()
        self.own = os.path.dirname(record.upperdir)
        self.device = ""
        self.shift = 0

    def __enter__(self) -> Self:
        lower = self._record.lowerdirs[0]
        with contextlib.ExitStack() as opening:
            self.merged = opening.enter_context(Tree(self._record.merged))
            self.upper = opening.enter_context(Tree(self._record.upperdir))
            self.base = opening.enter_context(Tree(lower))
            device = os.stat(self._record.merged).st_dev
            self.device = f"{os.major(device)}:{os.minor(device)}"
            self.shift = os.lstat(self.own).st_uid - os.lstat(lower).st_uid
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def forget(self) -> None:
        """Close what would keep a dentry of the overlay in use: before each refresh."""
        self.merged.forget()
