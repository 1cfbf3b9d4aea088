# SPDX-License-Identifier: GPL-3.0-or-later
"""install on a real daemon; upgrade and downgrade are in tests/faults/test_upgrade.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab import tree
from tests.daemon.holdings import held

if TYPE_CHECKING:
    from lab.overlays import Overlays

NOTHING = "everything is installed already; nothing changed\n"


def everything(overlays: Overlays) -> list[Any]:
    """All that install makes, to the byte, and all else that the daemon holds."""
    base = overlays.client.query(f"/1.0/instances/{overlays.base.name}")
    return [tree.describe(overlays.prefix), base, *held(overlays.client)]


def test_install_twice(overlays: Overlays) -> None:
    """Run again, install says that nothing changed, and hooks, profile and image are the same."""
    before = everything(overlays)
    words = ("install", "--no-systemd", "--prefix")
    assert overlays.pycor_hooks(*words, overlays.prefix).stdout == NOTHING
    again = overlays.pycor_hooks(*words, overlays.prefix + "/")
    assert (again.stdout, again.stderr) == (NOTHING, "")
    assert everything(overlays) == before
