# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes of containers run code that was replaced or deleted, seen from the host.

What counts is what needrestart counts inside a container: the executable, files mapped to be
executed, and the script of an interpreter; not what is merely open. Beside it what needrestart
cannot see: code that no cure has let go of yet, so that a lookup in the container still gives
the old file.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import generations, instance, procs, stale, staleness
from pycor_hooks.hiding import Hiding, Upper
from pycor_hooks.host_errors import DaemonDown
from pycor_hooks.instance import Instance
from pycor_hooks.plan import apart, base_of
from pycor_hooks.scripts import Scripts, Updates
from pycor_hooks.stale import Uncured
from pycor_hooks.staleness import Reason
from pycor_hooks.trees import Trees
from pycor_hooks.whereabouts import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

# What is mapped and deleted by design: blacklist_mappings of needrestart 3.6.
_NO_FILES = re.compile(
    r"/(SYSV[0-9a-f]{8}|drm(\s|$)|dev/)"  # System V shared memory, devices, /dev/shm
    r"|/memfd:|/\[aio\]"
    r"|(.*/)?(orcexec\.\w+|#\d+|jna\d+\.tmp)$"  # compiled while it runs; no name at all
    r"|(/var)?/(tmp|run)/"
)
# Programs that are no daemons, or wait for the very update: blacklist of needrestart 3.6.
_NO_DAEMONS = re.compile(
    r"(/usr/bin/sudo|/sbin/(dhclient|dhcpcd5|pump|udhcpc)|/usr/bin/apt-get)(\.dpkg-new)?$"
)


class Runner(NamedTuple):
    """A process that runs old code.

    `unit` is None where it has none. `gone`: files that are replaced or deleted for every lookup
    in the container; `held`: those that a lookup still gives. Both by path from the container's
    root, with the inode of what it runs. `scripts`: as :mod:`pycor_hooks.scripts` tells.
    """

    pid: int
    unit: str | None
    command: str
    gone: dict[str, int]
    held: dict[str, int]
    scripts: Mapping[str, float] = {}


class Found(NamedTuple):
    """What is stale in one container: who runs old code, and which paths could not be cured."""

    record: Record
    runners: Sequence[Runner]
    uncured: Sequence[Uncured]


def look(base: Base, records: Iterable[Record]) -> list[Found]:
    """Look at the containers on one base; what is not there any more is left out.

    Args:
        base: while it runs, what changes in it is not stale yet.
        records: of the live overlays on it.

    Raises:
        ValueError: the file beside a record is not one of ours.
        OSError: a tree cannot be read.
    """
    found = list(records)
    with reached(base, found) as there:
        return look_at(base, found, there=there, unwritten=None)


