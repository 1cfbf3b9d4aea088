# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container has chosen to happen after an update of its base: ``user.pycor.after-update``.

``cure`` where nothing is set; ``restart``: its stale units are restarted as well; ``report``:
nothing is cured, what is stale is named. The watcher asks the daemon, when there is an update that
a container has not seen yet, and restarts by another process, which may load what it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pycor_hooks import api
from pycor_hooks.converge import note_restart
from pycor_hooks.errors import PycorError, printable
from pycor_hooks.logs import about, about_overlay
from pycor_hooks.plan import base_of, name_of
from pycor_hooks.sockets import find_daemons, is_listening

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

log = logging.getLogger(__name__)

KEY = "user.pycor.after-update"
ASK = 3.0
"""Seconds that a daemon has for an answer; the containers of a base wait for that once."""
MAX_INSTANCE = 512 * 1024  # bytes that a daemon says of a container; cloud-init's are most of it
EACH = 300.0
"""Seconds that the restart of one container may take; it has narrower limits of its own."""
MAX_LINE = 1024 * 1024  # bytes that the other process says of a container


class Policy(Enum):
    """The values of the key."""

    CURE = "cure"
    RESTART = "restart"
    REPORT = "report"


class Choices:
    """What the containers on one base have chosen, as it was when they were last asked about."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._restarted: dict[str, tuple[int, int]] = {}
        self._unasked: set[str] = set()
        self._silent = False

    async def of(self, found: Record) -> Policy:
        """Ask the daemon what a container has chosen.

        Where it does not answer, it is what it said last, or else the cure, and is not asked about
        the others either; a value that is none is said once.
        """
        before = value = self._known.get(found.directory)
        if not self._silent:
            try:
                value = await _ask(found)
            except (*api.NO_ANSWER, OSError) as error:
                self._silent = isinstance(error, OSError)
                log.info(
                    "%s: %s is taken as %s, as the daemon cannot be asked: %s",
                    name_of(found),
                    KEY,
                    printable(before or Policy.CURE.value),
                    error,
                    extra=about_overlay(found),
                )
        if value is None:
            self._unasked.add(found.directory)
            return Policy.CURE
        self._unasked.discard(found.directory)
        self._known[found.directory] = value
        try:
            return Policy(value)
        except ValueError:
            if value != before:
                log.warning(
                    "%s: %s is %s, which is none of cure, restart and report: taken as cure",
                    name_of(found),
                    KEY,
                    printable(value),
                    extra=about_overlay(found),
                )
            return Policy.CURE

    def is_unasked(self, found: Record) -> bool:
        """Whether a container was taken to want the cure, as the daemon never told."""
        return found.directory in self._unasked

    def is_first(self, found: Record, generation: int) -> bool:
        """Whether a start of a container is to be restarted for a generation for the first time.

        What remains stale then would remain so.
        """
        mark = (found.monitor_start, generation)
        before, self._restarted[found.directory] = self._restarted.get(found.directory), mark
        return mark != before

    def begin(self, overlays: Iterable[Record]) -> None:
        """Begin a round: forget all containers but these, and ask a daemon that was silent."""
        self._silent = False
        kept = {found.directory for found in overlays}
        self._known = {path: it for path, it in self._known.items() if path in kept}
        self._restarted = {path: it for path, it in self._restarted.items() if path in kept}
        self._unasked &= kept


async def _ask(found: Record) -> str:
    (daemon,) = find_daemons([found.daemon])
    if not await asyncio.to_thread(is_listening, daemon):
        raise ConnectionRefusedError("its daemon is not running")
    path = f"/1.0/instances/{quote(found.name, safe='')}?project={quote(found.project, safe='')}"
    instance = await api.get(daemon, path, most=MAX_INSTANCE, within=ASK)
    return str(instance["expanded_config"].get(KEY, Policy.CURE.value))


class Restarts:
    """The restarts under way: one roll-out at a time for each base.

    What is wanted is noted in a container's record until it has been seen to, or the roll-out has
    stopped before it: so the next watcher goes on where one was ended.

    Args:
        group: where they run.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._wanted: dict[Base, dict[str, Record]] = {}
        self._working: dict[Base, asyncio.Task[int]] = {}
        self._under_way: set[str] = set()

    async def want(self, found: Record, *, again: bool) -> None:
        """Have the stale units of a container restarted, with those wanted until it begins.

        Args:
            found: the container.
            again: also where it is among those under way, which may be done with it.
        """
        if again or found.directory not in self._under_way:
            await _note(found, wanted=True)
            self._wanted.setdefault(base_of(found), {})[found.directory] = found

    def begin(self, base: Base) -> None:
        """Begin with what is wanted on a base, unless that is being done."""
        if self._wanted.get(base) and base not in self._working:
            self._working[base] = self._group.create_task(self._work(base))

    async def done(self) -> int:
        """Wait for what is under way; how often something could not be done."""
        return sum([await task for task in list(self._working.values())])

    async def _work(self, base: Base) -> int:
        failures = 0
        while records := self._wanted.pop(base, {}):
            self._under_way |= records.keys()
            left = dict(records)
            try:
                async with asyncio.timeout(EACH * len(records)):
                    failures += await self._roll_out(base, left)
            except (OSError, ValueError) as error:
                failures += 1
                log.error(  # noqa: TRY400 - no bug
                    "%s: units cannot be restarted: %s",
                    base,
                    str(error) or "not done in time",
                    extra=about(base.daemon, base),
                )
            for found in left.values():
                await self._is_seen_to(base, found)
            self._under_way -= records.keys()
        del self._working[base]
        return failures

    async def _roll_out(self, base: Base, records: dict[str, Record]) -> int:
        """Run the other process, and log what it says; the number of containers in trouble.

        Args:
            base: theirs.
            records: by directory; those that it has told of are taken out.
        """
        command = (sys.executable, "-P", "-m", "pycor_hooks.rollout")
        process = await asyncio.create_subprocess_exec(
            *command, *records, stdout=asyncio.subprocess.PIPE, limit=MAX_LINE
        )
        failures = 0
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            async for line in process.stdout:
                told = json.loads(line)
                found = records.pop(told["directory"])
                failures += _log(found, told)
                if not told["later"]:
                    await self._is_seen_to(base, found)
            if status := await process.wait():
                raise ChildProcessError(f"{' '.join(command)}: exit status {status}")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return failures

    async def _is_seen_to(self, base: Base, found: Record) -> None:
        """Note that a container is not to be restarted, unless that is wanted once more."""
        if found.directory not in self._wanted.get(base, {}):
            await _note(found, wanted=False)


async def _note(found: Record, *, wanted: bool) -> None:
    """Note in its record whether a container is to be restarted."""
    try:
        await asyncio.to_thread(note_restart, found, wanted=wanted)
    except (OSError, PycorError) as error:
        log.debug("%s: whether to restart it cannot be noted: %s", name_of(found), error)


def _log(found: Record, told: dict[str, Any]) -> int:
    """Log what became of one container; 1 where it is in trouble."""
    extra = about_overlay(found)
    for text in told["done"]:
        log.info("%s", printable(text), extra=extra)
    for text in told["left"]:
        log.warning("%s", printable(text), extra=extra)
    if told["later"]:
        text = "units are restarted when its base has stopped"
        log.info("%s: %s; %s", name_of(found), printable(told["trouble"]), text, extra=extra)
    elif told["trouble"]:
        log.error("%s: %s", name_of(found), printable(told["trouble"]), extra=extra)
    return int(bool(told["trouble"]) and not told["later"])
