# SPDX-License-Identifier: GPL-3.0-or-later
"""Events that wait to be acted on, in bounded memory; no I/O.

An event is a hint to look at an instance, so a second one that says the same adds nothing, and of
those for which there is no room it is enough to know that they came: then everything is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pycor_hooks.events import LifecycleEvent
    from pycor_hooks.sockets import Daemon

LIMIT = 1024
"""Different events; in ordinary life a dozen are there when twenty containers start."""


class Letters(NamedTuple):
    """What was in the inbox: events, and the state directories of daemons that said more."""

    events: list[tuple[Daemon, LifecycleEvent]]
    overflowed: set[str]


class Inbox:
    """True when there is something in it."""

    def __init__(self) -> None:
        self._events: dict[tuple[Daemon, LifecycleEvent], None] = {}
        self._overflowed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._events)

    def put(self, daemon: Daemon, event: LifecycleEvent) -> None:
        """Add an event, or only the name of its daemon where there is no room."""
        letter = daemon, event
        if len(self._events) < LIMIT or letter in self._events:
            self._events[letter] = None
        else:
            self._overflowed.add(daemon.directory)

    def take(self) -> Letters:
        """Empty it; events in the order in which each was first heard."""
        letters = Letters(list(self._events), self._overflowed)
        self._events, self._overflowed = {}, set()
        return letters
