# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon whose state directory is reached by a link, as where it was moved to another disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab import overlays as setup
from lab.daemon import Daemon
from lab.overlays import Overlays
from lab.watcher import Watcher
from tests.daemon.test_update import SEEN_AFTER_S, of, seen, start_release

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def linked(daemon: Daemon) -> Iterator[Overlays]:
    """A base on such a daemon, which runs beside that of the other cases."""
    directory = f"{daemon.world.directory}/link"
    os.symlink("data", directory)
    with Daemon(daemon.world, daemon.kind, "dir", directory=directory) as moved:
        setup.import_busybox(moved.client, daemon.world.directory)
        setup.make_base(moved.client, "busybox", "base")
        overlays = Overlays(moved, "base")
        overlays.install()
        yield overlays
    assert not os.path.lexists(directory)
    assert not os.path.exists(moved.records)


@pytest.mark.host_s_mounts
def test_an_update(linked: Overlays) -> None:
    """The base is seen to run, its stop refreshes at once, and nothing of it all is left."""
    with Watcher(linked.daemon) as watcher:
        web1 = linked.launch("web1")
        assert seen(web1) == "1\n"
        start_release(linked.base, 1)
        _, rows = live.status(linked)
        assert rows["web1"]["daemon"] == linked.daemon.directory
        assert rows["web1"]["base_state"] == "running"
        refreshes = live.Refreshes([web1])
        linked.base.stop()
        refreshes.wait(timeout_s=SEEN_AFTER_S)
        assert seen(web1) == of(1)
        web1.delete()
        assert watcher.end() == 0
