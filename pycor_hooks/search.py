# SPDX-License-Identifier: GPL-3.0-or-later
"""Find what is stale in one container, among the paths that its base has changed."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import journal, staleness
from pycor_hooks.cure import Step
from pycor_hooks.hiding import Hiding, Upper
from pycor_hooks.mountpoints import OutOfTime
from pycor_hooks.staleness import File, Reason, Seen, Verdict

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from pycor_hooks.parents import Parents
    from pycor_hooks.trees import Trees


MOST_NAMES = 100_000
"""That upper may have in a directory, for its names to be compared."""


class Found(NamedTuple):
    """What is stale.

    `paths`: all of it, as it was asked about. `steps`: what can be unlinked. `reasons`: why the
    rest cannot be.
    """

    paths: list[tuple[str, File | None]]
    steps: list[Step]
    reasons: dict[str, Reason]


def search(trees: Trees, touched: Iterable[tuple[str, File | None]]) -> Found:
    """Compare what the container's lookups give with what the base has.

    Args:
        trees: of a container.
        touched: paths that the base has changed, and what is there now; a directory comes before
            what is in it.
    """
    hiding = Hiding(trees.upper)
    found = Found([], [], {})
    old_directories: set[str] = set()
    in_the_way: set[str] = set()
    for path, entry in touched:
        base = _shown(trees, path, entry)
        merged = staleness.file_of(trees.merged.lstat(path)) if path else None
        if not path or (staleness.agree(base, merged) and not staleness.is_directory(base)):
            continue
        seen = Seen(path, base, merged, hiding.of(path))
        try:
            if staleness.is_directory(merged) and _is_another(trees, seen):
                old_directories.add(path)
        except OutOfTime:
            found.paths.append((path, base))
            found.reasons[path] = Reason.TOO_MUCH
            continue
        verdict = staleness.judge(seen, old_directories=old_directories)
        if verdict is Verdict.LEAVE:
            continue
        found.paths.append((path, base))
        if merged is None and staleness.is_below(path, in_the_way):
            continue
        if isinstance(verdict, Reason):
            found.reasons[path] = verdict
        elif merged is not None:
            found.steps.append(Step(path, base, merged))
            if staleness.is_directory(base):
                in_the_way.add(path)
    return found


def _shown(trees: Trees, path: str, base: File | None) -> File | None:
    """What OverlayFS shows of the base's: a whiteout, as Docker's layers have them, is nothing."""
    if base is None or not stat.S_ISCHR(base.mode):
        return base
    return None if journal.is_whiteout(trees.base.lstat(path)) else base


def judged_as_before(
    trees: Trees, held: Iterable[tuple[str, File]], reasons: Container[str]
) -> Iterator[tuple[str, File]]:
    """What OverlayFS goes on to judge by its old mode and owner.

    It judges by an inode of its own, made when the path was first looked up (ovl_permission() in
    fs/overlayfs/inode.c), while stat(2) tells what the base has.

    Args:
        trees: of a container.
        held: what it holds and the base has altered, and what is there now.
        reasons: paths that are another file in the container.
    """
    hiding = Hiding(trees.upper)
    for path, base in held:
        merged = staleness.file_of(trees.merged.lstat(path))
        same = staleness.agree(base, merged) and not staleness.is_below(path, reasons)
        if same and path not in reasons and hiding.of(path) is Upper.ABSENT:
            yield path, base


def obsolete(trees: Trees, parents: Parents) -> list[Step]:
    """The directories that a cure copied up, and in whose place the base has none any more.

    What is in a directory comes before it.
    """
    steps = []
    for path in parents.known:
        base = staleness.file_of(trees.base.lstat(path))
        found = staleness.file_of(trees.upper.lstat(path))
        if (
            not staleness.is_directory(base)
            and found is not None
            and parents.holds_nothing_own(path, trees.upper)
        ):
            steps.append(Step(path, base, found, parent=True))
    return sorted(steps, key=lambda step: step.path.count("/"), reverse=True)


def _is_another(trees: Trees, seen: Seen) -> bool:
    """Whether the container's lookup of a directory gives an old one with something in it.

    What is below it comes from there then. The inode does not tell, as OverlayFS may number
    directories by itself. Where upper has no part in it the time of the last change does, but for
    two changes in one tick of the clock; and the names in it do, unless they are the same: then
    what is below is found to be stale, path by path.

    Raises:
        OutOfTime: upper has more than MOST_NAMES names in it.
    """
    if seen.upper is Upper.HIDES:
        return False
    if not staleness.is_directory(seen.base):
        return seen.upper is Upper.ABSENT and (
            seen.base is not None or bool(trees.merged.list(seen.path))
        )
    if seen.upper is Upper.ABSENT:
        merged, base = trees.merged.lstat(seen.path), trees.base.lstat(seen.path)
        if merged is None or base is None or merged.st_ctime_ns != base.st_ctime_ns:
            return merged is not None
    own = set(trees.upper.list(seen.path, MOST_NAMES + 1))
    if len(own) > MOST_NAMES:
        raise OutOfTime
    return set(trees.base.list(seen.path)) - own != set(trees.merged.list(seen.path)) - own
