# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge one running container with its base: find what is stale, cure it, say what is left.

Blocks for as long as the cure takes. Its container is frozen for at most a quarter of a second at
a stretch, as often as it takes, and runs between.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import (
    instance,
    inuse,
    journal,
    kernel,
    mirror,
    overlay,
    registry,
    stale,
    staleness,
    takedown,
)
from pycor_hooks.cure import Cure
from pycor_hooks.errors import CannotFreeze
from pycor_hooks.freezer import Freezer
from pycor_hooks.instance import Instance, identity_now
from pycor_hooks.layer import CURE
from pycor_hooks.mountpoints import OutOfTime
from pycor_hooks.parents import Parents
from pycor_hooks.search import judged_as_before, obsolete, search
from pycor_hooks.stale import Uncured
from pycor_hooks.staleness import Reason
from pycor_hooks.trees import Trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pycor_hooks.cure import Step
    from pycor_hooks.record import Record
    from pycor_hooks.staleness import File

    Touched = Callable[[int | None], Iterable[tuple[str, File | None]]]

LOCK_TIMEOUT = 0.5
AT_ONCE = 256
"""Paths of one freeze, at most; some 30 ms of it."""
TRIES = 3
"""Freezes without any progress before it is given up."""
PAUSE = 0.05
"""Seconds, at least, that a container runs between two freezes."""


class Result(NamedTuple):
    """What became of one container.

    `cured`: how many paths. `reasons`: those that are stale still, and why; "" is its root.
    `frozen`: seconds of each freeze.
    """

    cured: int
    reasons: dict[str, Reason]
    frozen: list[float]


def converge(
    found: Record, generation: int | None, touched: Touched, *, cure: bool = True
) -> Result | None:
    """Let a container see its base as it is now, and record it where nothing stale is left.

    Args:
        found: its record, as it was when somebody looked; its overlay has been refreshed since
            the base stopped.
        generation: of the base, as its manifest tells; None where the base is gone.
        touched: gives, for the generation that the container has converged to, the paths that
            the base has changed since, and what is there now, in the order of a manifest.
        cure: False to find only what is stale, and report it.

    Returns:
        None where there is nothing to say: that start of the container is over or ends, or the
        base runs, which changes what would be compared.

    Raises:
        StillHeld: a hook or a command holds the lock of the overlay.
        OSError, PycorError: it was not refreshed, or not looked at.
    """
    with registry.Lock(found.directory, timeout=LOCK_TIMEOUT):
        now = takedown.again(found)
        base = Instance(found.daemon, found.base_project, found.base_name)
        if now is None or _ends(now) or base.running() or not kernel.is_mount_root(now.merged):
            return None
        finish(now)
        if generation is None or identity_now(now.lowerdirs[0]) != now.lower_identity:
            result: Result | None = Result(0, {"": Reason.REPLACED}, [])
        else:
            with Trees(now) as trees:
                cures = _Convergence(now, trees, base)
                result = cures.run(touched(now.converged), cure=cure)
            result = None if base.running() or _ends(now) else result
        if result is None:
            return None
        stale.write(
            now, generation, (Uncured(f"/{path}", why) for path, why in result.reasons.items())
        )
        if not result.reasons and now.converged != generation:
            now.converged = generation
            now.write()
        return result


def _ends(now: Record) -> bool:
    """Whether the init of a container is gone, and its stop hook about to come."""
    return bool(now.init) and not instance.process_alive(now.init, now.init_start)


def interrupted(found: Record) -> bool:
    """Whether somebody cures a container, or was killed while he did."""
    return os.path.lexists(f"{_own(found)}/{CURE}")


def settle(found: Record) -> bool:
    """Finish what a killed cure of a container has left; whether there was anything.

    Raises:
        StillHeld: it is being cured, or a hook is at work.
    """
    with registry.Lock(found.directory, timeout=0):
        now = takedown.again(found)
        return now is not None and finish(now)


def finish(now: Record) -> bool:
    """As :func:`settle`, for whoever holds the lock of the overlay."""
    if not journal.settle(_own(now)):
        return False
    overlay.refresh(now.merged)
    return True


def note_restart(found: Record, *, wanted: bool) -> None:
    """Note in a container's record whether its units are to be restarted, if it is that start's.

    Raises:
        StillHeld: it is being converged, or a hook is at work.
    """
    with registry.Lock(found.directory, timeout=LOCK_TIMEOUT):
        now = takedown.again(found)
        if now is not None and now.restart != wanted:
            now.restart = wanted
            now.write()


def _own(found: Record) -> str:
    return found.upperdir.rpartition("/")[0]


