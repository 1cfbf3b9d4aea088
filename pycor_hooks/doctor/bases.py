# SPDX-License-Identifier: GPL-3.0-or-later
"""The bases: whether containers can stand on them, by which ids, and what runs or starts them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pycor_hooks import bases, idmap, instance, layer, prestart
from pycor_hooks.doctor import insides, inventory
from pycor_hooks.doctor.check import FAIL, OK, WARN, Check, count, guarded, names, refused
from pycor_hooks.doctor.peek import Owners, Tree
from pycor_hooks.errors import BaseNotFound, PycorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.doctor.inventory import Base, Container, House
    from pycor_hooks.instance import Instance

_HELD = 65536


def check(house: House) -> Iterator[Check]:
    """Look at all bases of one daemon."""
    for base in inventory.bases(house):
        yield from guarded("base", check_base(house, base), base.where.label)


def check_base(house: House, base: Base) -> Iterator[Check]:
    """Look at one base."""
    nobody = instance.Instance(base.where.daemon, base.where.project, "")
    subject = base.where.label
    try:
        rootfs = prestart.check_base(nobody, base.where)
        _ask(house, base)
    except PycorError as error:
        unused = isinstance(error, BaseNotFound) and not base.users and not base.live
        yield refused("base", subject, error, WARN if unused else FAIL)
        return
    yield Check("base", subject, OK, f"containers can stand on {rootfs}")
    yield check_btrfs(base, rootfs)
    with Tree(rootfs) as tree:
        yield check_ids(base, os.lstat(rootfs).st_uid, tree.owners())
    yield check_running(house, base)
    if base.container:
        yield check_boot(base.container)
    yield from insides.check(base, rootfs)


def _ask(house: House, base: Base) -> None:
    """Let the daemon say whether it can be a base; nothing where it is not asked.

    Raises:
        PycorError: as `profile` would refuse it.
    """
    if base.container and house.connections:
        where = base.where
        bases.find_base(house.connections[0], f"{where.project}/{where.name}")


def check_btrfs(base: Base, rootfs: str) -> Check:
    """Whether files of the base and of a container can have the same number."""
    name, subject = "btrfs", base.where.label
    volumes = {one.label: one.where.volume() for one in base.users}
    volumes |= {one.name: os.path.dirname(one.rootfs) for one in base.live if not base.users}
    clashing = [
        label
        for label, volume in volumes.items()
        if os.path.isdir(volume) and layer.shares_btrfs(volume, rootfs)
    ]
    if not clashing:
        return Check(name, subject, OK, "no file of it can have the number of a container's own")
    cause = (
        f"it and {names(clashing)} are subvolumes of one btrfs, which numbers the files of each "
        "alike: cp, mv and tar may take two unlike files for one, and ld.so two libraries"
    )
    return Check(name, subject, WARN, cause, f"move the base: {elsewhere(base.where)}")


def elsewhere(base: Instance) -> str:
    """The commands that move a base to a pool of its own."""
    client = instance.client_of(base.daemon)
    return f"{client} storage create bases dir; {client} move {base.name} -s bases{base.flag}"


def check_ids(base: Base, root: int, owners: Owners) -> Check:
    """Whether each container has a place for every id that the base's files are stored by.

    Args:
        base: whose users are looked at.
        root: the owner of its root directory.
        owners: of everything in it.
    """
    name, subject = "ids", base.where.label
    own = _map_of(base.container) if base.container else None
    strange = _unheld(owners, root, own or idmap.from_config([]))
    if strange:
        cause = f"{strange}, which is nobody in the base itself"
        remedy = "start it, and give these files an owner that it knows (find / -nouser -nogroup)"
        return Check(name, subject, WARN, cause, remedy)
    lost = {
        container.label: found
        for container in base.users
        if (ids := _map_of(container)) and (found := _unheld(owners, root, ids))
    }
    if lost:
        cause = f"{next(iter(lost.values()))}, for which {names(lost)} has no place"
        remedy = (
            f"give such files an owner below {_HELD} in the base, or the container more ids "
            "(security.idmap.size)"
        )
        return Check(name, subject, WARN, cause, remedy)
    part = "" if owners.whole else " of what was looked at, its first million entries"
    return Check(name, subject, OK, f"stored from {root} on; every container holds all ids{part}")


def _map_of(container: Container) -> idmap.IdMap | None:
    try:
        return idmap.from_config(container.config().idmap)
    except (PycorError, ValueError):
        return None  # told where its next start is looked at


def _unheld(owners: Owners, root: int, ids: idmap.IdMap) -> str:
    """An id of the base that a map has no place for, and a file of it; "" where there is none."""
    for kind, found, translate in (
        ("user", owners.uids, ids.uid),
        ("group", owners.gids, ids.gid),
    ):
        for stored, path in sorted(found.items()):
            if stored < root:
                return f"/{path} belongs to {kind} {stored} of the host"
            if translate(stored - root) is None:
                return f"/{path} belongs to {kind} {stored - root}"
    return ""


def check_running(house: House, base: Base) -> Check:
    """Whether it runs, so that its containers may see its changes half-done."""
    name, subject = "base runs", base.where.label
    if not base.where.running():
        return Check(name, subject, OK, "it is stopped")
    since = _since(house, base)
    client = instance.client_of(base.where.daemon)
    some = count(len(base.live), "live overlay")
    cause = f"it runs{since}: until it stops, {some} may see its changes half-done"
    remedy = f"when the update is done: {client} stop {base.where.name}{base.where.flag}"
    return Check(name, subject, WARN, cause, remedy)


def _since(house: House, base: Base) -> str:
    """Say for how long its init has run, where its daemon can tell."""
    if not base.container:
        return ""
    connection = next(one for one in house.connections if one.project == base.where.project)
    try:
        state = connection.get("instances", base.where.name, "state")
    except PycorError:
        return ""  # on its way up or down
    started = instance.process_start(state["pid"])
    seconds = time.time() - instance.time_of(started)
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f" for {hours} h {minutes} min" if started else ""


def check_boot(container: Container) -> Check:
    """Whether it starts by itself, or can be deleted by mistake."""
    name, subject = "base is protected", container.label
    missing = {
        key: value
        for key, value in bases.PROTECTION.items()
        if container.expanded.get(key) != value
    }
    if not missing:
        return Check(name, subject, OK, "not started at boot, and not deleted by mistake")
    effects = {
        bases.DELETE: "can be deleted under its containers",
        bases.AUTOSTART: "starts at boot, or when it ran before",
    }
    cause = "it " + " and ".join(effects[key] for key in missing)
    client = instance.client_of(container.daemon.directory)
    settings = " ".join(f"{key}={value}" for key, value in missing.items())
    remedy = f"{client} config set {container.where.name} {settings}{container.where.flag}"
    return Check(name, subject, WARN, cause, remedy)
