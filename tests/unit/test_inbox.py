# SPDX-License-Identifier: GPL-3.0-or-later
"""The inbox of the watcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycor_hooks import inbox
from pycor_hooks.events import Change, LifecycleEvent
from pycor_hooks.inbox import Inbox
from pycor_hooks.sockets import Daemon

if TYPE_CHECKING:
    import pytest

LXD, INCUS = Daemon("lxd", "/var/lib/lxd"), Daemon("incus", "/var/lib/incus")


def stopped(name: str) -> LifecycleEvent:
    """An instance has stopped."""
    return LifecycleEvent(Change.STOPPED, "default", name)


def test_taken_once() -> None:
    """What was put in is taken out in the same order, once."""
    box = Inbox()
    assert not box
    for name in ("one", "two"):
        box.put(LXD, stopped(name))
    assert box
    assert box.take() == ([(LXD, stopped("one")), (LXD, stopped("two"))], set())
    assert box.take() == ([], set())


def test_said_twice() -> None:
    """The same event of the same daemon is there once."""
    box = Inbox()
    for daemon in (LXD, INCUS, LXD):
        box.put(daemon, stopped("base"))
    assert box.take().events == [(LXD, stopped("base")), (INCUS, stopped("base"))]


def test_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is full, only who said more is kept; what is in it already is no more."""
    monkeypatch.setattr(inbox, "LIMIT", 2)
    box = Inbox()
    for name in ("one", "two", "one"):
        box.put(LXD, stopped(name))
    assert box.take().overflowed == set()
    for name in ("one", "two", "three", "four"):
        box.put(LXD, stopped(name))
    assert box.take() == ([(LXD, stopped("one")), (LXD, stopped("two"))], {LXD.directory})
    assert box.take().overflowed == set()
