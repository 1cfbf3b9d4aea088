# SPDX-License-Identifier: GPL-3.0-or-later
"""The live overlays of this host, kept in memory, and the bases that they stand on.

Everything here may block, for as long as a few system calls per overlay do;
the watcher calls it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pycor_hooks import (
    converge,
    instance,
    plan,
    record,
    recovery,
    registry,
    takedown,
    whereabouts,
)
from pycor_hooks.errors import BadState
from pycor_hooks.host_errors import DaemonDown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record
    from pycor_hooks.recovery import Finding

LOCK_TIMEOUT = 0.5
_Mark: TypeAlias = tuple[int, int]  # inode, and time of the last change in ns
_TICK = 20_000_000
"""Nanoseconds in which two changes of a directory may have one time, and then some."""


class BaseState(NamedTuple):
    """What a base is now; `identity` is None when it has no rootfs, or plan.UNKNOWN."""

    running: bool
    identity: str | None


class Records:
    """The records below /run/pycor-hooks, each read again only when it was replaced.

    `daemons` are the state directories to look at, None for all. `incomplete`: a scan has seen a
    directory without a sound record, or the record of a living container vanish.
    """

    def __init__(self, daemons: list[str] | None = None) -> None:
        self._daemons = daemons
        self._known: dict[str, tuple[int, Record]] = {}
        self._parents: dict[str, _Mark] | None = None  # None: look again in any case
        self.incomplete = True

    def recover(self) -> list[Finding]:
        """Find overlays again whose record is lost, where the last scans have missed any."""
        self.incomplete = False
        return recovery.recover(self._daemons)

    def scan(self) -> list[Record]:
        """Return the records as they are now; one that is being made or removed is left out."""
        found = _parents()
        parents = found if all(map(_is_past, found.values())) else None
        known = {}
        for directory in registry.directories(self._daemons):
            try:
                inode = os.stat(f"{directory}/state").st_ino  # replaced by rename, on a tmpfs
                before = self._known.get(directory)
                if before is None or before[0] != inode:
                    before = inode, record.read(directory)
                known[directory] = before
            except NotADirectoryError:
                continue
            except (FileNotFoundError, BadState):
                self.incomplete = True
                parents = None  # what is there when it is sound tells nothing above it
        vanished = [old for path, (_, old) in self._known.items() if path not in known]
        self.incomplete |= not all(takedown.gone(old) for old in vanished)
        self._known, self._parents = known, parents
        return self._records()

    def glance(self) -> list[Record]:
        """Return the records of the overlays that there are now, for the price of a few stats.

        One that was replaced in its place, when a killed start is repaired, may be the old one
        until the next scan.
        """
        return self._records() if _parents() == self._parents else self.scan()

    def _records(self) -> list[Record]:
        return [found for _, found in self._known.values()]


def base_state(base: Base, *, apart: bool = False) -> BaseState:
    """Look at a base; its daemon is not asked.

    Args:
        base: which one.
        apart: whether its daemon's volumes are in a mount namespace of its own.

    Raises:
        OSError: its pool does not answer as it should.
    """
    what = instance.Instance(*base)
    running = what.running()
    try:
        with whereabouts.volume_of(what, apart=apart) as volume:
            return BaseState(running, instance.identity_now(f"{volume}/rootfs"))
    except (FileNotFoundError, NotADirectoryError):
        return BaseState(running, None)
    except DaemonDown:
        return BaseState(running, plan.UNKNOWN)


def running(bases: Iterable[Base]) -> set[Base]:
    """Return those of the bases that run, as far as that can be told."""
    found = set()
    for base in bases:
        with contextlib.suppress(OSError):
            if instance.Instance(*base).running():
                found.add(base)
    return found


def orphans(records: Iterable[Record]) -> list[Record]:
    """Return the overlays whose container is gone, monitor and init."""
    return [found for found in records if takedown.gone(found)]


def interrupted(records: Iterable[Record]) -> list[Record]:
    """Return the overlays that somebody cures, or was killed while he did.

    Those of a daemon that is down, and alone sees its volumes, are looked at when it is back.
    """
    groups: dict[tuple[str, bool], list[Record]] = {}
    for found in records:
        groups.setdefault((found.daemon, bool(found.namespace)), []).append(found)
    interrupted: list[Record] = []
    for (daemon, apart), some in groups.items():
        with contextlib.suppress(DaemonDown), whereabouts.shown(daemon, apart=apart):
            interrupted += filter(converge.interrupted, some)
    return interrupted


def finish_cure(found: Record) -> bool:
    """As :func:`pycor_hooks.converge.settle`, wherever its volume is."""
    with whereabouts.shown(found.daemon, apart=bool(found.namespace)):
        return converge.settle(found)


def _parents() -> dict[str, _Mark]:
    """What changes when an overlay's directory is made or removed."""
    marks = {}
    try:
        names = [name for name in os.listdir(record.RUN) if not name.startswith(".")]
        for path in (record.RUN, *(f"{record.RUN}/{name}" for name in names)):
            marks[path] = _mark(path)
    except FileNotFoundError:
        return {}
    return marks


def _mark(directory: str) -> _Mark:
    """What changes when something in a directory is made or removed."""
    status = os.stat(directory)
    return status.st_ino, status.st_mtime_ns


def _is_past(mark: _Mark) -> bool:
    """Whether any later change has another time."""
    return time.time_ns() - mark[1] > _TICK
