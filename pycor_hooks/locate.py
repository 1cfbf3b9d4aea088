# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a container's own layer and the base that it was written on, live or stopped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import layer, rawlxc, registry
from pycor_hooks.host_errors import Ambiguous, BaseUnknown, NoLayer
from pycor_hooks.instance import Instance
from pycor_hooks.plan import Base, base_of, label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycor_hooks.record import Record
    from pycor_hooks.sockets import Daemon


class Layer(NamedTuple):
    """A container's own layer.

    `own` is ``overlay`` in its volume, `lowerdir` the rootfs of its base; `record` is that of its
    overlay, None where it is stopped.
    """

    container: Instance
    base: Base
    own: str
    lowerdir: str
    record: Record | None

    @property
    def upperdir(self) -> str:
        """What the container wrote."""
        return f"{self.own}/upper"

    @property
    def shift(self) -> int:
        """What to add to an id as the base stores it, to get it as upper does."""
        return os.lstat(self.own).st_uid - os.lstat(self.lowerdir).st_uid


def find(name: tuple[str, str], base: tuple[str, str] | None, daemons: Sequence[Daemon]) -> Layer:
    """Find the layer of a container.

    Args:
        name: its project and name.
        base: project and name of the base, for a stopped container; None to ask the daemon which
            base its profiles name.
        daemons: those that may have it.

    Raises:
        NoLayer: none of them has such a container, or it has no layer.
        Ambiguous: several have.
        BaseUnknown: it is stopped, and no base is named, or that is not there.
        BadLayer: what it has is no layer, but a link to another's.
    """
    found = [
        Instance(daemon.directory, *name)
        for daemon in daemons
        if os.path.isdir(f"{Instance(daemon.directory, *name).volume()}/overlay/upper")
    ]
    if not found:
        raise NoLayer(name=label(*name))
    if len(found) > 1:
        where = ", ".join(one.daemon for one in found)
        raise Ambiguous(name=label(*name), daemons=where)
    (container,) = found
    for record in registry.records([container.daemon]):
        if record.key == container.key:
            return _live(container, record)
    (daemon,) = (one for one in daemons if one.directory == container.daemon)
    project, of = base or _ask(daemon, container)
    what = Instance(container.daemon, project, of)
    if not os.path.isdir(what.rootfs()):
        raise BaseUnknown(name=container.label, reason=f"its base {what.label} has no rootfs")
    layer.owner(container.volume(), what.rootfs())
    own = f"{container.volume()}/overlay"
    return Layer(container, Base(container.daemon, project, of), own, what.rootfs(), None)


def _live(container: Instance, record: Record) -> Layer:
    base = base_of(record)
    own = os.path.dirname(record.upperdir)
    return Layer(container, base, own, record.lowerdirs[0], record)


def _ask(daemon: Daemon, container: Instance) -> tuple[str, str]:
    """The base that a stopped container's profiles name, as its daemon says."""
    from pycor_hooks.client import Connection  # noqa: PLC0415 - pylxd, for stopped ones alone

    with Connection(daemon, container.project) as connection:
        found = connection.find("instances", container.name) or {"expanded_config": {}}
    named = rawlxc.base(found["expanded_config"].get("raw.lxc", ""))
    if named is None:
        raise BaseUnknown(name=container.label, reason="its profiles name no base")
    project, slash, name = named.rpartition("/")
    return (project if slash else container.project), name