class _Convergence:
    """The converge of one container, freeze by freeze."""

    def __init__(self, found: Record, trees: Trees, base: Instance) -> None:
        self._record = found
        self._trees = trees
        self._base = base
        self._parents = Parents(trees.own)
        self._reasons: dict[str, Reason] = {}
        self._frozen: list[float] = []

    def run(self, touched: Iterable[tuple[str, File | None]], *, cure: bool) -> Result | None:
        """Find what is stale, and cure it; None where the base runs before that has begun."""
        try:
            held = inuse.held(self._trees, self._record.init)
        except OutOfTime:
            held, self._reasons[""] = inuse.Held([], frozenset()), Reason.TOO_MUCH
        altered: list[tuple[str, File]] = []

        def noting() -> Iterator[tuple[str, File | None]]:
            for path, base in inuse.added(touched, held.suspects):
                if base is not None and base.altered and path in held.paths:
                    altered.append((path, base))
                yield path, base

        found = search(self._trees, noting())
        if self._base.running():
            return None
        if found.paths:  # what was in use for a moment when the overlay was refreshed is not now
            self._trees.forget()
            overlay.refresh(self._record.merged)
            found = search(self._trees, found.paths)
        self._reasons |= found.reasons
        directories = self._alterable(altered)
        gone = obsolete(self._trees, self._parents)
        if not cure:
            self._trees.forget()
            uncured = (*(step.path for step in (*found.steps, *gone)), *directories)
            self._give_up(uncured, Reason.REPORTED)
            return Result(0, self._reasons, [])
        steps = [*self._with_parents(found.steps, directories), *gone]
        outdated = mirror.outdated(self._trees, self._parents)
        self._trees.forget()
        if steps or outdated:
            self._in_freezes(steps, outdated)
        paths = (*(step.path for step in steps), *directories)
        cured = sum(path not in self._reasons for path in paths)
        return Result(cured, self._reasons, self._frozen)

    def _alterable(self, altered: Iterable[tuple[str, File]]) -> list[str]:
        """The directories that are judged by their old mode or owner; files are given up.

        Copied up, a directory is judged by what the base has now. A file must not be: it would be
        the container's own from then on.
        """
        directories = []
        for path, base in judged_as_before(self._trees, altered, self._reasons):
            if staleness.is_directory(base):
                directories.append(path)
            else:
                self._reasons[path] = Reason.ALTERED
        return directories

    def _with_parents(self, steps: list[Step], directories: list[str]) -> list[Step]:
        """Copy up directories, and what the paths lie in; those for which that worked."""
        wanted = [*directories, *map(_parent_of, steps)]
        try:
            refused = mirror.copy_up(self._trees, self._parents, wanted)
        except OSError as error:
            paths = (*directories, *(step.path for step in steps))
            self._give_up(paths, staleness.of_errno(error.errno))
            return []
        self._reasons |= {path: refused[path] for path in directories if path in refused}
        for step in steps:
            if _parent_of(step) in refused:
                self._reasons[step.path] = refused[_parent_of(step)]
        return [step for step in steps if _parent_of(step) not in refused]

    def _in_freezes(self, steps: list[Step], outdated: list[str]) -> None:
        """Cure in as many freezes as it takes, and let the container run between them."""
        why = Reason.NOT_FROZEN
        missed: list[str] = []
        try:
            mirror.begin(self._trees, self._parents, outdated)
            with contextlib.closing(Freezer(self._record.init)) as freezer:
                cure = Cure(self._record, self._trees, freezer, self._parents)
                tries = 0
                while tries < TRIES and (steps or outdated) and not self._base.running():
                    time.sleep(max([PAUSE, *self._frozen[-1:]]) if tries or self._frozen else 0)
                    tries += 1
                    try:
                        outcome = cure.run(steps[:AT_ONCE], outdated)
                    except CannotFreeze:
                        why = Reason.NOT_FROZEN
                    except OutOfTime:
                        why = Reason.TOO_SLOW
                    else:
                        why = Reason.TOO_SLOW
                        left = [*outcome.left, *steps[AT_ONCE:]]
                        tries = tries if steps and len(left) == len(steps) else 0
                        steps = left
                        self._reasons = outcome.reasons | self._reasons
                        self._frozen.append(outcome.frozen)
                        renewed = [one for one in outdated if one not in outcome.reasons]
                        mirror.note(self._trees, self._parents, renewed)
                        missed += [one for one in outdated if one not in renewed]
                        outdated = []
        except CannotFreeze:
            pass
        except OSError as error:
            why = staleness.of_errno(error.errno)
        missed += outdated
        if missed:
            self._parents.cancel(missed)
            with contextlib.suppress(OSError):
                self._parents.save()
        self._give_up([*(step.path for step in steps), *missed], why)

    def _give_up(self, paths: Iterable[str], why: Reason) -> None:
        for path in paths:
            self._reasons.setdefault(path, why)


def _parent_of(step: Step) -> str:
    return step.path.rpartition("/")[0]
