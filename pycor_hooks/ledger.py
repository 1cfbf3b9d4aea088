# SPDX-License-Identifier: GPL-3.0-or-later
"""Who writes what is kept of a base: begun beside its name, and published as a whole.

Every function has the directory of the base, see :mod:`pycor_hooks.generations`, locked by
:func:`locked`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import IO, TYPE_CHECKING, NamedTuple

from pycor_hooks import dpkg, entryfile, instance, manifest
from pycor_hooks.errors import BadState
from pycor_hooks.instance import MANIFEST_MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator

HISTORY = 32
"""Generations whose changes are kept: who is further behind is compared as a whole."""
CHANGES_MAGIC = "pycor-hooks-changes-1"
FILES = frozenset(("manifest", "packages", "changes"))
"""What the files are called, up to the first dot."""


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


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Make and lock the directory of a base; what is begun in it and not published goes."""
    try:
        descriptor = _open(directory)
    except FileNotFoundError:  # an uninstall removed a part of it in the same instant
        descriptor = _open(directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            for name in FILES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{directory}/{name}.new")
    finally:
        os.close(descriptor)


def _open(directory: str) -> int:
    for path in (instance.STATE, os.path.dirname(directory), directory):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def compare(directory: str, rootfs: str, identity: str) -> Update:
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
            return begin(directory, rootfs, identity)
        before, tree = _head(words, directory)
        if not instance.same_tree(tree, identity):
            return begin(directory, rootfs, identity)
        counts = dict.fromkeys(manifest.KINDS, 0)
        new, changes = (
            stack.enter_context(entryfile.begun(f"{directory}/{name}.new", line))
            for name, line in (
                ("manifest", f"{MANIFEST_MAGIC} {before + 1} {identity}"),
                ("changes", CHANGES_MAGIC),
            )
        )
        walked = entryfile.copied(new, manifest.walk(rootfs))
        for change in manifest.compare(entryfile.entries(old), walked):
            counts[change.kind] += 1
            entryfile.put_change(changes, change)
        return Update(before + 1 if any(counts.values()) else before, counts)


def begin(directory: str, rootfs: str, identity: str) -> Update:
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
        numbers.append(_head(words, directory)[0])
    numbers += [number for number, _ in _history(directory)]
    return max(numbers)


def _head(words: list[str], directory: str) -> tuple[int, str]:
    """The generation and the tree that the first line of a manifest names."""
    try:
        generation, tree = words
        return int(generation), tree
    except ValueError as error:
        reason = "its first line is cut off or garbled"
        raise BadState(path=f"{directory}/manifest", reason=reason) from error


def _history(directory: str) -> list[tuple[int, str]]:
    """The changes that are kept: generation and path of each."""
    names = [name.rpartition(".")[2] for name in os.listdir(directory)]
    return [(int(name), f"{directory}/changes.{name}") for name in names if name.isdecimal()]


def begin_packages(directory: str, rootfs: str) -> None:
    """Write which packages there are, for people, to whom a version says more than an inode."""
    root = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with text(f"{directory}/packages.new", "w") as file:
            file.writelines(f"{name}\t{version}\n" for name, version in dpkg.installed(root))
    finally:
        os.close(root)


def text(path: str, mode: str) -> IO[str]:
    """Open a file of lines that a base may have chosen: a newline alone ends one."""
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="\n")


def publish(directory: str, found: Update) -> None:
    """Put the files in their places; the manifest last, since it says the generation."""
    kept = f"{directory}/changes.{found.generation}"
    if found.counts is not None:
        entryfile.publish(f"{directory}/changes.new", kept)
    for name in ("packages", "manifest"):
        entryfile.publish(f"{directory}/{name}.new", f"{directory}/{name}")
    for number, path in _history(directory):
        if number <= found.generation - HISTORY or found.counts is None:
            os.unlink(path)
