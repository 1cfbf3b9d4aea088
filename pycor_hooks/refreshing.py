# SPDX-License-Identifier: GPL-3.0-or-later
"""Refresh overlays: as bare as the system call, and on all cores where that takes long.

Blocks for as long as that does; the watcher calls it in a thread.
"""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pycor_hooks import instance, kernel, overlay, plan, record, registry, takedown
from pycor_hooks.errors import PycorError, StillHeld
from pycor_hooks.host_errors import NotMounted
from pycor_hooks.live import LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

CORES = os.cpu_count() or 1
LOOK_EVERY = 0.05
"""Seconds of refreshing until it is asked again whether the base has begun to run."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An overlay with which something went wrong."""

    record: Record
    error: Exception


class _BaseRunsError(Exception):
    """It has been started, perhaps between two overlays."""


def refresh_while_stopped(base: Base, records: Sequence[Record]) -> list[Failure] | None:
    """Refresh overlays of one base, or return None when the base runs, or begins to meanwhile.

    To drop the names that an overlay has cached takes the kernel milliseconds where they are
    many. So after a first moment, in which a thousand idle overlays are done, each core has a
    part in the rest.
    """
    what = instance.Instance(*base)
    todo = iter(records)
    failures: list[Failure] = []

    def for_a_moment() -> bool:
        """Refresh some, and tell whether there may be more."""
        if what.running():
            raise _BaseRunsError
        end = time.monotonic() + LOOK_EVERY
        for found in todo:
            failures.extend(refresh_records([found]))
            if time.monotonic() >= end:
                return True
        return False

    def to_the_end(_core: int) -> None:
        while for_a_moment():
            pass

    try:
        if for_a_moment():
            with ThreadPoolExecutor(CORES) as pool:
                list(pool.map(to_the_end, range(CORES)))
    except _BaseRunsError:
        return None
    return failures


def refresh_records(records: Iterable[Record]) -> list[Failure]:
    """Refresh overlays, and note the time in their state files.

    This is the loop that has to be lean: one mount(2) and one utimensat(2) for each.
    An overlay that its container's start is about to mount is waited for, and one that its stop
    took down meanwhile is no failure.

    Returns:
        Those which could not be refreshed.
    """
    failures = []
    for found in records:
        try:
            _refresh(_parent(found.daemon) + found.key)
        except OSError as error:
            try:
                _refresh_locked(found)
            except (OSError, PycorError) as again:
                failures.append(Failure(found, error if isinstance(again, StillHeld) else again))
    return failures


def _refresh(directory: str) -> None:
    overlay.refresh(f"{directory}/merged")
    os.utime(f"{directory}/state")


def _refresh_locked(found: Record) -> None:
    """Refresh it once whoever is at it is done, if it is this start's overlay still.

    Raises:
        StillHeld: somebody holds the lock of this overlay for long.
        NotMounted: it is there, and not mounted.
        OSError: it cannot be refreshed.
    """
    if not kernel.exists(found.state_path):
        return
    with registry.Lock(found.directory, timeout=LOCK_TIMEOUT):
        if takedown.again(found) is None:
            return
        try:
            _refresh(found.directory)
        except OSError as error:
            if error.errno == errno.EINVAL and not kernel.is_mount_root(found.merged):
                raise NotMounted(path=found.merged, name=plan.name_of(found)) from None
            raise


@lru_cache
def _parent(daemon: str) -> str:
    """The directory of a daemon's overlays, with its slash: escaping it each time is dear."""
    return record.directory_of(daemon, "")
