# SPDX-License-Identifier: GPL-3.0-or-later
"""One freeze of a container in which stale dentries are unlinked, so that lookups see the base.

unlink(2) through the overlay unhashes the dentry that a process holds, and leaves a whiteout in
upper, which unlink(2) in upper takes away behind the overlay's back; the next lookup finds what
the base has. Between the two the container lacks the file: so it is frozen, there is a journal,
and never more than one path is between them.

Where somebody still has the old file open he keeps it, as after any upgrade. Should he change its
mode, owner or times by that descriptor, OverlayFS copies the old file up to its old name.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import journal, mirror, mountpoints, overlay, staleness
from pycor_hooks.hiding import Hiding, Upper
from pycor_hooks.staleness import File, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycor_hooks.freezer import Freezer
    from pycor_hooks.parents import Parents
    from pycor_hooks.record import Record
    from pycor_hooks.trees import Trees

FREEZE = 0.15
"""Seconds until a container has to be frozen."""
BUDGET = 0.25
"""Seconds, from the order to freeze, after which no other path is begun."""
LIMIT = 0.45
"""Seconds, from the order to freeze, after which it is thawed whatever is under way."""


class Step(NamedTuple):
    """A path to be unlinked.

    `base`: what the container shall see. `found`: what it sees, and has to be seen still.
    `parent`: it is a directory of ours in upper, where the base has none any more; `found` is the
    one in upper then, as OverlayFS may give a directory another number after each refresh.
    """

    path: str
    base: File | None
    found: File
    parent: bool = False


class Outcome(NamedTuple):
    """What one freeze came to.

    `reasons`: why paths are stale still. `left`: what was not begun, as the time was over.
    `frozen`: seconds that the container was. All else is as it should be.
    """

    reasons: dict[str, Reason]
    left: list[Step]
    frozen: float


class Cure:
    """The cure of one container; the caller holds the lock of its overlay.

    Args:
        record: the container.
        trees: its overlay, upper and base.
        freezer: of its cgroup.
        parents: the directories that were copied up for it.
    """

    def __init__(self, record: Record, trees: Trees, freezer: Freezer, parents: Parents) -> None:
        self._record = record
        self._trees = trees
        self._freezer = freezer
        self._parents = parents
        self._began = 0.0

    def run(self, steps: Sequence[Step], outdated: Sequence[str]) -> Outcome:
        """Freeze, unlink, verify, thaw.

        Args:
            steps: what to unlink; the directories that it lies in are in upper.
            outdated: directories of ours that shall be like the base's again.

        Raises:
            CannotFreeze: nothing was done.
            OutOfTime: nothing was done within BUDGET.
            OSError: the journal could not be written; or a whiteout not be taken away, and then
                the journal stays, to be settled.
        """
        intent = journal.Intent(
            init=self._record.init,
            init_start=self._record.init_start,
            ours=not self._freezer.asked(),
            paths=[step.path for step in steps],
            times=self._times(steps),
        )
        watchdog = threading.Timer(LIMIT, self._freezer.thaw)
        with contextlib.closing(journal.Journal(self._trees.own)) as book:
            try:
                book.prepare(intent)
                self._began = time.monotonic()
                watchdog.start()
                self._freezer.freeze(FREEZE)
                reasons, left = self._frozen(book, intent, steps, outdated)
            finally:
                frozen = self._end(book, watchdog)
        return Outcome(reasons, left, frozen)

    def _end(self, book: journal.Journal, watchdog: threading.Timer) -> float:
        """See to what is half done, and thaw in any case; seconds that it was frozen."""
        try:
            if book.armed:
                journal.settle(self._trees.own)
        finally:
            self._freezer.thaw()
            frozen = time.monotonic() - self._began
            watchdog.cancel()
        if not book.armed:
            book.remove()
        return frozen

    def _frozen(
        self,
        book: journal.Journal,
        intent: journal.Intent,
        steps: Sequence[Step],
        outdated: Sequence[str],
    ) -> tuple[dict[str, Reason], list[Step]]:
        mounted = mountpoints.of_tasks(
            self._freezer.tasks(), set(intent.paths), self._trees.device, self._in_time
        )
        reasons = dict.fromkeys(mounted, Reason.MOUNTED)
        self._trees.forget()
        overlay.refresh(self._record.merged)
        confirmed = self._confirm([step for step in steps if step.path not in mounted])
        self._arm(book, intent, steps, confirmed)
        left = self._unlink(confirmed, reasons)
        journal.put_back_times(self._trees.upper, intent.times)
        book.disarm()
        if self._freezer.frozen():
            reasons |= mirror.renew(self._trees, self._parents, outdated)
        else:
            reasons |= dict.fromkeys(outdated, Reason.TOO_SLOW)
        self._trees.forget()
        overlay.refresh(self._record.merged)
        settled = {step.path for step in left} | reasons.keys()
        self._verify([step for step in steps if step.path not in settled], reasons)
        return reasons, left

    def _arm(
        self,
        book: journal.Journal,
        intent: journal.Intent,
        steps: Sequence[Step],
        confirmed: Sequence[Step],
    ) -> None:
        """Arm the journal as it is, or anew where the container did something before it froze."""
        times = self._times(confirmed)
        if len(confirmed) == len(steps) and times == intent.times:
            book.arm()
            return
        intent.paths = [step.path for step in confirmed]
        intent.times = times
        book.arm(intent)

    def _confirm(self, steps: Iterable[Step]) -> list[Step]:
        """Those whose paths are still what it was decided to unlink.

        The container, or somebody outside it, may have written to one or removed it meanwhile.
        """
        hiding = Hiding(self._trees.upper)

        def is_ours(step: Step) -> bool:
            if step.parent:
                return self._parents.holds_nothing_own(step.path, self._trees.upper)
            return hiding.of(step.path) is Upper.ABSENT

        return [step for step in steps if is_ours(step) and self._is_so(step)]

    def _is_so(self, step: Step) -> bool:
        """Whether a path is what it was, at the last moment; rmdir(2) sees to what is in it."""
        upper = self._trees.upper.lstat(step.path)
        found = upper if step.parent else self._trees.merged.lstat(step.path)
        if found is None or found.st_ino != step.found.ino:
            return False
        return step.parent or upper is None

    def _unlink(self, steps: Sequence[Step], reasons: dict[str, Reason]) -> list[Step]:
        """Unlink, one after the other, as long as there is time; what is left then."""
        for number, step in enumerate(steps):
            if not self._in_time():
                return list(steps[number:])
            if not self._is_so(step):
                continue
            try:
                self._take_away(step)
            except OSError as error:
                reasons[step.path] = staleness.of_errno(error.errno)
            journal.withdraw(self._trees.upper, step.path)
        return []

    def _take_away(self, step: Step) -> None:
        if step.parent:
            self._trees.merged.rmdir(step.path)
        else:
            self._trees.merged.unlink(step.path)

    def _verify(self, steps: Sequence[Step], reasons: dict[str, Reason]) -> None:
        """A lookup that goes wrong without the dentry goes through an old directory."""
        hiding = Hiding(self._trees.upper)
        for step in steps:
            seen = staleness.file_of(self._trees.merged.lstat(step.path))
            if staleness.agree(step.base, seen):
                continue
            if step.parent and self._parents.holds_nothing_own(step.path, self._trees.upper):
                reasons.setdefault(step.path, Reason.FAILED)
            elif hiding.of(step.path) is Upper.ABSENT:
                reasons.setdefault(step.path, Reason.BELOW)

    def _in_time(self) -> bool:
        return time.monotonic() - self._began < BUDGET and self._freezer.frozen()

    def _times(self, steps: Iterable[Step]) -> dict[str, int]:
        """The mtime in ns of each directory of upper in which something is to be unlinked."""
        times = {}
        for directory in {step.path.rpartition("/")[0] for step in steps}:
            found = self._trees.upper.lstat(directory)
            if found is not None:
                times[directory] = found.st_mtime_ns
        return times
