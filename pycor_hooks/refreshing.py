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
from pycor_hooks.errors import PycorError
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
    An overlay that its container's stop took down meanwhile is no failure.

    Returns:
        Those which could not be refreshed.
    """
    failures = []
    for found in records:
        directory = _parent(found.daemon) + found.key
        try:
            overlay.refresh(f"{directory}/merged")
            os.utime(f"{directory}/state")
        except OSError as error:
            try:
                if not _replaced(found):
                    failures.append(Failure(found, _explained(found, error)))
            except (OSError, PycorError):
                failures.append(Failure(found, error))
    return failures


def _explained(found: Record, error: OSError) -> Exception:
    """What the kernel's answer means here (mount(2): EINVAL where nothing is mounted)."""
    if error.errno == errno.EINVAL and not kernel.is_mount_root(found.merged):
        return NotMounted(path=found.merged, name=plan.name_of(found))
    return error


@lru_cache
def _parent(daemon: str) -> str:
    """The directory of a daemon's overlays, with its slash: escaping it each time is dear."""
    return record.directory_of(daemon, "")


def _replaced(old: Record) -> bool:
    """Tell whether this start's overlay was taken down, once whoever is at it is done.

    Raises:
        StillHeld: somebody holds the lock of this overlay.
    """
    if not kernel.exists(old.state_path):
        return True
    with registry.Lock(old.directory, timeout=LOCK_TIMEOUT):
        return takedown.again(old) is None