@contextlib.contextmanager
def reached(base: Base, records: Iterable[Record]) -> Iterator[bool]:
    """Reach the volumes of a base and of containers on it, for as long as the block runs.

    Yields:
        Whether that can be: not where they are those of a daemon that keeps them to itself, and
        does not run.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(shown(base.daemon, apart=apart(records)))
        except DaemonDown:
            yield False
        else:
            yield True


def look_at(
    base: Base, records: Iterable[Record], *, there: bool, unwritten: float | None
) -> list[Found]:
    """As :func:`look`, for who has :func:`reached` the volumes, or could not.

    Args:
        there: whether he has.
        unwritten: as :func:`pycor_hooks.generations.unwritten` tells of the base.
    """
    what = Instance(*base)
    tree = instance.identity_now(what.rootfs()) if there else None
    settled = there and not what.running()
    generation = instance.generation_of(what.daemon, what.key, tree) if tree else None
    known = _Known(generation, unwritten)
    updates = Updates(base) if there else None
    by_init = {
        record.init: record
        for record in records
        if instance.process_alive(record.init, record.init_start)
    }
    found = []
    for init, pids in procs.of_containers(by_init).items():
        record = by_init[init]
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if record.lower_identity == tree or not there:
                uncured = _uncured(record, known)
                runners = _runners(record, pids, uncured, updates, settled=settled)
            else:
                uncured = [Uncured("/", Reason.REPLACED)]
                runners = _old(pids, lambda _path, _inode: False)
            found.append(Found(record, runners, uncured))
    return found


class _Known(NamedTuple):
    """What is kept of a base: its generation, and when it changed unknown to its manifest."""

    generation: int | None
    unwritten: float | None


def _uncured(record: Record, base: _Known) -> Sequence[Uncured]:
    known = stale.read(record)
    noted = [] if known is None else known.paths
    if noted and base.unwritten is None:
        return noted
    return [*noted, *([Uncured("/", Reason.PENDING)] if _is_pending(record, base) else [])]


def _is_pending(record: Record, base: _Known) -> bool:
    """Whether its base has changed, and it has not been converged with that."""
    if base.unwritten is not None:
        return record.started_at < base.unwritten
    if base.generation is None or record.converged == base.generation:
        return False
    # a record that was made anew does not tell with which generation its container began
    began = generations.began(base_of(record))
    return record.converged is not None or began is None or record.started_at <= began


def _runners(
    record: Record,
    pids: Iterable[int],
    uncured: Iterable[Uncured],
    updates: Updates | None,
    *,
    settled: bool,
) -> list[Runner]:
    """Who runs old code; where the base is not settled, no more of it is known than is noted.

    Args:
        record, pids, uncured, settled: of the container.
        updates: of its base; None where the trees cannot be reached.
    """
    noted = {one.path for one in uncured}

    def is_noted(path: str, _inode: int) -> bool:
        return path in noted

    if updates is None:
        return _old(pids, is_noted)
    with Trees(record) as trees:
        hiding = Hiding(trees.upper)
        scripts = Scripts(record, hiding, updates, settled=settled)
        is_old = _Held(trees, hiding).is_old if settled else is_noted
        return _old(pids, is_old, scripts)


def _old(
    pids: Iterable[int], is_old: Callable[[str, int], bool], scripts: Scripts | None = None
) -> list[Runner]:
    """The processes that run old code; those of a container in the container have their own.

    Args:
        pids: to look at.
        is_old: whether a file that is not deleted is an old one, by path and inode.
        scripts: of the container, where they can be looked at.
    """
    found = []
    for runner in map(runner_of, itertools.filterfalse(procs.is_nested, pids)):
        held = {path: inode for path, inode in runner.held.items() if is_old(path, inode)}
        old_scripts = scripts.replaced(runner.pid) if scripts else {}
        if runner.gone or held or old_scripts:
            found.append(runner._replace(held=held, scripts=old_scripts))
    return found


def runner_of(pid: int) -> Runner:
    """A process, with all its code, be it old or not."""
    gone: dict[str, int] = {}
    held: dict[str, int] = {}
    for number, used in enumerate(procs.code(pid)):
        if number == 0 and _NO_DAEMONS.match(used.path):
            break
        if not _NO_FILES.match(used.path):
            (gone if used.deleted else held)[used.path] = used.ino
    return Runner(pid, procs.unit(pid), procs.command(pid), gone, held)


def is_deleted(pid: int) -> bool:
    """Whether a process runs code whose name is gone."""
    return bool(runner_of(pid).gone)


class _Held:
    """Tells whether a lookup in one container gives an old file; each is asked for once."""

    def __init__(self, trees: Trees, hiding: Hiding) -> None:
        self._trees = trees
        self._hiding = hiding
        self._known: dict[tuple[str, int], bool] = {}

    def is_old(self, path: str, inode: int) -> bool:
        """Whether the container still finds this file, and the base has another one, or none.

        A process in namespaces of its own may mean another tree by the path: that file is not
        what the lookup gives.
        """
        known = self._known.get((path, inode))
        if known is None:
            known = self._known[path, inode] = self._is_old(path.lstrip("/"), inode)
        return known

    def _is_old(self, path: str, inode: int) -> bool:
        merged = self._trees.merged.lstat(path)
        if merged is None or merged.st_ino != inode:
            return False
        base = staleness.file_of(self._trees.base.lstat(path))
        same = staleness.agree(base, staleness.file_of(merged))
        return not same and self._hiding.of(path) is Upper.ABSENT
