# SPDX-License-Identifier: GPL-3.0-or-later
"""Cases on real daemons: see tests/daemons.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.daemons import (  # noqa: F401 - fixtures are found by their names here
    daemon,
    debian_installed,
    debian_overlays,
    installed,
    on_each_daemon,
    overlays,
    reinstalled,
    watcher,
    world,
)

if TYPE_CHECKING:
    import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case once for each daemon."""
    on_each_daemon(metafunc)
