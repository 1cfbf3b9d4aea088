# SPDX-License-Identifier: GPL-3.0-or-later
"""A mount namespace for tests that need no daemon: real mounts that the host never sees."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

from pycor_hooks import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNS = 0x20000
_MS_REC = 0x4000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """Move the process, which has one thread, into a new mount namespace with an empty /run.

    Raises:
        PermissionError: it may not make one (unshare(2)).
    """
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    try:
        kernel.mount("", "/", "", _MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
        yield
    finally:
        here = os.getcwd()  # setns(2) to a mount namespace moves to its root
        _checked(_libc.setns(host, _CLONE_NEWNS), "setns")
        os.chdir(here)
        os.close(host)


def _checked(result: int, call: str) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
