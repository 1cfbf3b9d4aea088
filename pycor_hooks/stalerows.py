# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of `stale`: who runs old code, since which update, and what could not be cured."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import generations, oldcode, restarting, status
from pycor_hooks.plan import name_of
from pycor_hooks.restarting import Way

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pycor_hooks.oldcode import Found, Runner
    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

Row = dict[str, object]

# A row for each unit, or process without one, that runs old code: `pid` is the first such process
# as the host numbers it, `files` what is old of its code, `reason` null. And one for each path
# that could not be cured: `reason` has the word for it, `files` the path alone; `unit`, `pid` and
# `command` are null. `generation` is that of the base which made it stale, the oldest of several,
# and `since` when that began; null where the container itself has replaced the file, or where it
# was too long ago. `remedy` is for people.
KEYS = (
    *("daemon", "project", "instance", "base", "unit", "pid", "command", "files"),
    *("since", "generation", "reason", "remedy"),
)


class Update(NamedTuple):
    """What one generation of a base did to a path; `old` is the inode before, None for none."""

    generation: int
    time: float
    old: int | None


class Seen(NamedTuple):
    """What is stale on one base.

    `updates`: those of each path that somebody has an old file of, the oldest first. `there`:
    whether the volumes could be looked at; else it is what was noted of them before.
    """

    base: Base
    found: Sequence[Found]
    updates: Mapping[str, Sequence[Update]]
    there: bool = True


def look(base: Base, records: Iterable[Record]) -> Seen:
    """Look at the containers on one base.

    Raises:
        PycorError, OSError, ValueError: as :func:`pycor_hooks.oldcode.look`, or what is kept of
            the base is damaged.
    """
    records = list(records)
    with oldcode.reached(base, records) as there:
        unwritten = generations.unwritten(base) if there else None
        found = oldcode.look_at(base, records, there=there, unwritten=unwritten)
        wanted = {
            path
            for one in found
            for runner in one.runners
            for path in (*_files(runner), *runner.scripts)
        }
        wanted |= {one.path for each in found for one in each.uncured}
        return Seen(base, found, _updates(base, wanted), there)


def _updates(base: Base, wanted: Collection[str]) -> dict[str, list[Update]]:
    known: dict[str, list[Update]] = {}
    if wanted:
        for generation, time, changes in generations.history(base):
            for change in changes:
                path = f"/{change.path}"
                if path in wanted:
                    old = change.old.ino if change.old else None
                    known.setdefault(path, []).append(Update(generation, time, old))
    return known


def rows(seen: Seen) -> list[Row]:
    """The rows, by project and name: of each container first who runs old code, then paths."""
    by_name = sorted(seen.found, key=lambda one: (one.record.project, one.record.name))
    return [row for one in by_name for row in (*_units(one, seen), *_paths(one, seen))]


def _units(found: Found, seen: Seen) -> list[Row]:
    """One for each unit, or process without one."""
    groups: dict[str, list[Runner]] = {}
    for runner in found.runners:
        groups.setdefault(restarting.title(runner), []).append(runner)
    return [_unit(found, runners, seen) for _, runners in sorted(groups.items())]


def _unit(found: Found, runners: Sequence[Runner], seen: Seen) -> Row:
    files = {path: inode for runner in runners for path, inode in _files(runner).items()}
    known = [
        update
        for path, inode in files.items()
        for update in seen.updates.get(path, ())
        if update.old == inode
    ]
    scripts = {path: began for runner in runners for path, began in runner.scripts.items()}
    known += [
        update
        for path, began in scripts.items()
        for update in seen.updates.get(path, ())
        if began < update.time
    ]
    first = runners[0]
    return {
        **_container(found.record),
        "unit": first.unit,
        "pid": first.pid,
        "command": first.command,
        "files": sorted({*files, *scripts}),
        **_since(known),
        "reason": None,
        "remedy": _remedy({restarting.way(runner) for runner in runners}, found.record),
    }


def _files(runner: Runner) -> dict[str, int]:
    return runner.gone | runner.held


def _remedy(ways: Collection[Way], record: Record) -> str:
    name = name_of(record)
    if Way.CONTAINER in ways:
        return f"restart container {name}"
    if Way.NONE in ways and len(ways) == 1:
        return f"run pycor-hooks remount {name}, then pycor-hooks restart {name}"
    return f"run pycor-hooks restart {name}"


def _paths(found: Found, seen: Seen) -> list[Row]:
    """One for each path that could not be cured."""
    record = found.record
    converged = record.converged or 0
    made: list[Row] = []
    for one in found.uncured:
        known = [each for each in seen.updates.get(one.path, ()) if each.generation > converged]
        made.append(
            {
                **_container(record),
                **dict.fromkeys(("unit", "pid", "command")),
                "files": [one.path],
                **_since(known),
                "reason": one.reason.word,
                "remedy": one.reason.remedy(name_of(record)),
            }
        )
    return made


def _since(updates: Iterable[Update]) -> Row:
    update = min(updates, key=attrgetter("generation"), default=None)
    if update is None:
        return {"since": None, "generation": None}
    return {"since": status.moment(update.time), "generation": update.generation}


def _container(record: Record) -> Row:
    return {
        "daemon": record.daemon,
        "project": record.project,
        "instance": record.name,
        "base": status.base_label(record),
    }
