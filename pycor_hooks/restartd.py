# SPDX-License-Identifier: GPL-3.0-or-later
"""How a container wants a unit restarted, where `systemctl restart` would not do.

An executable ``/etc/needrestart/restart.d/UNIT`` is run in its stead, as needrestart(1) does: so
a service that can take its sockets over to its new code, such as nginx, refuses nobody meanwhile.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from pycor_hooks.beneath import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycor_hooks.record import Record

PLACE = "etc/needrestart/restart.d"


def find(record: Record, units: Iterable[str]) -> dict[str, str]:
    """The scripts of a container, by unit; paths are from its root.

    Args:
        record: of its overlay.
        units: that are to be restarted.

    Raises:
        OSError: its overlay cannot be looked at.
    """
    with Tree(record.merged) as tree:
        found = {unit: tree.lstat(f"{PLACE}/{unit}") for unit in units}
    return {
        unit: f"/{PLACE}/{unit}"
        for unit, file in found.items()
        if file and stat.S_ISREG(file.st_mode) and file.st_mode & 0o111
    }
