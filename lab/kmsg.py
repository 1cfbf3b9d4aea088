# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel log from a point in time on; see Documentation/ABI/testing/dev-kmsg."""

from __future__ import annotations

import os

_RECORD = 8192  # as much as one read(2) can return


class KernelLog:
    """A mark in the kernel log: :meth:`lines` are what came after it."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def close(self) -> None:
        """Forget the mark."""
        os.close(self._descriptor)

    def lines(self) -> list[str]:
        """The messages since the mark, or since the last call."""
        found: list[str] = []
        while True:
            try:
                record = os.read(self._descriptor, _RECORD)
            except BlockingIOError:
                return found
            except BrokenPipeError:  # overwritten before we read them
                found.append("(some lines of the kernel log were lost)")
                continue
            found.append(record.decode(errors="replace").partition(";")[2].partition("\n")[0])
