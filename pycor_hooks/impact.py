# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stop of a base would bring: what has changed in it, and who uses what has changed.

Looked at while the base runs, or when it has stopped and no manifest was written yet. Nothing is
changed by it. :func:`rows` is pure.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import dpkg, generations, instance, manifest, procs
from pycor_hooks.beneath import Tree
from pycor_hooks.host_errors import NoManifest
from pycor_hooks.instance import Instance
from pycor_hooks.plan import label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pycor_hooks.manifest import Change
    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

Row = dict[str, object]

# A row for each package with something changed, and each unit that uses some of that: whoever
# reads the JSON can count either. `package` is None for files of none, `version` and
# `new_version` where it is not, or not any more, installed; `instance` where nobody uses it.
USER_KEYS = ("project", "instance", "unit", "pid", "command", "files")
KEYS = ("daemon", "base", "package", "version", "new_version", *manifest.KINDS, *USER_KEYS)


class User(NamedTuple):
    """A process of a container, and the changed paths that it has open or mapped."""

    record: Record
    unit: str | None
    pid: int
    command: str
    paths: frozenset[str]


class Seen(NamedTuple):
    """What there is to tell about a base.

    `changes` since its manifest, directories left out in which only names came and went;
    `owners`, the package of each path that has one; `before` and `now`, the versions of the
    packages; `users`, in the order of their pids.
    """

    base: Base
    changes: Sequence[Change]
    owners: Mapping[str, str]
    before: Mapping[str, str]
    now: Mapping[str, str]
    users: Sequence[User]


def look(base: Base, records: Iterable[Record]) -> Seen:
    """Look at a base and at those who run on it.

    Args:
        base: it may run.
        records: of the live overlays on it.

    Raises:
        NoManifest: there is nothing to compare with.
        OSError: its tree cannot be read.
    """
    what = Instance(*base)
    rootfs = what.rootfs()
    try:
        identity = instance.identity_of(rootfs)
    except (FileNotFoundError, NotADirectoryError):
        raise NoManifest(base=base, reason="has no rootfs") from None
    if instance.generation_of(what.daemon, what.key, identity) is None:
        raise NoManifest(base=base, reason="has no manifest yet")
    changes = list(manifest.compare(generations.entries(base), manifest.walk(rootfs)))
    root = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owners = dpkg.owners(root, {change.path for change in changes})
        now = dict(dpkg.installed(root))
    finally:
        os.close(root)
    before = generations.packages(base)
    return Seen(base, changes, owners, before, now, users_of(changes, records))


def users_of(changes: Iterable[Change], records: Iterable[Record]) -> list[User]:
    """Who uses what has changed: each process that holds the base's old file.

    Not one that holds what its container has of its own in that place.
    """
    gone = {change.path: change for change in changes if change.old}
    by_init = {record.init: record for record in records if record.init}
    found = []
    for init, pids in procs.of_containers(by_init).items():
        record = by_init[init]
        with contextlib.suppress(FileNotFoundError), Tree(record.upperdir) as upper:
            for pid in pids:
                paths = frozenset(
                    used.path.lstrip("/")
                    for used in procs.used(pid)
                    if _is_old(used, gone) and upper.lstat(used.path.lstrip("/")) is None
                )
                if paths:
                    found.append(User(record, procs.unit(pid), pid, procs.command(pid), paths))
    return found


def _is_old(used: procs.Used, gone: Mapping[str, Change]) -> bool:
    """Whether a process uses what a change has taken away.

    The numbers of directories may be OverlayFS's own; files have those of the base.
    """
    change = gone.get(used.path.lstrip("/"))
    if used.deleted or change is None or change.old is None:
        return False
    return stat.S_ISDIR(change.old.mode) or used.ino == change.old.ino


def rows(seen: Seen) -> list[Row]:
    """The rows, by package; files of none come last."""
    counts: dict[str | None, Counter[str]] = {}
    for change in seen.changes:
        if counts_as_change(change):
            counts.setdefault(seen.owners.get(change.path), Counter())[change.kind] += 1
    for name in seen.before.keys() | seen.now.keys():
        if seen.before.get(name) != seen.now.get(name):
            counts.setdefault(name, Counter())
    found: list[Row] = []
    for package in sorted(counts, key=lambda name: (name is None, name or "")):
        row: Row = {
            "daemon": seen.base.daemon,
            "base": label(seen.base.project, seen.base.name),
            "package": package,
            "version": seen.before.get(package or ""),
            "new_version": seen.now.get(package or ""),
            **{kind: counts[package][kind] for kind in manifest.KINDS},
        }
        nobody: list[Row] = [dict.fromkeys(USER_KEYS)]
        found += [row | user for user in _of_users(package, seen) or nobody]
    return found


def counts_as_change(change: Change) -> bool:
    """Whether a change is one of what a package holds: directories are everybody's."""
    sides = (change.old, change.new)
    directory = any(side and stat.S_ISDIR(side.mode) for side in sides)
    return change.kind == manifest.REPLACED or not directory


def _of_users(package: str | None, seen: Seen) -> list[Row]:
    """One for each unit, or process without one, that uses a changed file of a package."""
    found: dict[tuple[str, str], tuple[User, set[str]]] = {}
    for user in seen.users:
        files = {f"/{path}" for path in user.paths if seen.owners.get(path) == package}
        if files:
            key = user.record.key, user.unit or f"{user.pid:08}"
            found.setdefault(key, (user, set()))[1].update(files)
    return [
        {
            "project": user.record.project,
            "instance": user.record.name,
            "unit": user.unit,
            "pid": user.pid,
            "command": user.command,
            "files": sorted(files),
        }
        for _, (user, files) in sorted(found.items())
    ]
