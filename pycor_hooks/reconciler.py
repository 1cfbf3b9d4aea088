# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps every live overlay as its base is: looks at bases, and refreshes.

Runs in an event loop and holds it up nowhere: what blocks is done in a thread, slice by slice.
There is one refresh per base at a time; what is asked for meanwhile is done once, afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from pycor_hooks import leftovers, live, refreshing
from pycor_hooks.inbox import Inbox
from pycor_hooks.logs import about, about_overlay
from pycor_hooks.naming import LostNames
from pycor_hooks.news import News, OverlayNews
from pycor_hooks.plan import UNKNOWN, Look, apart, by_base, decide, name_of, react, react_to_flood
from pycor_hooks.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pycor_hooks.events import LifecycleEvent
    from pycor_hooks.plan import Base, Decision
    from pycor_hooks.record import Record
    from pycor_hooks.recovery import Finding
    from pycor_hooks.sockets import Daemon

log = logging.getLogger(__name__)

RECHECK = 0.025
"""Seconds between two looks at a base that was said to have stopped and still runs."""
PACE = 0.1
"""Seconds from one look at a base to the next: what is said meanwhile is one look."""
SLICE = 32 * refreshing.CORES
"""Overlays refreshed before it is heeded that the watcher stops; 1 s with 10,000 dentries each."""


