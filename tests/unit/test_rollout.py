# SPDX-License-Identifier: GPL-3.0-or-later
"""Some containers at a time, and no further when one is in trouble."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import rollout
from pycor_hooks.renewal import Outcome
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    from pycor_hooks.record import Record

NAMES = ("web1", "web2", "web3", "web4", "web5")


def roll_out(serial: int, bad: str = "", *, changed: bool = True) -> list[str]:
    """The names of those that were done, with ``bad`` in trouble, which it brought or not."""
    limit = threading.Semaphore(serial)

    def one(found: Record) -> Outcome:
        assert limit.acquire(blocking=False), "more than that at a time"
        try:
            trouble = "it broke" if found.name == bad else ""
            return Outcome(found, [], trouble, changed=changed)
        finally:
            limit.release()

    records = [recorded(name=name) for name in NAMES]
    return sorted(outcome.record.name for outcome in rollout.roll_out(records, serial, one))


@pytest.mark.parametrize("serial", [1, 3, 9])
def test_all_are_done(serial: int) -> None:
    """Each is done once, and never more than so many at a time."""
    assert roll_out(serial) == list(NAMES)


def test_trouble() -> None:
    """Nobody comes after one in trouble."""
    assert roll_out(1, "web2") == ["web1", "web2"]


def test_trouble_before_anything_was_changed() -> None:
    """A container that does not answer, or has ended, says nothing about the next ones."""
    assert roll_out(1, "web2", changed=False) == list(NAMES)


def test_those_under_way_are_finished() -> None:
    """Who was begun beside one in trouble is told of; the rest is not begun."""
    begun = threading.Barrier(2, timeout=10)
    ended = threading.Event()

    def one(found: Record) -> Outcome:
        begun.wait()
        if found.name == "web1":
            return Outcome(found, [], "it broke", changed=True)
        assert ended.wait(10)
        return Outcome(found, [], "")

    done = []
    for outcome in rollout.roll_out([recorded(name=name) for name in NAMES], 2, one):
        done.append(outcome.record.name)
        ended.set()
    assert done == ["web1", "web2"]
