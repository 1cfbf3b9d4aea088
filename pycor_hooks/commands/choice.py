# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers and bases are meant by the words on the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from pycor_hooks import whereabouts
from pycor_hooks.host_errors import NotFound, NotLive
from pycor_hooks.instance import Instance
from pycor_hooks.plan import Base, by_base, label
from pycor_hooks.sockets import find_daemons

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pycor_hooks.record import Record

T = TypeVar("T")


def parse_label(text: str) -> tuple[str, str]:
    """Project and name of what was written as NAME or PROJECT/NAME."""
    project, _, name = text.rpartition("/")
    return project or "default", name


def pick(names: Sequence[str], found: Iterable[tuple[tuple[str, str], T]]) -> list[T]:
    """Those that were named, in the order in which they were found.

    Args:
        names: [PROJECT/]NAME each; a name may be that of containers in several daemons.
        found: project and name, with what is to be picked.

    Raises:
        NotLive: one of the names is not among them.
    """
    wanted = {parse_label(name) for name in names}
    known = list(found)
    unknown = sorted(label(*one) for one in wanted - {key for key, _ in known})
    if unknown:
        raise NotLive(names=", ".join(unknown))
    return [one for key, one in known if key in wanted]


def containers(
    records: Sequence[Record], names: Sequence[str], base: str | None, directories: Sequence[str]
) -> list[Record]:
    """Those that were named, and those on a base that was; all where neither was.

    Args:
        records: the live overlays.
        names: [PROJECT/]NAME of containers.
        base: the same of a base, on which no container has to run.
        directories: where that base is looked for, as :func:`bases` has it.

    Raises:
        NotLive: one of the names is not among them.
        NotFound: there is no such base.
    """
    if not names and base is None:
        return list(records)
    chosen = pick(names, (((one.project, one.name), one) for one in records))
    if base is not None:
        on_it = [one for one in records if (one.base_project, one.base_name) == parse_label(base)]
        if not on_it:
            bases(base, directories, by_base(records))
        chosen += [one for one in on_it if one not in chosen]
    return chosen


def bases(name: str, directories: Sequence[str], used: Collection[Base]) -> list[Base]:
    """The bases that a name may mean: one for each daemon that has it.

    Args:
        name: [PROJECT/]NAME.
        directories: the state directories that --daemon gave.
        used: those of any name which containers run on: they need not be looked for.

    Raises:
        NotFound: there is none.
        DaemonDown: it cannot be told, as only the daemon sees its volumes.
    """
    daemons = {daemon.directory for daemon in find_daemons(directories)}
    daemons |= {base.daemon for base in used}
    called = [Base(daemon, *parse_label(name)) for daemon in sorted(daemons)]
    found = [base for base in called if base in used or _is_there(base)]
    if not found:
        raise NotFound(name=name, directories=", ".join(sorted(daemons)) or "any daemon")
    return found


def _is_there(base: Base) -> bool:
    with whereabouts.shown(base.daemon):
        return os.path.isdir(Instance(*base).rootfs())
