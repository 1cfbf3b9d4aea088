# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watcher clears away that was left behind: by killed monitors, and by killed cures."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pycor_hooks import live, takedown
from pycor_hooks.errors import PycorError, StillHeld
from pycor_hooks.logs import about_overlay
from pycor_hooks.plan import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycor_hooks.news import OverlayNews
    from pycor_hooks.record import Record

log = logging.getLogger(__name__)


async def clear(records: Iterable[Record], news: OverlayNews) -> int:
    """Take down overlays whose monitor is gone, and finish cures that nobody works at.

    Args:
        records: the live overlays to look at.
        news: what was said about them.

    Returns:
        How many could not be.
    """
    return await _take_down(records, news) + await _finish_cures(records, news)


async def _take_down(records: Iterable[Record], news: OverlayNews) -> int:
    failures = 0
    for record in await asyncio.to_thread(live.orphans, records):
        try:
            if await asyncio.to_thread(takedown.orphan, record, timeout=live.LOCK_TIMEOUT):
                log.info(
                    "%s: its monitor is gone; overlay taken down",
                    name_of(record),
                    extra=about_overlay(record),
                )
        except (OSError, PycorError) as error:
            failures += 1
            news.tell(record, "monitor", f"overlay cannot be taken down: {error}")
    return failures


async def _finish_cures(records: Iterable[Record], news: OverlayNews) -> int:
    """Let files and processes go on that a killed cure has left behind."""
    failures = 0
    try:
        interrupted = await asyncio.to_thread(live.interrupted, records)
    except OSError as error:
        log.error("interrupted cures cannot be looked for: %s", error)  # noqa: TRY400 - no bug
        return 1
    for record in interrupted:
        try:
            if await asyncio.to_thread(live.finish_cure, record):
                log.info(
                    "%s: a cure was interrupted, and is finished now",
                    name_of(record),
                    extra=about_overlay(record),
                )
        except StillHeld:
            continue  # it is under way
        except (OSError, PycorError) as error:
            failures += 1
            news.tell(record, "cure", f"a cure cannot be finished: {error}")
    return failures
