# SPDX-License-Identifier: GPL-3.0-or-later
"""A mount namespace for tests that need no daemon: real mounts that the host never sees."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from lab import pidns
from pycor_hooks import instance, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator


def enter_own() -> None:
    """Move this process, which has one thread, into a new mount namespace for good.

    What pycor-hooks keeps is private in it: /run and /var/lib are empty.

    Raises:
        PermissionError: it may not make one (unshare(2)).
    """
    kernel.unshare(kernel.CLONE_NEWNS)
    _make_private()


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """As :func:`enter_own`, and back in the end."""
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(kernel.CLONE_NEWNS)
    try:
        _make_private()
        yield
    finally:
        go_back(host)
        os.close(host)


def _make_private() -> None:
    pidns.follow()
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    for path in ("/run", os.path.dirname(instance.STATE)):
        kernel.mount("tmpfs", path, "tmpfs", 0, "mode=0755")


def go_back(*namespaces: int) -> None:
    """setns(2), each by its descriptor; the working directory stays what it was."""
    here = os.getcwd()  # setns(2) to a mount namespace moves to its root
    for descriptor in namespaces:
        kernel.setns(descriptor, 0)
    os.chdir(here)
    pidns.follow()
