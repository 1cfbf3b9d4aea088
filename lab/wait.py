# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a condition; what runs in an event loop has its own way to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

POLL_S = 0.02


def until(condition: Callable[[], T], *, what: str, timeout_s: float = 30) -> T:
    """Call ``condition`` until its result is true, and return that result.

    Args:
        condition: asked every 20 ms; an exception from it is not caught.
        what: names the condition in the error: "web1 is running".
        timeout_s: when to give up.

    Raises:
        TimeoutError: the last result was still false.
    """
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what} (last answer: {result!r})")
        time.sleep(POLL_S)
    return result
