# SPDX-License-Identifier: GPL-3.0-or-later
"""Give paths back to the base: what a container has of its own there is lost.

Of a stopped container it is taken out of upper, under the lock of its overlay. In a running one
it goes as a cure does, frozen and with a journal: unlinked through the overlay, so that the kernel
knows, and then the whiteout in upper. A directory that base and container both have stays in its
upper, like the base's, until the container stops.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from pycor_hooks import attributes, converge, journal, layer, plan, record, registry, takedown
from pycor_hooks.beneath import Tree
from pycor_hooks.freezer import Freezer
from pycor_hooks.giveback import GiveBack, Own
from pycor_hooks.hiding import Hiding, Upper
from pycor_hooks.host_errors import BaseRuns, HiddenAbove, Restarted
from pycor_hooks.instance import Instance
from pycor_hooks.parents import Parents
from pycor_hooks.trees import Trees

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pycor_hooks.locate import Layer
    from pycor_hooks.record import Record
    from pycor_hooks.staleness import Reason

LOCK_TIMEOUT = 5.0
"""Seconds to wait for a hook, or for a converge."""


def check(upper: Tree, path: str) -> None:
    """Refuse a path where the base's would not show, with nothing there of the container's.

    Raises:
        HiddenAbove: a directory above it is the container's alone.
    """
    hiding = Hiding(upper)
    parts = path.split("/")
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        if hiding.of(above) is Upper.HIDES:
            raise HiddenAbove(path=f"/{path}", above=f"/{above}")


def own(upper: Tree, base: Tree, path: str, *, hidden: bool = False) -> Iterator[Own]:
    """What upper has at a path, after all that it has below it."""
    found = upper.lstat(path)
    if found is None:
        return
    merged = False
    if stat.S_ISDIR(found.st_mode):
        theirs = None if hidden else base.lstat(path)
        merged = (
            theirs is not None
            and stat.S_ISDIR(theirs.st_mode)
            and not upper.has(path, attributes.is_opaque)
        )
        for name in sorted(upper.list(path)):
            yield from own(upper, base, f"{path}/{name}", hidden=not merged)
    yield Own(path, found, journal.is_whiteout(found), merged, hidden)


def from_stopped(where: Layer, paths: Iterable[str]) -> None:
    """Take paths out of the upper of a stopped container.

    Raises:
        Restarted: it was started meanwhile.
        HiddenAbove: one of them would not show; nothing was done.
        StillHeld: a hook holds the lock of its overlay.
    """
    directory = record.directory_of(where.container.daemon, where.container.key)
    with registry.Lock(directory, timeout=LOCK_TIMEOUT):
        try:
            if os.path.exists(f"{directory}/state") or where.container.running():
                raise Restarted(name=where.container.label)
            layer.tidy(where.own)
            with Tree(where.upperdir) as upper, Tree(where.lowerdir) as base:
                _take_out(upper, base, list(paths))
        finally:
            takedown.remove_directory(directory)


def _take_out(upper: Tree, base: Tree, paths: Sequence[str]) -> None:
    for path in paths:
        check(upper, path)
    for path in paths:
        for one in own(upper, base, path):
            if one.directory:
                upper.rmdir(one.path)
            else:
                upper.unlink(one.path)


def from_running(found: Record, paths: Iterable[str]) -> dict[str, Reason]:
    """Give paths of a running container back.

    Args:
        found: its record, as it was when somebody looked.
        paths: relative to its root.

    Returns:
        Those that could not be given back, and why.

    Raises:
        BaseRuns, Restarted, HiddenAbove: nothing was done.
        CannotFreeze: it is in no cgroup that can be frozen.
        StillHeld: it is being converged, or a hook is at work.
    """
    with registry.Lock(found.directory, timeout=LOCK_TIMEOUT):
        now = takedown.again(found)
        if now is None:
            raise Restarted(name=plan.name_of(found))
        base = Instance(now.daemon, now.base_project, now.base_name)
        if base.running():
            raise BaseRuns(base=base.label)
        converge.finish(now)
        with Trees(now) as trees:
            for path in paths:
                check(trees.upper, path)
            there = [one for path in paths for one in own(trees.upper, trees.base, path)]
            with contextlib.closing(Freezer(now.init)) as freezer:
                return GiveBack(now, trees, freezer, Parents(trees.own)).all(there)
