# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on a container that is waited for, but not for ever.

The kernel may never let it end: for a process of the container's, or a file system that serves it.
So it has a thread of its own, which keeps nobody from leaving.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Generic, TypeVar

from pycor_hooks.host_errors import NeverEnds
from pycor_hooks.plan import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycor_hooks.record import Record

LONGEST = 300.0
"""Seconds that one container may take, all its freezes included, until it is given up."""
T = TypeVar("T")


class Patience(Generic[T]):
    """Knows with whom it was lost: nothing more is begun there until that has ended."""

    def __init__(self) -> None:
        self._going: dict[str, Future[T]] = {}

    def wait_for(self, found: Record, work: Callable[[], T]) -> T:
        """Do something with a container, one thing at a time; the calling thread waits for it.

        Raises:
            NeverEnds: it took too long, now or when it was last tried, and goes on.
            Exception: what ``work`` raises.
        """
        before = self._going.get(found.directory)
        if before is None or before.done():
            going: Future[T] = Future()
            self._going[found.directory] = going
            threading.Thread(target=_do, args=(work, going), daemon=True).start()
            wait([going], timeout=LONGEST)
            if going.done():
                del self._going[found.directory]
                return going.result()
        raise NeverEnds(seconds=f"{LONGEST:g}", name=name_of(found))


def _do(work: Callable[[], T], into: Future[T]) -> None:
    try:
        into.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised by whoever waits
        into.set_exception(error)
