# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding overlays again whose record or whose path is lost; sweeping up records without a mount.

What is mounted is true, and what is recorded has to follow it. So a record that is missing or
unreadable, by a newer version's hand too, is made anew from the mount table; and one of an
overlay that is not mounted is of no use to anybody.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import (
    hidden,
    instance,
    kernel,
    lost,
    mountinfo,
    record,
    registry,
    takedown,
    whereabouts,
)
from pycor_hooks.errors import PycorError, StillHeld
from pycor_hooks.host_errors import BaseUntold
from pycor_hooks.plan import label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycor_hooks.record import Record


class Finding(NamedTuple):
    """What was found of a container's overlay, and whether it could not be mended."""

    name: str
    text: str
    failed: bool = False


def recover(daemons: list[str] | None = None) -> list[Finding]:
    """Find everything again that was lost.

    Args:
        daemons: state directories to look at, None for all.
    """
    mounts = lost.our_mounts(mountinfo.read(), daemons)
    found: list[Finding] = []
    for mount in hidden.among(mounts.values()):
        found += _tried(os.path.dirname(mount.target), functools.partial(_resurface, mount))
    for directory in registry.directories(daemons):
        if os.path.isdir(directory) and takedown.recorded(directory) is None:
            found += _tried(directory, functools.partial(settle, directory))
    return found


def _tried(directory: str, mend: Callable[[], str]) -> Iterator[Finding]:
    name = label(*record.split_key(os.path.basename(directory)))
    try:
        text = mend()
    except StillHeld:
        return  # by a hook, which makes or removes the record right now
    except (OSError, PycorError) as error:
        yield Finding(name, f"cannot be recorded anew: {error}", failed=True)
    else:
        if text:
            yield Finding(name, text)


def _resurface(mount: mountinfo.Mount) -> str:
    hidden.resurface(mount)
    return "was hidden below another mount, and is back at its place"


def settle(directory: str) -> str:
    """See to an overlay's directory that has no sound record.

    Returns:
        What to say about it, "" for nothing.

    Raises:
        StillHeld: a hook is at it.
        DaemonDown: its base can be seen by its daemon only.
        BaseUntold: which one that is, nothing tells.
    """
    with registry.Lock(directory, timeout=0):
        if takedown.recorded(directory):
            return ""
        found = lost.find(directory)
        if found is None:
            if not kernel.is_mount_root(f"{directory}/merged"):
                takedown.everything(directory, "")
                takedown.remove_directory(directory)
            return ""
        if not found.base_name:
            raise BaseUntold(name=label(*record.split_key(os.path.basename(directory))))
        if found.namespace:
            found.lower_identity = _identity_there(found)
        found.write()
        return "its record was lost, and is made anew from the mount table"


def _identity_there(found: Record) -> str:
    """The identity of a base that its daemon alone sees, "" where there is none."""
    base = instance.Instance(found.daemon, found.base_project, found.base_name)
    try:
        with whereabouts.volume_of(base, apart=True) as volume:
            return instance.identity_now(f"{volume}/rootfs") or ""
    except FileNotFoundError:
        return ""
