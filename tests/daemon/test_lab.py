# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: what the other cases rest on."""

from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.overlays import Overlays


def test_x(overlays: Overlays) -> None:
    """X."""
    web1 = overlays.launch("web1")
    print(web1.exec("sh", "-c", "mount | head -1; hostname; cat /etc/machine-id"))
    print(overlays.pycor_hooks("status").stdout)
