# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that a cure copies up: into upper, and afterwards as the base's are.

As long as they hold nothing of the container's own, the container shall not notice that they are
copies: they get the base's mode, owner, mtime, extended attributes and ACLs at each converge.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pycor_hooks import attributes, staleness
from pycor_hooks.hiding import Hiding, Upper

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycor_hooks.attributes import Attributes
    from pycor_hooks.parents import Parents
    from pycor_hooks.staleness import Reason
    from pycor_hooks.trees import Trees


def copy_up(trees: Trees, parents: Parents, directories: Iterable[str]) -> dict[str, Reason]:
    """Have directories in upper, and take note of those that were not there before.

    fchown(2) that changes nothing copies a directory up, with those above it, and leaves it as
    it was.

    Args:
        trees: of the container.
        parents: its record, which is saved before the first of them comes.
        directories: paths that the container sees as directories.

    Returns:
        For each that could not be copied up, why.
    """
    hiding = Hiding(trees.upper)
    wanted = list(dict.fromkeys(directories))
    missing = {
        above
        for directory in wanted
        for above in _with_those_above(directory)
        if hiding.of(above) is Upper.ABSENT
    }
    of_base = {directory: _of(trees, directory) for directory in sorted(missing)}
    for directory, like in of_base.items():
        if like is not None:
            parents.add(directory, like)
    if missing:
        parents.save()
    reasons = {}
    for directory in wanted:
        try:
            descriptor = trees.merged.open(directory)
            try:
                _touch(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            reasons[directory] = staleness.of_errno(error.errno)
    note(trees, parents, [one for one, like in of_base.items() if like is None])
    return reasons


def note(trees: Trees, parents: Parents, directories: Sequence[str]) -> None:
    """Take note of what directories in upper are like now, as a cure has left them."""
    for directory in directories:
        with contextlib.suppress(OSError):  # the container has removed it
            descriptor = trees.upper.open(directory)
            try:
                parents.end(directory, attributes.of(descriptor))
            finally:
                os.close(descriptor)
    if directories:
        parents.save()


def outdated(trees: Trees, parents: Parents) -> list[str]:
    """The directories of ours that the base has, and that are not like the base's any more."""
    found = []
    for directory in parents.known:
        like = _of(trees, directory)
        if like is None or not parents.holds_nothing_own(directory, trees.upper):
            continue
        descriptor = trees.upper.open(directory)
        try:
            if str(attributes.of(descriptor)) != str(like):
                found.append(directory)
        finally:
            os.close(descriptor)
    return found


def begin(trees: Trees, parents: Parents, directories: Sequence[str]) -> None:
    """Take note of what :func:`renew` is about to change, so that a kill leaves it ours."""
    for directory in directories:
        like = _of(trees, directory)
        if like is not None:
            parents.begin(directory, like)
    if directories:
        parents.save()


def renew(trees: Trees, parents: Parents, directories: Sequence[str]) -> dict[str, Reason]:
    """Give directories of ours what the base's have, while the container is frozen.

    OverlayFS keeps mode and owner in an inode of its own, so each is touched through it, too.

    Returns:
        For each that could not be given all of it, why.
    """
    reasons = {}
    for directory in directories:
        like = _of(trees, directory)
        if like is None or not parents.holds_nothing_own(directory, trees.upper):
            continue
        try:
            for tree, touch in ((trees.upper, like.give), (trees.merged, _touch)):
                descriptor = tree.open(directory)
                try:
                    touch(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            reasons[directory] = staleness.of_errno(error.errno)
    return reasons


def _touch(descriptor: int) -> None:
    os.fchown(descriptor, -1, -1)


def _of(trees: Trees, directory: str) -> Attributes | None:
    """What a directory of the base is like, as upper stores it; None where the base has none."""
    try:
        descriptor = trees.base.open(directory)
    except OSError:
        return None
    try:
        return attributes.of(descriptor).shifted(trees.shift)
    finally:
        os.close(descriptor)


def _with_those_above(directory: str) -> list[str]:
    """The directory and each above it but the root, the uppermost first."""
    parts = directory.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)] if directory else []
