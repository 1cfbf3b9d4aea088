# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of each base: its manifest, its generation, and what made the latest ones.

::

    /var/lib/pycor-hooks/        0700
      DAEMON/KEY/                as below /run/pycor-hooks; who writes holds flock(2) on it
        manifest                 generation and identity of the tree in its first line
        changes.N                what turned generation N-1 into N

Below /var/lib because a base is upgraded across reboots: the first stop after one has to be
compared with what was before it, and the number of the generation must not begin again. Not in
the base's volume: what root in the base, or a snapshot restored, does to it must not reach this.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import entryfile, instance, manifest
from pycor_hooks.errors import BadState
from pycor_hooks.instance import MANIFEST_MAGIC, Instance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.manifest import Change, Entry
    from pycor_hooks.plan import Base

HISTORY = 32
"""Generations whose changes are kept: who is further behind is compared as a whole."""

_CHANGES_MAGIC = "pycor-hooks-changes-1"


class Update(NamedTuple):
    """What a look at a stopped base found.

    `generation` is the one that it is in now; `counts` has the number of changes by kind, and is
    None where there was nothing to compare with: the first manifest, or that of another tree.
    """

    generation: int
    counts: dict[str, int] | None

    @property
    def is_new(self) -> bool:
        """Whether the generation began now."""
        return self.counts is None or any(self.counts.values())


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
    with _locked(what) as directory:
        if what.running():
            return None
        try:
            found = _compare(directory, rootfs, identity)
        except BadState:
            found = _begin(directory, rootfs, identity)
        if what.running() or instance.identity_of(rootfs) != identity:
            return None
        if found.is_new:
            _publish(directory, found)
        return found


def entries(base: Base) -> Iterator[Entry]:
    """The manifest of a base.

    Raises:
        FileNotFoundError: there is none.
        BadState: it is damaged.
    """
    with entryfile.opened(f"{_directory(Instance(*base))}/manifest", MANIFEST_MAGIC) as (_, file):
        yield from entryfile.entries(file)


def changes_since(base: Base, generation: int | None) -> Iterator[Change] | None:
    """What changed in a base since one of its generations, up to the one of its manifest.

    Args:
        base: it has a rootfs.
        generation: the older one; None where it is not known.

    Returns:
        The changes, each path once; None where they are not known any more, or never were: then
        every path may have changed.
    """
    histories = _histories(base, generation)
    return None if histories is None else manifest.join(histories)


def touched_since(base: Base, generation: int | None) -> Iterator[tuple[str, Entry | None]]:
    """Every path that a base may have changed since one of its generations, and what it has there.

    Args:
        base, generation: as for :func:`changes_since`; where that does not know, every path of
            the manifest.

    Raises:
        FileNotFoundError: there is no manifest.
        BadState: a file is damaged.
    """
    histories = _histories(base, generation)
    if histories is None:
        return ((entry.path, entry) for entry in entries(base))
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


def remove(daemon: str) -> bool:
    """Remove what is kept of the bases of a daemon, and nothing else; whether there was any."""
    removed = False
    for parent, _, names in os.walk(instance.state_of(daemon, ""), topdown=False):
        for name in names:
            if name.partition(".")[0] in {"manifest", "changes"}:
                os.unlink(f"{parent}/{name}")
                removed = True
        _rmdir(parent)
    _rmdir(instance.STATE)
    return removed


def _rmdir(path: str) -> None:
    with contextlib.suppress(OSError):  # never made, or somebody has put something there
        os.rmdir(path)


def _directory(what: Instance) -> str:
    return instance.state_of(what.daemon, what.key)


@contextlib.contextmanager
def _locked(what: Instance) -> Iterator[str]:
    """Make and lock the directory of a base; what was begun in it and not published goes."""
    directory = _directory(what)
    try:
        descriptor = _open(directory)
    except FileNotFoundError:  # an uninstall removed a part of it in the same instant
        descriptor = _open(directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            for name in ("manifest.new", "changes.new"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{directory}/{name}")
    finally:
        os.close(descriptor)


def _open(directory: str) -> int:
    for path in (instance.STATE, os.path.dirname(directory), directory):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _compare(directory: str, rootfs: str, identity: str) -> Update:
    """Write manifest and changes beside their names, whether or not they will be needed.

    Raises:
        BadState: the manifest is damaged.
    """
    with contextlib.ExitStack() as stack:
        try:
            words, old = stack.enter_context(
                entryfile.opened(f"{directory}/manifest", MANIFEST_MAGIC)
            )
        except FileNotFoundError:
            return _begin(directory, rootfs, identity)
        before = int(words[0])
        if not instance.same_tree(words[1], identity):
            return _begin(directory, rootfs, identity)
        counts = dict.fromkeys(manifest.KINDS, 0)
        new, changes = (
            stack.enter_context(entryfile.begun(f"{directory}/{name}.new", line))
            for name, line in (
                ("manifest", f"{MANIFEST_MAGIC} {before + 1} {identity}"),
                ("changes", _CHANGES_MAGIC),
            )
        )
        walked = entryfile.copied(new, manifest.walk(rootfs))
        for change in manifest.compare(entryfile.entries(old), walked):
            counts[change.kind] += 1
            entryfile.put_change(changes, change)
        return Update(before + 1 if any(counts.values()) else before, counts)


def _begin(directory: str, rootfs: str, identity: str) -> Update:
    """Write a manifest that is compared with nothing."""
    generation = _last(directory) + 1
    line = f"{MANIFEST_MAGIC} {generation} {identity}"
    with entryfile.begun(f"{directory}/manifest.new", line) as new:
        for entry in manifest.walk(rootfs):
            entryfile.put(new, entry)
    return Update(generation, None)


def _last(directory: str) -> int:
    """The newest generation that left a trace, 0 where none did."""
    numbers = [0]
    with (
        contextlib.suppress(FileNotFoundError, BadState),
        entryfile.opened(f"{directory}/manifest", MANIFEST_MAGIC) as (words, _),
    ):
        numbers.append(int(words[0]))
    numbers += [number for number, _ in _history(directory)]
    return max(numbers)


def _history(directory: str) -> list[tuple[int, str]]:
    """The changes that are kept: generation and path of each."""
    names = [name.rpartition(".")[2] for name in os.listdir(directory)]
    return [(int(name), f"{directory}/changes.{name}") for name in names if name.isdecimal()]


def _publish(directory: str, found: Update) -> None:
    """Put the files in their places; the manifest last, since it says the generation."""
    kept = f"{directory}/changes.{found.generation}"
    if found.counts is not None:
        entryfile.publish(f"{directory}/changes.new", kept)
    entryfile.publish(f"{directory}/manifest.new", f"{directory}/manifest")
    for number, path in _history(directory):
        if number <= found.generation - HISTORY or found.counts is None:
            os.unlink(path)


def _changes(path: str) -> Iterator[Change]:
    with entryfile.opened(path, _CHANGES_MAGIC) as (_, file):
        yield from entryfile.changes(file)
