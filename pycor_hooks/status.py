# SPDX-License-Identifier: GPL-3.0-or-later
"""One row per live overlay: what is recorded, joined with what is mounted and what its base is.

:func:`rows` is pure. :func:`look` gathers what it needs from /run, the mount table and /proc
alone, so that it works while the daemons are down.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import live, mountinfo, plan, record, registry, takedown
from pycor_hooks.overlay import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pycor_hooks.live import BaseState
    from pycor_hooks.mountinfo import Mount
    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

# The fields of a row, a contract with whoever reads the JSON. Two that their names do not explain:
# `base` is NAME in the container's own project, else PROJECT/NAME; `pid` is the container's init.
KEYS = (
    *("daemon", "project", "name", "base", "base_state", "state", "pid", "merged", "lowerdirs"),
    *("upperdir", "upper_bytes", "started_at", "refreshed_at"),
)
MOUNTED = "mounted"
DETACHED = "detached"
ORPHANED = "orphaned"
MISSING = "missing"

Row = dict[str, object]


class Seen(NamedTuple):
    """What this host is like at one moment.

    `records` of all overlays; `mounts` of ours in the mount table, by mount point;
    `bases`, each as it is now; `gone` has the directories of overlays whose container is gone.
    """

    records: Sequence[Record]
    mounts: Mapping[str, Mount]
    bases: Mapping[Base, BaseState]
    gone: frozenset[str]


def look(daemons: list[str] | None = None) -> Seen:
    """Look at this host.

    Args:
        daemons: state directories to look at, None for all.
    """
    found = registry.records(daemons)
    return Seen(
        records=found,
        mounts=our_mounts(mountinfo.read(), daemons),
        bases={
            base: live.base_state(base, apart=plan.apart(records))
            for base, records in plan.by_base(found).items()
        },
        gone=frozenset(one.directory for one in found if takedown.gone(one)),
    )


def our_mounts(table: Iterable[Mount], daemons: list[str] | None = None) -> dict[str, Mount]:
    """The overlays below RUN, by mount point."""
    homes = [record.RUN]
    if daemons is not None:
        homes = [f"{record.RUN}/{record.escape(path)}" for path in daemons]
    below = tuple(f"{home}/" for home in homes)
    return {
        mount.target: mount
        for mount in table
        if mount.source == SOURCE
        and mount.target.startswith(below)
        and mount.target.endswith("/merged")
    }


def rows(seen: Seen) -> list[Row]:
    """The rows, by daemon, project and name; `upper_bytes` is None."""
    found = [_row(one, seen) for one in seen.records]
    recorded = {one.merged for one in seen.records}
    found += [_stray(mount) for path, mount in seen.mounts.items() if path not in recorded]
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
    base = plan.Base(one.daemon, one.base_project, one.base_name)
    now = seen.bases[base]
    gone = one.directory in seen.gone
    same_project = one.base_project == one.project
    return {
        "daemon": one.daemon,
        "project": one.project,
        "name": one.name,
        "base": one.base_name if same_project else f"{one.base_project}/{one.base_name}",
        "base_state": _base_state(now),
        "state": state_of(one, mounted=one.merged in seen.mounts, gone=gone, base=now),
        "pid": one.init or None,
        "merged": one.merged,
        "lowerdirs": list(one.lowerdirs),
        "upperdir": one.upperdir,
        "upper_bytes": None,
        "started_at": _time(one.started_at),
        "refreshed_at": _time(one.refreshed_at),
    }


def _base_state(base: BaseState) -> str:
    if base.identity is None:
        return "missing"
    if base.running:
        return "running"
    return "unknown" if base.identity == plan.UNKNOWN else "stopped"


def _stray(mount: Mount) -> Row:
    """The row of a mount without a record: all that is known is where it is."""
    directory = os.path.dirname(mount.target)
    project, name = record.split_key(os.path.basename(directory))
    upperdir = mount.layers("upperdir")
    return dict.fromkeys(KEYS) | {
        "daemon": record.unescape(os.path.basename(os.path.dirname(directory))),
        "project": project,
        "name": name,
        "state": ORPHANED,
        "merged": mount.target,
        "lowerdirs": mount.layers("lowerdir"),
        "upperdir": upperdir[0] if upperdir else None,
    }


def _time(seconds: float) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
