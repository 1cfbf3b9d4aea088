# SPDX-License-Identifier: GPL-3.0-or-later
"""A mount namespace for tests that need no daemon: real mounts that the host never sees."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from lab import pidns
from pycor_hooks import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """Move the process, which has one thread, into a new mount namespace with an empty /run.

    Raises:
        PermissionError: it may not make one (unshare(2)).
    """
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(kernel.CLONE_NEWNS)
    try:
        pidns.follow()
        kernel.mount("", "/", "", pidns.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
        yield
    finally:
        here = os.getcwd()  # setns(2) to a mount namespace moves to its root
        kernel.setns(host, kernel.CLONE_NEWNS)
        os.chdir(here)
        pidns.follow()
        os.close(host)
