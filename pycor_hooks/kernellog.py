# SPDX-License-Identifier: GPL-3.0-or-later
"""Listen to the kernel's log during one system call.

With index=off the kernel lets two overlays share an upper, where they corrupt it: mount(2)
returns 0, and only the log says "upperdir is in-use". So we ask the log.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_IN_USE = b"overlayfs: upperdir is in-use"
_RECORD_SIZE = 8192
_RECORDS = 1000


class KernelLog:
    """What the kernel logs while this context is open; nothing where /dev/kmsg may not be read."""

    def __enter__(self) -> Self:
        self._descriptor = -1
        try:
            self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except (FileNotFoundError, PermissionError):
            pass  # in a user namespace: the lock alone has to do
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def may_tell_of_a_shared_upper(self) -> bool:
        """Whether an overlay may have been mounted on an upper that another one holds.

        The log does not say whose upper it is, nor does it keep everything: others write to it,
        and may write more than can be read (BrokenPipeError: records were overwritten).
        """
        if self._descriptor < 0:
            return False
        for _ in range(_RECORDS):
            try:
                if _IN_USE in os.read(self._descriptor, _RECORD_SIZE):
                    return True
            except BlockingIOError:
                return False
            except BrokenPipeError:
                return True
        return True
