# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log says of a daemon that sends what is no event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycor_hooks import watcher
from pycor_hooks.events import MalformedEvent
from pycor_hooks.sockets import Daemon
from pycor_hooks.watcher import MalformedEvents

if TYPE_CHECKING:
    import pytest

LXD, INCUS = Daemon("lxd", "/lxd"), Daemon("incus", "/incus")


def test_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of each daemon is logged at once; a minute later the next, with a count."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    malformed = MalformedEvents()
    error = MalformedEvent(reason="ValueError", text="x")
    for daemon in (LXD, LXD, INCUS, LXD):
        malformed.tell(daemon, error)
    now += watcher.COMPLAIN
    malformed.tell(LXD, error)
    assert [entry.getMessage() for entry in caplog.records] == [
        f"/lxd: {error}",
        f"/incus: {error}",
        f"/lxd: {error} (and 2 more before it)",
    ]
