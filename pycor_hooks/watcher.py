# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher: one process that follows all daemons of the host and keeps the overlays fresh.

Events are hints. On every connect, every ten minutes and on SIGHUP everything is looked at,
and every two seconds what no event announces: a killed monitor, a base that stopped unheard.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pycor_hooks import notify, pulse
from pycor_hooks.events import MalformedEvent, parse
from pycor_hooks.follow import Follower
from pycor_hooks.live import Records
from pycor_hooks.logs import about
from pycor_hooks.reconciler import Reconciler
from pycor_hooks.sockets import find_daemons, named_directories

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pycor_hooks.sockets import Daemon

log = logging.getLogger(__name__)

TICK = 2.0
RECONCILE = 600.0
THREADS = 64
"""At most, begun as they are needed: a hostile container may keep one waiting for ever."""
COMPLAIN = 60.0
"""Seconds from one line about a daemon's malformed events to the next."""


def watch(directories: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> int:
    """Watch until SIGTERM or SIGINT.

    Args:
        directories: state directories of the daemons, as given with `--daemon`; when empty,
            those of `environ` (LXD_DIR, INCUS_DIR), else all that the host has.
        environ: where systemd says how to reach it, too.

    Returns:
        The exit code, 0.
    """
    faulthandler.enable()  # systemd aborts one that hangs; then the log says where it did
    asyncio.run(Watcher(directories, environ).run())
    return 0


def once(directories: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> int:
    """Look at everything once, with the arguments of :func:`watch`.

    Returns:
        The exit code: 1 when an overlay could not be refreshed or taken down, or the manifest
        of a base not be kept.
    """

    async def reconcile() -> int:
        async with asyncio.TaskGroup() as group:
            records = Records(named_directories(directories, environ))
            reconciler = Reconciler(group, records)
            return await reconciler.reconcile() + await reconciler.settled()

    return 1 if asyncio.run(reconcile()) else 0


class Watcher:
    """The process: whom it follows, what it does when, and what systemd hears of it."""

    def __init__(self, directories: Sequence[str], environ: Mapping[str, str]) -> None:
        self._directories = directories
        self._environ = environ
        self._followed: set[str] = set()
        self._followers: list[Follower] = []
        self._status = ""
        self._malformed = MalformedEvents()
        self._cannot_show = ""

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; SIGHUP looks at everything at once."""
        main = asyncio.create_task(self._main())

        def stop() -> None:
            self._notify("STOPPING=1")
            main.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await main
        except Exception:
            log.exception("ends by an error that nobody foresaw: please report it")
            raise
        finally:
            pulse.hide()

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as group:
            await self._start(group)

    async def _start(self, group: asyncio.TaskGroup) -> None:
        records = Records(named_directories(self._directories, self._environ))
        reconciler = Reconciler(group, records)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS))
        loop.add_signal_handler(signal.SIGHUP, lambda: group.create_task(reconciler.reconcile()))
        await reconciler.reconcile()
        pulse.hide()
        self._follow_new(group, reconciler)
        self._show()
        self._notify("READY=1")
        group.create_task(self._tick(group, reconciler))
        group.create_task(self._reconcile(reconciler))
        group.create_task(self._watchdog())

    def _follow_new(self, group: asyncio.TaskGroup, reconciler: Reconciler) -> None:
        """Follow the daemons that were not there before."""

        def connected(daemon: Daemon) -> None:
            group.create_task(reconciler.reconcile(daemon.directory))

        def heard(daemon: Daemon, message: str | bytes) -> None:
            try:
                event = parse(message)
            except MalformedEvent as error:
                self._malformed.tell(daemon, error)
            else:
                if event is not None:
                    reconciler.heard(daemon, event)

        for daemon in find_daemons(self._directories, self._environ):
            if daemon.directory in self._followed:
                continue
            self._followed.add(daemon.directory)
            follower = Follower(daemon, connected=connected, heard=heard, changed=self._show)
            self._followers.append(follower)
            group.create_task(follower.run())

    async def _tick(self, group: asyncio.TaskGroup, reconciler: Reconciler) -> None:
        while True:
            self._follow_new(group, reconciler)
            live = await reconciler.tick()
            status = f"STATUS={live} overlays live, {len(self._followed)} daemons"
            if status != self._status:
                self._status = status
                self._notify(status)
            self._show()
            await asyncio.sleep(TICK)

    async def _reconcile(self, reconciler: Reconciler) -> None:
        while True:
            await asyncio.sleep(RECONCILE)
            await reconciler.reconcile()

    async def _watchdog(self) -> None:
        interval = notify.watchdog_interval(self._environ)
        while interval is not None:
            self._notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _show(self) -> None:
        """Let `doctor` see how it goes; the work goes on where that cannot be written."""
        try:
            pulse.show([follower.show() for follower in self._followers], time.time())
        except OSError as error:
            text = f"cannot show its state to doctor: {error}"
            if text != self._cannot_show:
                log.warning(text)
            self._cannot_show = text

    def _notify(self, state: str) -> None:
        notify.notify(state, self._environ)


class MalformedEvents:
    """Says that daemons send what is no event: the first one at once, then one line a minute.

    A line for each would make the journal drop ours, too (journald.conf(5), RateLimitBurst).
    """

    def __init__(self) -> None:
        self._next: dict[Daemon, float] = {}
        self._untold: dict[Daemon, int] = {}

    def tell(self, daemon: Daemon, error: MalformedEvent) -> None:
        """Log it, or count it."""
        now = time.monotonic()
        if now < self._next.get(daemon, 0):
            self._untold[daemon] = self._untold.get(daemon, 0) + 1
            return
        self._next[daemon] = now + COMPLAIN
        untold = self._untold.pop(daemon, 0)
        since = f" (and {untold} more before it)" if untold else ""
        log.warning("%s: %s%s", daemon.directory, error, since, extra=about(daemon.directory))
