# SPDX-License-Identifier: GPL-3.0-or-later
"""What the processes of a container hold of its tree: all that a refresh cannot have dropped.

What a base has changed is known from its manifests, but not where a container began before there
was one, or where a file came and went between two. So what is held is compared as well.
"""

from __future__ import annotations

import heapq
import os
import time
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import manifest, mountpoints, procs, staleness
from pycor_hooks.errors import CannotFreeze
from pycor_hooks.freezer import Freezer
from pycor_hooks.mountpoints import OutOfTime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from pycor_hooks.mountpoints import Bind
    from pycor_hooks.staleness import File
    from pycor_hooks.trees import Trees

MOST = 50_000
"""Paths that are looked at in one container; it may hold more, to keep the host busy."""
LONGEST = 5.0
"""Seconds that this takes, at most."""


class Held(NamedTuple):
    """What a container holds; the directories above a path are held with it.

    `suspects`: what may be stale, and what its base has there, in the order of a manifest.
    `paths`: all of it.
    """

    suspects: list[tuple[str, File | None]]
    paths: AbstractSet[str]


def held(trees: Trees, init: int) -> Held:
    """What a container holds.

    Args:
        trees: of the container.
        init: pid of its init.

    Raises:
        OutOfTime: it holds too much to be looked at.
    """
    found = _Held(trees)
    paths = sorted(found.of(init), key=manifest.order)
    suspects = [(path, staleness.file_of(trees.base.lstat(path))) for path in paths]
    return Held(suspects, found.known)


def added(
    touched: Iterable[tuple[str, File | None]], held: Iterable[tuple[str, File | None]]
) -> Iterator[tuple[str, File | None]]:
    """Put both together, each path once; both are in the order of a manifest."""
    both = heapq.merge(touched, held, key=lambda one: manifest.order(one[0]))
    for _, same in groupby(both, key=itemgetter(0)):
        yield next(same)


class _Held:
    """The paths that are held, and those not plainly the base's, with the directories above."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._deadline = time.monotonic() + LONGEST
        self._binds: dict[tuple[str, str], list[Bind]] = {}
        self.known = {""}
        self._suspects: set[str] = set()

    def of(self, init: int) -> set[str]:
        """All of them that the container with this init holds."""
        for pid in _processes(init):
            binds = self._mounts(pid)
            for path in procs.held(pid):
                self._go_on()
                for bind in binds:
                    if _is_below(path, bind.target):
                        self._look(mountpoints.inside(*bind, path))
        return self._suspects

    def _mounts(self, pid: int) -> list[Bind]:
        """Where a process has the overlay; what lies on that is looked at where it is new."""
        try:
            root = os.readlink(f"/proc/{pid}/root")
            place = os.readlink(f"/proc/{pid}/ns/mnt"), root
            if place not in self._binds:
                table = mountpoints.Table(pid, self._in_time)
                self._binds[place], points = mountpoints.layout(table, self._trees.device, root)
                for path in points:
                    self._look(path)
        except OSError:
            return []  # it is gone
        return self._binds[place]

    def _look(self, path: str) -> None:
        """Suspect a path where the base has something else, any directory, and those above it."""
        while path not in self.known:
            self.known.add(path)
            self._go_on()
            merged = staleness.file_of(self._trees.merged.lstat(path))
            base = staleness.file_of(self._trees.base.lstat(path))
            if staleness.is_directory(merged) or not staleness.agree(base, merged):
                self._suspects.add(path)
            path = path.rpartition("/")[0]

    def _go_on(self) -> None:
        if len(self.known) > MOST or not self._in_time():
            raise OutOfTime

    def _in_time(self) -> bool:
        return time.monotonic() < self._deadline


def _processes(init: int) -> list[int]:
    try:
        return list(Freezer(init).processes())
    except CannotFreeze:
        return procs.of_containers([init])[init]


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
