# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done for a stopped base once its overlays are refreshed: its manifest is kept up.

It takes long, as a refresh does not, so no refresh ever waits for it: that of another base, or
the next one of the same base.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pycor_hooks import generations
from pycor_hooks.errors import PycorError
from pycor_hooks.logs import about

if TYPE_CHECKING:
    from pycor_hooks.generations import Update
    from pycor_hooks.plan import Base

log = logging.getLogger(__name__)


class Upkeep:
    """The work under way: for each base one thing at a time, and once more if asked meanwhile.

    Args:
        group: where it runs.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._wanted: set[Base] = set()
        self._working: dict[Base, asyncio.Task[int]] = {}
        # One tree at a time: walks are Python from end to end, and would slow each other down.
        self._walking = asyncio.Semaphore(1)

    def want(self, base: Base) -> None:
        """Have a base seen to soon; it was stopped a moment ago."""
        self._wanted.add(base)
        if base not in self._working:
            self._working[base] = self._group.create_task(self._settle(base))

    async def done(self) -> int:
        """Wait for what is under way; how often something could not be done."""
        return sum([await task for task in list(self._working.values())])

    async def _settle(self, base: Base) -> int:
        failures = 0
        while base in self._wanted:
            self._wanted.discard(base)
            try:
                await self._record(base)
            except FileNotFoundError:
                log.debug("%s: is gone", base)
            except (OSError, PycorError) as error:
                failures += 1
                log.error(  # noqa: TRY400 - no bug
                    "%s: its manifest cannot be kept: %s",
                    base,
                    error,
                    extra=about(base.daemon, base),
                )
        del self._working[base]
        return failures

    async def _record(self, base: Base) -> None:
        async with self._walking:
            found = await asyncio.to_thread(generations.update, base)
        if found is None:
            log.debug("%s: runs; its manifest is written when it stops", base)
        elif found.is_new:
            log.info(
                "%s: generation %d: %s",
                base,
                found.generation,
                _describe(found),
                extra=about(base.daemon, base),
            )


def _describe(found: Update) -> str:
    if found.counts is None:
        return "the first manifest of this tree"
    return ", ".join(f"{count} {kind}" for kind, count in found.counts.items() if count)
