# SPDX-License-Identifier: GPL-3.0-or-later
"""One row per live overlay: what is recorded, joined with what is mounted and what its base is.

:func:`rows` is pure. :func:`look` gathers what it needs from /run, the mount table and /proc
alone, so that it works while the daemons are down.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import instance, live, lost, mountinfo, plan, registry, takedown
from pycor_hooks.live import BaseState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pycor_hooks.mountinfo import Mount
    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

# The fields of a row, a contract with whoever reads the JSON. What their names do not explain:
# `base` is NAME in the container's own project, else PROJECT/NAME; `pid` is the container's init;
# `generation` is the base's, `converged` the one of which this container holds nothing older.
KEYS = (
    *("daemon", "project", "name", "base", "base_state", "state", "pid", "merged", "lowerdirs"),
    *("upperdir", "upper_bytes", "started_at", "refreshed_at", "generation", "converged"),
)
MOUNTED = "mounted"
DETACHED = "detached"
ORPHANED = "orphaned"
UNRECORDED = "unrecorded"
MISSING = "missing"

Row = dict[str, object]


class Seen(NamedTuple):
    """What this host is like at one moment.

    `records` of all overlays; `mounts` of ours in the mount table, by mount point;
    `bases`, each as it is now, and their `generations`, None where one is not known;
    `gone` has the directories of overlays whose container is gone;
    `lost` is what can be told of mounted overlays that have no sound record.
    """

    records: Sequence[Record]
    mounts: Mapping[str, Mount]
    bases: Mapping[Base, BaseState]
    generations: Mapping[Base, int | None]
    gone: frozenset[str]
    lost: Sequence[Record] = ()


def look(daemons: list[str] | None = None) -> Seen:
    """Look at this host.

    Args:
        daemons: state directories to look at, None for all.
    """
    found, without = registry.records(daemons), lost.records(daemons)
    everything = [*found, *without]
    bases = {base: _look_at(base, users) for base, users in plan.by_base(everything).items()}
    return Seen(
        records=found,
        mounts=lost.our_mounts(mountinfo.read(), daemons),
        bases=bases,
        generations={base: _generation(base, state) for base, state in bases.items()},
        gone=frozenset(one.directory for one in everything if takedown.gone(one)),
        lost=without,
    )


def _look_at(base: Base, users: Sequence[Record]) -> BaseState:
    """A base as it is; UNKNOWN where its pool gives errors, and the rows of others are shown."""
    try:
        return live.base_state(base, apart=plan.apart(users))
    except OSError:
        return BaseState(running=instance.Instance(*base).running(), identity=plan.UNKNOWN)


def rows(seen: Seen) -> list[Row]:
    """The rows, by daemon, project and name; `upper_bytes` is None."""
    found = [_row(one, seen) for one in seen.records]
    found += [_row(one, seen) | _unrecorded(one, seen) for one in seen.lost]
    return sorted(found, key=lambda row: tuple(str(row[key]) for key in KEYS[:3]))


def state_of(one: Record, *, mounted: bool, gone: bool, base: BaseState) -> str:
    """The state of a recorded overlay.

    Args:
        one: its record.
        mounted: whether it is in the mount table.
        gone: whether its container's monitor and init are.
        base: its base, now.
    """
    if not mounted:
        return MISSING
    if gone:
        return ORPHANED
    return MOUNTED if base.identity in {plan.UNKNOWN, one.lower_identity} else DETACHED


def _row(one: Record, seen: Seen) -> Row:
    base = plan.base_of(one)
    now = seen.bases[base]
    gone = one.directory in seen.gone
    return {
        "daemon": one.daemon,
        "project": one.project,
        "name": one.name,
        "base": base_label(one),
        "base_state": _base_state(now),
        "state": state_of(one, mounted=one.merged in seen.mounts, gone=gone, base=now),
        "pid": one.init or None,
        "merged": one.merged,
        "lowerdirs": list(one.lowerdirs),
        "upperdir": one.upperdir,
        "upper_bytes": None,
        "started_at": moment(one.started_at),
        "refreshed_at": moment(one.refreshed_at),
        "generation": seen.generations[base],
        "converged": one.converged,
    }


def _generation(base: Base, state: BaseState) -> int | None:
    what = instance.Instance(*base)
    if state.identity is None:
        return None
    return instance.generation_of(what.daemon, what.key, state.identity)


def _base_state(base: BaseState) -> str:
    if base.identity is None:
        return "missing"
    if base.running:
        return "running"
    return "unknown" if base.identity == plan.UNKNOWN else "stopped"


def _unrecorded(one: Record, seen: Seen) -> Row:
    """What is different in the row of an overlay whose record is lost."""
    known = {} if one.base_name else {"base": None, "base_state": None}
    state = ORPHANED if one.directory in seen.gone else UNRECORDED
    return known | {"state": state, "upperdir": one.upperdir or None, "refreshed_at": None}


def base_label(one: Record) -> str:
    """The base of a container: NAME in the container's own project, else PROJECT/NAME."""
    same = one.base_project == one.project
    return one.base_name if same else f"{one.base_project}/{one.base_name}"


def moment(seconds: float) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
