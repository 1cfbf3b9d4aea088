# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done for a stopped base once its overlays are refreshed.

Its manifest is kept up, and then each container on it converges. It takes long, as a refresh does
not, so no refresh ever waits for it: that of another base, or the next one of the same base.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from pycor_hooks import generations
from pycor_hooks.afterupdate import Choices, Policy, Restarts
from pycor_hooks.converge import converge
from pycor_hooks.convergence import History, describe
from pycor_hooks.errors import PycorError, StillHeld
from pycor_hooks.logs import about, about_overlay
from pycor_hooks.patience import Patience
from pycor_hooks.plan import Base, apart, name_of
from pycor_hooks.refreshing import CORES
from pycor_hooks.staleness import Reason
from pycor_hooks.whereabouts import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pycor_hooks.converge import Result, Touched
    from pycor_hooks.ledger import Update
    from pycor_hooks.news import OverlayNews
    from pycor_hooks.record import Record

log = logging.getLogger(__name__)


RETRY, RETRY_MOST = 30.0, 600.0
"""Seconds until containers are tried again that could not be frozen, at first and at last."""
_WORTH_A_RETRY = {Reason.NOT_FROZEN, Reason.TOO_SLOW}


class Upkeep:
    """The work under way: for each base one thing at a time, and once more if asked meanwhile.

    Args:
        group: where it runs.
        overlays: looks up the live overlays of a base.
        news: what was said about them.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        overlays: Callable[[Base], Awaitable[list[Record]]],
        news: OverlayNews,
    ) -> None:
        self._group = group
        self._overlays = overlays
        self._news = news
        self._wanted: set[Base] = set()
        self._working: dict[Base, asyncio.Task[int]] = {}
        # One tree at a time: walks are Python from end to end, and would slow each other down.
        self._walking = asyncio.Semaphore(1)
        self._curing = asyncio.Semaphore(CORES)
        self._delays: dict[Base, float] = {}
        self._alarms: dict[Base, asyncio.TimerHandle] = {}
        self._choices: dict[Base, Choices] = {}
        self._restarts = Restarts(group)
        self._patience: Patience[Result | None] = Patience()

    def want(self, base: Base) -> None:
        """Have a base seen to soon; it was stopped a moment ago."""
        self._wanted.add(base)
        if base not in self._working:
            self._working[base] = self._group.create_task(self._settle(base))

    async def done(self) -> int:
        """Wait for what is under way; how often something could not be done."""
        failures = sum([await task for task in list(self._working.values())])
        return failures + await self._restarts.done()

    async def _settle(self, base: Base) -> int:
        failures = 0
        while base in self._wanted:
            self._wanted.discard(base)
            try:
                failures += await self._see_to(base)
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

    async def _see_to(self, base: Base) -> int:
        where = apart(await self._overlays(base))
        try:
            async with self._walking:
                found = await asyncio.to_thread(_update, base, where)
        except FileNotFoundError:
            log.debug("%s: is gone", base)
            return await self._converge_all(base, None)
        if found is None:
            log.debug("%s: runs; its manifest is written when it stops", base)
            return 0
        if found.is_new:
            log.info(
                "%s: generation %d: %s",
                base,
                found.generation,
                _describe(found),
                extra=about(base.daemon, base),
            )
        return await self._converge_all(base, found.generation)

    async def _converge_all(self, base: Base, generation: int | None) -> int:
        """Converge each container on a base; one that fails holds up no other."""
        overlays = await self._overlays(base)
        again: list[Record] = []
        history = History(base)
        choices = self._choices.setdefault(base, Choices())
        choices.begin(overlays)

        async def one(found: Record) -> Result | None:
            result = await self._converge_as_chosen(found, generation, history, choices)
            if choices.is_unasked(found):
                again.append(found)
            return result

        done = await asyncio.gather(*(self._converge(found, one, again) for found in overlays))
        self._restarts.begin(base)
        self._see_to_it_again(base, soon=bool(again))
        return sum(done)

    async def _converge(
        self, found: Record, how: Callable[[Record], Awaitable[Result | None]], again: list[Record]
    ) -> int:
        """Converge one container, or put it among those to be tried again; 1 where that failed."""
        try:
            async with self._curing:
                result = await how(found)
        except StillHeld as error:
            log.debug("%s: not converged now: %s", name_of(found), error)
            again.append(found)
        except (OSError, PycorError) as error:
            self._tell(found, f"cannot be converged: {error}", level=logging.ERROR)
            return 1
        except Exception as error:  # whatever one container can bring about
            log.debug("%s", name_of(found), exc_info=True)
            text = f"cannot be converged: unforeseen {type(error).__name__}: {error}"
            self._tell(found, f"{text}: please report it", level=logging.ERROR)
            return 1
        else:
            if result is not None:
                self._report(found, result)
                again += [found] if _WORTH_A_RETRY & set(result.reasons.values()) else []
        return 0

    async def _converge_as_chosen(
        self, found: Record, generation: int | None, history: History, choices: Choices
    ) -> Result | None:
        """Converge one container, and do what it has chosen where the base has changed for it."""
        policy = Policy.CURE
        if generation is not None and (found.converged != generation or choices.is_unasked(found)):
            policy = await choices.of(found)
        cure = policy is not Policy.REPORT
        work = partial(_converge_there, found, generation, history.since, cure=cure)
        result = await asyncio.to_thread(self._patience.wait_for, found, work)
        whole = result and not _WORTH_A_RETRY & set(result.reasons.values())
        if whole and policy is Policy.RESTART and choices.is_first(found, generation or 0):
            await self._restarts.want(found, again=True)
        elif whole and found.restart:
            await self._restarts.want(found, again=False)
        return result

    def _see_to_it_again(self, base: Base, *, soon: bool) -> None:
        """See to a base again: soon, then less and less often; once at a time, or not at all."""
        if base in self._alarms:
            self._alarms.pop(base).cancel()
        if not soon:
            self._delays.pop(base, None)
            return
        delay = self._delays.get(base, RETRY)
        self._delays[base] = min(2 * delay, RETRY_MOST)
        alarm = asyncio.get_running_loop().call_later(delay, self.want, base)
        self._alarms[base] = alarm

    def _report(self, found: Record, result: Result) -> None:
        if result.cured or result.frozen:
            log.info(
                "%s: %d paths cured; frozen %d times, for at most %.0f ms",
                name_of(found),
                result.cured,
                len(result.frozen),
                1000 * max(result.frozen, default=0),
                extra=about_overlay(found),
            )
        if Reason.REPLACED not in result.reasons.values():  # the reconciler has said that
            self._tell(found, describe(result.reasons, name_of(found)))

    def _tell(self, found: Record, text: str, *, level: int = logging.WARNING) -> None:
        self._news.tell(found, "convergence", text, level=level)


def _update(base: Base, where: bool) -> Update | None:  # noqa: FBT001 - by asyncio.to_thread
    """Keep a base's manifest up; ``where``: whether its volume is its daemon's alone to see."""
    with shown(base.daemon, apart=where):
        return generations.update(base)


def _converge_there(
    found: Record, generation: int | None, touched: Touched, *, cure: bool
) -> Result | None:
    """As :func:`pycor_hooks.converge.converge`, wherever the volumes are."""
    with shown(found.daemon, apart=bool(found.namespace)):
        return converge(found, generation, touched, cure=cure)


def _describe(found: Update) -> str:
    if found.counts is None:
        return "the first manifest of this tree"
    return ", ".join(f"{count} {kind}" for kind, count in found.counts.items() if count)
