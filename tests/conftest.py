# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and markers of the whole suite."""

from __future__ import annotations

import os
from random import SystemRandom

import pytest
from hypothesis import settings

from lab import pidns

# A machine that does other things as well is no reason to fail a property.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what ``make test-all`` and ``make soak`` give."""
    parser.addoption(
        "--all-pairs",
        action="store_true",
        help="run tests/daemon on every daemon, storage driver and id regime, not on two of them",
    )
    parser.addoption(
        "--soak",
        action="store_true",
        help="run tests/faults in their long form, which takes more than half an hour",
    )
    parser.addoption(
        "--seed",
        type=int,
        default=SystemRandom().randrange(10**6),
        help="do what tests/faults does at random as the run did that printed this number",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to repeat what is done at random, should the run not come to its end."""
    return f"random: --seed={config.getoption('--seed')}"


def pytest_configure() -> None:
    """Go on in a pid namespace of our own: its process 1 is the host to hooks under test."""
    if _is_host_root():
        pidns.enter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what takes minutes to ``make test-all``."""
    if not config.getoption("--all-pairs"):
        left_out = [item for item in items if item.get_closest_marker("acceptance")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what a user namespace cannot do, where ``make test`` has nothing better."""
    if item.get_closest_marker("host_root") and not _is_host_root():
        pytest.skip("needs the host's root: ids, or mounts, that a user namespace has not")


def _is_host_root() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        every_id = lines.read().split() == ["0", "0", "4294967295"]
    return os.geteuid() == 0 and every_id
