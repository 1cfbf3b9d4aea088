# SPDX-License-Identifier: GPL-3.0-or-later
"""Listen to the kernel's log during one system call, and find who holds an upper.

With index=off the kernel lets two overlays share an upper, where they corrupt it: mount(2)
returns 0, and only the log says "upperdir is in-use". So we ask the log.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import os

from pycor_hooks import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_IN_USE = b"overlayfs: upperdir is in-use"
_RECORD_SIZE = 8192


class KernelLog:
    """What the kernel logs while this context is open; nothing where /dev/kmsg may not be read."""

    def __enter__(self) -> Self:
        self._descriptor = -1
        try:
            self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            pass  # in a user namespace: the lock alone has to do
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def upper_is_in_use(self) -> bool:
        """Whether an overlay was mounted on an upper that another one holds."""
        while self._descriptor >= 0:
            try:
                if _IN_USE in os.read(self._descriptor, _RECORD_SIZE):
                    return True
            except BlockingIOError:
                return False
            except BrokenPipeError:
                continue  # records were overwritten before we read them (kmsg)
        return False


def holder_of(upperdir: str) -> str:
    """Name a process whose mount namespace still has an overlay on ``upperdir``.

    Args:
        upperdir: as the mount table shows it, without the staged names of mapped layers.
    """
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            mounts = mountinfo.read(process)
        except OSError:
            continue
        if any(upperdir in mount.layers("upperdir") for mount in mounts):
            return f"process {process} in a mount namespace of its own"
    return "a process in a mount namespace of its own"
