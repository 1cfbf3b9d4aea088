# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that a run of tests/faults closes with."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEADINGS = ("fault", "injected", "survived", "lost or leaked")


class Tally:
    """Counts, for each fault, how often it was injected and what came of it; in any thread."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = {}
        self._latest = ""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def injected(self, fault: str, times: int = 1) -> Iterator[None]:
        """Count a fault that is injected in this block; one that raises did not survive.

        Args:
            fault: what the table calls it, such as "EIO at a system call of pre-start".
            times: how often it is injected in the block.
        """
        self._latest = fault
        self._count(fault, 0, times)
        yield
        self._count(fault, 1, times)

    def lost(self, fault: str, what: Sequence[str]) -> None:
        """Count what is gone or was left behind after a fault, and fail where there is any.

        Raises:
            AssertionError: there is; it is named.
        """
        self._count(fault, 2, len(what))
        assert not what, f"{fault}: lost or leaked:\n" + "\n".join(what)

    def leaked_afterwards(self) -> None:
        """Count a leak that was found when a case had ended, for the last fault in it."""
        if self._latest:
            self._count(self._latest, 2, 1)

    def _count(self, fault: str, column: int, times: int) -> None:
        with self._lock:
            self._rows.setdefault(fault, [0, 0, 0])[column] += times

    def lines(self) -> list[str]:
        """The table, a line for each fault; nothing where none was injected."""
        if not self._rows:
            return []
        rows = [_HEADINGS, *((fault, *map(str, row)) for fault, row in self._rows.items())]
        width = max(len(fault) for fault, *_ in rows)
        heads = [len(heading) for heading in _HEADINGS[1:]]
        return [
            "  ".join([fault.ljust(width), *map(str.rjust, counts, heads)])
            for fault, *counts in rows
        ]
