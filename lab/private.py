# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon whose unit has PrivateMounts= or the like: a new mount namespace at each start."""

from __future__ import annotations

from typing import Self

from lab.daemon import Daemon
from pycor_hooks import kernel


class PrivateDaemon(Daemon):
    """A private LXD or Incus in such a namespace, which gets the host's mounts, and gives none."""

    def __enter__(self) -> Self:
        kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SHARED)  # as systemd has it
        return super().__enter__()

    def _way_in(self) -> list[str]:
        return ["unshare", "--mount", "--propagation", "slave", "--", *super()._way_in()]
