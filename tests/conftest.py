# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the whole suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what ``make test-all`` gives."""
    parser.addoption(
        "--all-pairs",
        action="store_true",
        help="run tests/daemon on every daemon, storage driver and id regime, not on two of them",
    )
