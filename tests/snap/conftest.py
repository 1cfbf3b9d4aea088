# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemons in mount namespaces of their own: see tests/daemons.py, lab/snap.py, lab/private.py.

The cases of tests/daemon run on the snap, too, with ``--all-pairs``; here is what only such
daemons have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.daemons import (  # noqa: F401 - fixtures are found by their names here
    Pair,
    daemon,
    installed,
    overlays,
    reinstalled,
    watcher,
    world,
)

if TYPE_CHECKING:
    from lab.snap import SnapDaemon

SNAP = [Pair("lxd", "dir", place="snap")]
PRIVATE = [Pair("incus", "dir", place="private"), Pair("lxd", "dir", place="private")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case in the snap; those marked ``private`` in the other namespaces."""
    if "daemon" in metafunc.fixturenames:
        pairs = SNAP
        if metafunc.definition.get_closest_marker("private"):
            pairs = PRIVATE if metafunc.config.getoption("--all-pairs") else PRIVATE[:1]
        metafunc.parametrize("daemon", pairs, ids=str, scope="package", indirect=True)


@pytest.fixture
def snap(daemon: SnapDaemon) -> SnapDaemon:  # noqa: F811
    """The daemon of this case, as the snap that it is."""
    return daemon
