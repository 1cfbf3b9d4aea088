# SPDX-License-Identifier: GPL-3.0-or-later
"""The cure by which a running container gives back what it has of its own."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import attributes, journal, kernel, masking, mirror, regular, staleness
from pycor_hooks.converge import AT_ONCE, PAUSE, TRIES
from pycor_hooks.cure import Cure, Step
from pycor_hooks.errors import CannotFreeze
from pycor_hooks.mountpoints import OutOfTime
from pycor_hooks.staleness import Reason

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence


class Own(NamedTuple):
    """What upper has at a path.

    `whiteout`: it stands for nothing. `merged`: it is a directory that the base has, too, and
    the container sees what is in either. `hidden`: it is in one in which the container sees
    nothing of the base's.
    """

    path: str
    found: os.stat_result
    whiteout: bool
    merged: bool
    hidden: bool

    @property
    def directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.found.st_mode)


class GiveBack(Cure):
    """A cure of paths that upper has."""

    def all(self, there: Sequence[Own]) -> dict[str, Reason]:
        """Give everything back, in as many freezes as it takes; why not what was not."""
        self._whiteouts = {one.path for one in there if one.whiteout}
        self._hidden = {one.path for one in there if one.hidden}
        self._held: set[str] = set()
        steps = [step for one in there if not one.merged for step in self._steps(one)]
        staying = [one.path for one in there if one.merged]
        self._take_note(staying)
        reasons: dict[str, Reason] = {}
        tries, why = 0, Reason.FAILED
        left = staying
        while (steps or left) and tries < TRIES:
            tries += 1
            now, rest = steps[:AT_ONCE], steps[AT_ONCE:]
            try:
                outcome = self.run(now, [] if rest else left)
            except CannotFreeze:
                why = Reason.NOT_FROZEN
            except OutOfTime:
                why = Reason.TOO_SLOW
            else:
                why = Reason.TOO_SLOW
                reasons |= outcome.reasons
                tries = tries if now and len(outcome.left) == len(now) else 0
                steps = [*outcome.left, *rest]
                left = left if steps else []
            time.sleep(PAUSE)
        reasons = dict.fromkeys((*(step.path for step in steps), *left), why) | reasons
        self._note_what_stays(staying, reasons)
        return reasons

    def _steps(self, one: Own) -> Iterator[Step]:
        """What is to be done about something; nothing where the container has just removed it."""
        base = staleness.file_of(self._trees.base.lstat(one.path))
        seen = one.found if one.whiteout else self._trees.merged.lstat(one.path)
        if seen is not None and one.directory:
            seen = one.found
        found = staleness.file_of(seen)
        if found is not None:
            yield Step(one.path, base, found, parent=one.directory)

    def _take_note(self, staying: Sequence[str]) -> None:
        """Have directories that stay in upper be like the base's, and go when it stops."""
        for path in staying:
            descriptor = self._trees.base.open(path)
            try:
                like = attributes.of(descriptor).shifted(self._trees.shift)
            finally:
                os.close(descriptor)
            self._parents.add(path, like)
        mirror.begin(self._trees, self._parents, staying)

    def _note_what_stays(self, staying: Sequence[str], reasons: Container[str]) -> None:
        """Have what the container changes in these directories from now on be its own."""
        with contextlib.suppress(OSError):  # no room: they are like the base's until it stops
            self._parents.cancel(path for path in staying if path in reasons)
            given = [path for path in staying if path not in reasons]
            if given:
                mirror.note(self._trees, self._parents, given)
            elif staying:
                self._parents.save()

    def _confirm(self, steps: Iterable[Step]) -> list[Step]:
        """Those that are still what was shown, and that nobody holds in the way of the base's."""
        confirmed = [step for step in steps if self._is_so(step)]
        held = {step.path for step in confirmed if self._is_held(step)}
        self._trees.forget()
        self._held |= held
        return [step for step in confirmed if step.path not in held]

    def _is_held(self, step: Step) -> bool:
        """Whether a process has a copy open of the very file that the base has now.

        OverlayFS finds its inode of a file by the base's, so all who look the base's up would be
        given the copy, deleted, for as long as that is open (ovl_get_inode() in
        fs/overlayfs/inode.c).
        """
        trees = self._trees
        if step.path in self._whiteouts or step.base is None or not stat.S_ISREG(step.found.mode):
            return False
        copied = masking.origin("/proc/self/fd/{}/{}".format(*trees.upper.place(step.path)))
        base = kernel.file_handle("/proc/self/fd/{}/{}".format(*trees.base.place(step.path)))
        return copied == base and regular.is_open(*trees.merged.place(step.path))

    def _is_so(self, step: Step) -> bool:
        upper = self._trees.upper.lstat(step.path)
        if step.path in self._whiteouts:
            return journal.is_whiteout(upper)
        found = upper if step.parent else self._trees.merged.lstat(step.path)
        return upper is not None and found is not None and found.st_ino == step.found.ino

    def _take_away(self, step: Step) -> None:
        if step.path not in self._whiteouts:
            super()._take_away(step)

    def _verify(self, steps: Sequence[Step], reasons: dict[str, Reason]) -> None:
        """See that the base's shows, but where the directory above is yet to go."""
        for step in steps:
            if step.path in self._held:
                reasons.setdefault(step.path, Reason.IN_USE)
            elif step.path not in self._hidden and not self._shows(step):
                reasons.setdefault(step.path, Reason.FAILED)

    def _shows(self, step: Step) -> bool:
        """Whether the container sees the base's; not what it has deleted, and holds."""
        merged, base = self._trees.merged, self._trees.base
        found = merged.lstat(step.path)
        if found is None or found.st_nlink == 0:
            return step.base is None and found is None
        if staleness.is_directory(step.base):
            return set(merged.list(step.path)) >= set(base.list(step.path))
        return staleness.agree(step.base, staleness.file_of(found))
