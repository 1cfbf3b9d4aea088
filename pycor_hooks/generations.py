# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of each base: its manifest, its generation, and what made the latest ones.

::

    /var/lib/pycor-hooks/        0700
      DAEMON/KEY/                as below /run/pycor-hooks; who writes holds flock(2) on it
        manifest                 generation and identity of the tree in its first line
        packages                 those that were installed then, with their versions
        changes.N                what turned generation N-1 into N

Below /var/lib because a base is upgraded across reboots: the first stop after one has to be
compared with what was before it, and the number of the generation must not begin again. Not in
the base's volume: what root in the base, or a snapshot restored, does to it must not reach this.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pycor_hooks import entryfile, instance, ledger, manifest
from pycor_hooks.errors import BadState
from pycor_hooks.instance import MANIFEST_MAGIC, Instance
from pycor_hooks.manifest import Touched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.ledger import Update
    from pycor_hooks.manifest import Change, Entry
    from pycor_hooks.plan import Base


def update(base: Base) -> Update | None:
    """Compare a stopped base with its manifest; if it changed, write that anew, and the changes.

    Returns:
        What was found; None where the base runs, or ran meanwhile: there is nothing to be told
        until it has stopped.

    Raises:
        FileNotFoundError: it has no rootfs.
        OSError: its tree cannot be read, or the manifest cannot be written.
    """
    what = Instance(*base)
    rootfs = what.rootfs()
    identity = instance.identity_of(rootfs)
    directory = _directory(what)
    with ledger.locked(directory):
        if what.running():
            return None
        try:
            found = ledger.compare(directory, rootfs, identity)
        except BadState:
            found = ledger.begin(directory, rootfs, identity)
        if found.is_new:
            ledger.begin_packages(directory, rootfs)
        if what.running() or instance.identity_of(rootfs) != identity:
            return None
        if found.is_new:
            ledger.publish(directory, found)
        return found


def entries(base: Base) -> Iterator[Entry]:
    """The manifest of a base.

    Raises:
        FileNotFoundError: there is none.
        BadState: it is damaged.
    """
    with entryfile.opened(f"{_directory(Instance(*base))}/manifest", MANIFEST_MAGIC) as (_, file):
        yield from entryfile.entries(file)


def packages(base: Base) -> dict[str, str]:
    """The packages that were installed when the manifest was written: version by name."""
    try:
        with ledger.text(f"{_directory(Instance(*base))}/packages", "r") as file:
            return dict(line.rstrip("\n").split("\t", 1) for line in file)
    except FileNotFoundError:
        return {}


def touched_since(base: Base, generation: int | None) -> Iterator[Touched]:
    """Every path that a base may have changed since one of its generations, and what it has there.

    Args:
        base: it has a rootfs.
        generation: the older one; None where it is not known. Where the changes are not known any
            more, or never were, every path of the manifest may have changed, none known to be
            altered.

    Raises:
        FileNotFoundError: there is no manifest.
        BadState: a file is damaged.
    """
    histories = _histories(base, generation)
    if histories is None:
        return (Touched(entry.path, entry) for entry in entries(base))
    return manifest.touched(histories)


def _histories(base: Base, generation: int | None) -> list[Iterator[Change]] | None:
    """The changes of each generation since one; None where that is not known."""
    what = Instance(*base)
    directory = _directory(what)
    now = instance.generation_of(what.daemon, what.key, instance.identity_of(what.rootfs()))
    if now is None or generation is None or generation > now:
        return None
    paths = [f"{directory}/changes.{number}" for number in range(generation + 1, now + 1)]
    if not all(os.path.exists(path) for path in paths):
        return None
    return [_changes(path) for path in paths]


def unwritten(base: Base) -> float | None:
    """When a stopped base last changed, where its manifest does not tell of that.

    Returns:
        The newest time of a change in its tree, in seconds since the epoch; None where its
        manifest is that of its tree as it is, or there is no tree, or it runs. A manifest that is
        damaged tells of nothing.

    Raises:
        OSError: the tree cannot be read.
    """
    what = Instance(*base)
    rootfs = what.rootfs()
    newest = 0

    def walked() -> Iterator[Entry]:
        nonlocal newest
        for entry in manifest.walk(rootfs):
            newest = max(newest, entry.ctime_ns)
            yield entry

    identity = instance.identity_now(rootfs)
    if identity is None or what.running():
        return None
    written = instance.generation_of(what.daemon, what.key, identity) is not None
    try:
        known = entries(base) if written else ()
        differing = sum(1 for _ in manifest.compare(known, walked()))
    except BadState:
        differing = sum(1 for _ in walked())
    return newest / 1e9 if differing and not what.running() else None


def began(base: Base) -> float | None:
    """When a base was last found changed, in seconds since the epoch; None where it never was."""
    try:
        return os.stat(f"{_directory(Instance(*base))}/manifest").st_mtime
    except FileNotFoundError:
        return None


def history(base: Base) -> Iterator[tuple[int, float, Iterator[Change]]]:
    """The updates of a base that are kept, the oldest first.

    Yields:
        The generation that each began, when that was (seconds since the epoch), and what changed.

    Raises:
        BadState: a file is damaged.
    """
    what = Instance(*base)
    directory = _directory(what)
    identity = instance.identity_now(what.rootfs())
    now = None if identity is None else instance.generation_of(what.daemon, what.key, identity)
    for generation in range(1, (now or 0) + 1)[-ledger.HISTORY :]:
        path = f"{directory}/changes.{generation}"
        with contextlib.suppress(FileNotFoundError):
            yield generation, os.stat(path).st_mtime, _changes(path)


def remove(daemon: str) -> bool:
    """Remove what is kept of the bases of a daemon, and nothing else; whether there was any."""
    home = os.path.dirname(instance.state_of(daemon, ""))
    removed = False
    for directory in (f"{home}/{key}" for key in _names(home)):
        for name in _names(directory):
            if name.partition(".")[0] in ledger.FILES:
                os.unlink(f"{directory}/{name}")
                removed = True
        _rmdir(directory)
    for directory in (home, instance.STATE):
        _rmdir(directory)
    return removed


def daemons() -> list[str]:
    """The daemons of whose bases something is kept, as names below STATE."""
    return _names(instance.STATE)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _rmdir(path: str) -> None:
    with contextlib.suppress(OSError):  # never made, or somebody has put something there
        os.rmdir(path)


def _directory(what: Instance) -> str:
    return instance.state_of(what.daemon, what.key)


def _changes(path: str) -> Iterator[Change]:
    with entryfile.opened(path, ledger.CHANGES_MAGIC) as (_, file):
        yield from entryfile.changes(file)
