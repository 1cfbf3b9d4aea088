# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemons that freeze, or never finish a handshake: nobody else is held up, nothing is missed."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from lab.mounts import own_mounts
from lab.wait import until
from lab.watcher import Process
from pycor_hooks.follow import OPEN_TIMEOUT, PING_INTERVAL, PING_TIMEOUT
from pycor_hooks.plan import Base
from pycor_hooks.watcher import TICK
from tests.faults.watched import (
    CAUGHT_UP_S,
    Overlays,
    assert_as_before,
    place,
    wait_converged,
    wait_following,
)
from tests.kernel.test_watcher import running
from tests.unit.fake_daemon import BadDaemon, FakeDaemon, babbling, frozen, mute

if TYPE_CHECKING:
    from lab.tally import Tally

pytestmark = pytest.mark.host_root

HALF_OPEN = "a half-open socket"
BAD = {
    HALF_OPEN: frozen,
    "a daemon that accepts and says nothing": mute,
    "a daemon whose handshake does not end": babbling,
}
NOTICED_S = max(OPEN_TIMEOUT, PING_INTERVAL + PING_TIMEOUT) + CAUGHT_UP_S
"""From a connection to a bad daemon until the next one."""


def test_bad_daemons(tally: Tally) -> None:
    """What one does not announce is seen; it is followed when it is well; a sound one is heard."""
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(own_mounts())
        sound, *others = (cleanup.enter_context(place()) for _ in range(1 + len(BAD)))
        where = dict(zip(BAD, others, strict=True))
        overlays = {path: Overlays(path, f"web{n}") for n, path in enumerate([sound, *others])}
        for each in overlays.values():
            cleanup.callback(each.end)
        fake = cleanup.enter_context(FakeDaemon(sound))
        bad = {fault: BadDaemon(where[fault], behave) for fault, behave in BAD.items()}
        with contextlib.ExitStack() as lifetimes:
            for daemon in bad.values():
                lifetimes.enter_context(daemon)
            words = [word for path in overlays for word in ("--daemon", path)]
            watching = cleanup.enter_context(Process({}, f"{sound}/watcher.log", words=words))
            wait_following(fake)
            until(lambda: all(daemon.connections for daemon in bad.values()), what="all are tried")
            wait_converged(*overlays)
            before = watching.usage
            _say_nothing(tally, where, overlays)
            change = overlays[sound].change_base()
            fake.announce("instance-stopped")
            assert change.missed(timeout_s=1.0) == []
            for fault, daemon in bad.items():
                with tally.injected(fault):
                    until(
                        lambda: daemon.connections > 1,  # noqa: B023
                        what=f"{fault} is noticed",
                        timeout_s=NOTICED_S,
                    )
        for path in others:
            well = cleanup.enter_context(FakeDaemon(path))
            wait_following(well)
            change = overlays[path].change_base()
            well.announce("instance-stopped")
            assert change.missed(timeout_s=1.0) == []
        assert fake.followers == 1
        assert_as_before(watching, before)


def _say_nothing(tally: Tally, where: dict[str, str], overlays: dict[str, Overlays]) -> None:
    """Change the bases of bad daemons while they run; nobody says that they stop."""
    changes = {}
    with contextlib.ExitStack() as bases:
        for fault, path in where.items():
            bases.enter_context(running(Base(path, "default", "base")))
            changes[fault] = overlays[path].change_base()
        time.sleep(1.5 * TICK)  # it looks every TICK seconds, and says nothing of it
    for fault, change in changes.items():
        tally.lost(fault, change.missed())
