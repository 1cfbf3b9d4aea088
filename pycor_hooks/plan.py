# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about an event or a look at a base: pure decisions over plain values; no I/O.

The unit of work is the base: an event names an instance, and if live overlays stand on it,
the base is looked at. What is then done depends on what is seen, not on what the event said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pycor_hooks import rawlxc
from pycor_hooks.errors import printable
from pycor_hooks.events import Change

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from pycor_hooks.events import LifecycleEvent
    from pycor_hooks.record import Record

PATIENCE = 5.0
"""Seconds for which a base that was said to have stopped may still be seen running."""


UNKNOWN = ""
"""The identity of a base that cannot be looked at while its daemon is down."""


class Base(NamedTuple):
    """An instance that overlays stand on; `daemon` is the state directory."""

    daemon: str
    project: str
    name: str

    def __str__(self) -> str:
        return label(self.project, self.name)


def label(project: str, name: str) -> str:
    """Return a name as people write it: the project before it, but for the default one.

    The daemons let projects and profiles be called anything; what is no plain text is escaped.
    """
    return printable(name if project == "default" else f"{project}/{name}")


def name_of(found: Record) -> str:
    """What people call the container of a record."""
    return label(found.project, found.name)


@dataclass(frozen=True, slots=True)
class Look:
    """Look at a base.

    `why`: what is said to have happened to it, "" when it is looked at as a matter of routine.
    `patience`: seconds for which it may be seen running still, and is looked at again.
    `name_is_gone`: it was renamed or deleted.
    """

    base: Base
    why: str = ""
    patience: float = 0.0
    name_is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the overlays of one base.

    `pending`: refresh them when the base stops. `detached`: those for which no refresh will do.
    """

    refresh: Sequence[Record]
    pending: bool
    detached: Sequence[Record]


def base_of(record: Record) -> Base:
    """The base that a live overlay stands on."""
    return Base(record.daemon, record.base_project, record.base_name)


def by_base(records: Iterable[Record]) -> dict[Base, list[Record]]:
    """Sort live overlays by the base that they stand on."""
    bases: dict[Base, list[Record]] = {}
    for record in records:
        bases.setdefault(base_of(record), []).append(record)
    return bases


def apart(records: Iterable[Record]) -> bool:
    """Tell whether the volumes of these containers are in a mount namespace of their daemon's."""
    return any(record.namespace for record in records)


def react(event: LifecycleEvent, daemon: str, bases: Container[Base]) -> list[Look]:
    """Decide which of the bases an event concerns: one, none, or both names of a rename.

    On which cluster member it happened does not matter: an instance has one home,
    and whatever the event said, the base is looked at on this host.

    Args:
        event: what was said.
        daemon: the state directory of the daemon that said it.
        bases: those which live overlays stand on.
    """
    base = Base(daemon, event.project, event.name)
    if event.change is Change.RENAMED:
        looks = [
            Look(
                base._replace(name=event.old_name), f"renamed to {event.name}", name_is_gone=True
            ),
            Look(base, f"renamed from {event.old_name}"),
        ]
    else:
        patience = PATIENCE if event.change is Change.STOPPED else 0.0
        gone = event.change is Change.DELETED
        looks = [Look(base, event.change.name.lower(), patience, name_is_gone=gone)]
    return [look for look in looks if look.base in bases]


def react_to_flood(daemons: Container[str], bases: Iterable[Base]) -> list[Look]:
    """Decide what to look at when some daemons said more than could be kept: all their bases.

    Args:
        daemons: their state directories.
        bases: those which live overlays stand on.
    """
    why = "too many events at once"
    return [Look(base, why, PATIENCE) for base in bases if base.daemon in daemons]


def decide(overlays: Sequence[Record], *, running: bool, identity: str | None) -> Decision:
    """Decide what to do with the overlays of one base, from what the base is now.

    An overlay whose base was re-owned is refreshed all the same: a restart alone cures its
    owners, but the mixture of old and new files goes at once.

    Args:
        overlays: the live ones on this base.
        running: whether the base runs.
        identity: of the base's rootfs now, None when there is none, UNKNOWN while it cannot be
            looked at: then nothing is said of what is detached.
    """
    return Decision(
        refresh=() if running or identity is None else overlays,
        pending=running,
        detached=[
            overlay for overlay in overlays if identity not in {UNKNOWN, overlay.lower_identity}
        ],
    )


def profiles_naming(base: Base, profiles: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return the profiles whose raw.lxc names a base, as PROJECT/NAME or NAME.

    A bare name in a profile of the default project counts in every project: it may be
    used there (features.profiles=false), and is then looked up in the container's own project.

    Args:
        base: under the name to look for.
        profiles: pairs of project and the API's profile object.
    """
    found = []
    for project, profile in profiles:
        text = (profile.get("config") or {}).get("raw.lxc", "")
        home, _, name = (rawlxc.base(text) or "").rpartition("/")
        fits = home == base.project if home else project in {base.project, "default"}
        if name == base.name and fits:
            found.append(label(project, profile["name"]))
    return found