class Reconciler:
    """The state between two looks, and the looks under way.

    Args:
        group: where the work runs; an error that nobody foresaw ends it.
        records: the live overlays to care for.
    """

    def __init__(self, group: asyncio.TaskGroup, records: live.Records) -> None:
        self._group = group
        self._records = records
        self._scanning = asyncio.Lock()
        self._inbox = Inbox()
        self._reading: asyncio.Task[None] | None = None
        self._wanted: dict[Base, Look] = {}
        self._working: dict[Base, asyncio.Task[int]] = {}
        self._pending: set[Base] = set()
        self._seen: set[Base] = set()
        self._news = OverlayNews()
        self._base_news = News()
        self._upkeep = Upkeep(group, self._overlays_of, self._news)
        self._lost_names = LostNames(group)
        self._found: set[Finding] = set()

    def heard(self, daemon: Daemon, event: LifecycleEvent) -> None:
        """Take note of an event; it is acted on soon."""
        self._inbox.put(daemon, event)
        if self._reading is None:
            self._reading = self._group.create_task(self._read_inbox())

    async def reconcile(self, daemon: str | None = None) -> int:
        """Look at every base, and take down what nobody uses.

        Args:
            daemon: only what belongs to this state directory; None for everything.

        Returns:
            How many overlays could not be refreshed or taken down.
        """
        failures = await self._recover()
        records = [
            r for r in await self._look_up(self._records.scan) if daemon in {None, r.daemon}
        ]
        failures += await leftovers.clear(records, self._news)
        looks = [self._look(Look(base)) for base in by_base(records)]
        return failures + sum([await look for look in looks])

    async def settled(self) -> int:
        """Wait for what looks at bases have left to do; how often that failed."""
        return await self._upkeep.done()

    async def tick(self) -> int:
        """Do what cannot wait for the next reconcile and that no event announces.

        Take down what nobody uses, and see which bases are new, which run, and which of them
        have stopped.

        Returns:
            How many overlays are live.
        """
        records = await self._look_up(self._records.scan)
        if self._records.incomplete and not await self._recover():
            records = await self._look_up(self._records.scan)
        self._news.keep(records)
        await leftovers.clear(records, self._news)
        bases = by_base(records)
        self._base_news.keep(bases)
        self._pending &= bases.keys()
        running = await asyncio.to_thread(live.running, bases)
        for base in self._pending - running:
            self._look(Look(base, why="stopped"))
        self._seen &= bases.keys()
        for base in bases.keys() - self._seen:
            self._look(Look(base))
        self._pending |= running
        return len(records)

    async def _recover(self) -> int:
        """Find overlays again whose record is lost; how many could not be."""
        async with self._scanning:
            findings = await asyncio.to_thread(self._records.recover)
        for finding in set(findings) - self._found:
            log.warning("%s: %s", finding.name, finding.text)
        self._found = set(findings)
        return sum(finding.failed for finding in findings)

    async def _look_up(self, how: Callable[[], list[Record]]) -> list[Record]:
        async with self._scanning:
            return await asyncio.to_thread(how)

    async def _read_inbox(self) -> None:
        while self._inbox:
            events, overflowed = self._inbox.take()
            bases = by_base(await self._look_up(self._records.glance))
            for daemon, event in events:
                for look in react(event, daemon.directory, bases):
                    self._look(look)
                    if look.name_is_gone:
                        self._lost_names.heard(daemon, look)
            for look in react_to_flood(overflowed, bases):
                self._look(look)
        self._reading = None

    def _look(self, look: Look) -> asyncio.Task[int]:
        """Have a base looked at soon; the task ends when there is nothing more to do for it."""
        base = look.base
        self._seen.add(base)
        before = self._wanted.get(base, look)
        self._wanted[base] = max(before, look, key=lambda wanted: (wanted.patience, wanted.why))
        if base not in self._working:
            self._working[base] = self._group.create_task(self._settle(base))
        return self._working[base]

    async def _settle(self, base: Base) -> int:
        failures = 0
        while base in self._wanted:
            trouble = ""
            try:
                failures += await self._act(self._wanted.pop(base))
            except OSError as error:
                failures += 1
                trouble = f"cannot be looked at: {error}"
            if self._base_news.is_new(base, trouble):
                log.error("%s: %s", base, trouble, extra=about(base.daemon, base))
            if base in self._wanted:
                await asyncio.sleep(PACE)
        del self._working[base]
        return failures

    async def _act(self, look: Look) -> int:
        where = apart(await self._overlays_of(look.base))
        state = await asyncio.to_thread(live.base_state, look.base, apart=where)
        deadline = time.monotonic() + look.patience
        while state.running and time.monotonic() < deadline:
            await asyncio.sleep(RECHECK)
            state = await asyncio.to_thread(live.base_state, look.base, apart=where)
        if state.identity == UNKNOWN:
            log.info(
                "%s: its daemon is down, and only it sees its volumes; looked at when it is back",
                look.base,
                extra=about(look.base.daemon, look.base),
            )
        overlays = await self._overlays_of(look.base)
        self._lost_names.seen(look.base, exists=state.identity is not None)
        decision = decide(overlays, running=state.running, identity=state.identity)
        self._tell_detached(overlays, decision, state.identity)
        failures = await self._refresh(look, decision)
        if overlays and not decision.pending:
            self._upkeep.want(look.base)
        return failures

    async def _overlays_of(self, base: Base) -> list[Record]:
        return by_base(await self._look_up(self._records.glance)).get(base, [])

    async def _refresh(self, look: Look, decision: Decision) -> int:
        """Refresh in slices; a base that starts meanwhile leaves the rest pending."""
        base = look.base
        began = time.monotonic()
        failures = 0
        pending = decision.pending
        for start in range(0, len(decision.refresh), SLICE):
            overlays = decision.refresh[start : start + SLICE]
            failed = await asyncio.to_thread(refreshing.refresh_while_stopped, base, overlays)
            if failed is None:
                pending = True
                break
            failures += len(failed)
            for failure in failed:
                log.error(
                    "%s: cannot be refreshed: %s",
                    name_of(failure.record),
                    failure.error,
                    extra=about_overlay(failure.record),
                )
        if pending:
            self._pending.add(base)
            log.debug("%s: runs; its overlays are refreshed when it stops", base)
            return failures
        self._pending.discard(base)
        if decision.refresh:
            log.log(
                logging.INFO if look.why else logging.DEBUG,
                "%s: %s; %d overlays refreshed in %.0f ms",
                base,
                look.why or "looked at",
                len(decision.refresh) - failures,
                1000 * (time.monotonic() - began),
                extra=about(base.daemon, base, decision.refresh),
            )
        return failures

    def _tell_detached(
        self, overlays: Sequence[Record], decision: Decision, identity: str | None
    ) -> None:
        detached = set(decision.detached)
        for overlay in overlays:
            if overlay not in detached:
                text = ""
            elif identity is None:
                text = f"base {overlay.base_name} is gone; it keeps the old tree until it stops"
            else:
                text = f"base {overlay.base_name} was replaced or re-owned: restart it to see that"
            self._news.tell(overlay, "base", text)
