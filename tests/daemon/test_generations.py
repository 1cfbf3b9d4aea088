# SPDX-License-Identifier: GPL-3.0-or-later
"""A base's generations on a real daemon: when they begin, and what `status` shows of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.wait import until
from tests.daemon.test_update import publish, start_release

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.watcher import Watcher


def _numbers(overlays: Overlays, container: Instance) -> tuple[int | None, int | None]:
    """The base's generation, and the one that the container has converged to."""
    row = live.status(overlays)[1][container.name]
    return row["generation"], row["converged"]


@pytest.mark.updates_base
def test_each_update_is_a_generation(overlays: Overlays, watcher: Watcher) -> None:
    """A stop of the base that changed something begins one, and a container starts with it."""
    web1 = overlays.launch("web1")
    until(lambda: _numbers(overlays, web1)[0], what="the watcher has seen the base")
    first, _ = _numbers(overlays, web1)
    assert first is not None
    publish(overlays.base, 1)
    until(lambda: _numbers(overlays, web1)[0] == first + 1, what="its release is a generation")
    web2 = overlays.launch("web2")
    assert _numbers(overlays, web2) == (first + 1, first + 1)
    assert f"base: generation {first + 1}: " in watcher.log()

    start_release(overlays.base, 2)
    assert _numbers(overlays, web2) == (first + 1, first + 1)
    overlays.base.stop()
    until(lambda: _numbers(overlays, web2)[0] == first + 2, what="so is the next one")


def test_a_start_and_stop_alone(overlays: Overlays) -> None:
    """`watch --once` records a base as well; where nothing changed, the number stays."""
    web1 = overlays.launch("web1")
    overlays.pycor_hooks("watch", "--once")
    before, _ = _numbers(overlays, web1)
    manifest = os.stat(f"{overlays.daemon.manifests}/base/manifest")
    overlays.pycor_hooks("watch", "--once")
    assert _numbers(overlays, web1)[0] == before
    assert os.path.samestat(os.stat(f"{overlays.daemon.manifests}/base/manifest"), manifest)
    table = overlays.pycor_hooks("status").stdout.splitlines()
    assert table[0].endswith("GENERATION")
