# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers on a base: their next start, their power over the host, what they store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycor_hooks import instance, plan
from pycor_hooks.bases import POOL_DRIVERS
from pycor_hooks.doctor import inventory, nextstart
from pycor_hooks.doctor.check import WARN, Check, count, sound
from pycor_hooks.doctor.insides import stores_of
from pycor_hooks.doctor.peek import Tree, is_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycor_hooks.doctor.inventory import Container, House


def check(
    house: House, chosen: Iterable[Container], *, subject: str = "", some: str = ""
) -> Iterator[Check]:
    """Look at containers of one daemon; those without a base are left out.

    Args:
        house: the daemon; what is mounted is looked at where it does not answer.
        chosen: some of its containers, or all.
        subject: where no fault is found, what was looked at; the daemon by default.
        some: how to call them then; their number by default.
    """
    subject = subject or house.daemon.directory
    ours = [container for container in chosen if container.hook]
    uppers = {one.label: (f"{one.where.volume()}/overlay/upper", devices_of(one)) for one in ours}
    if house.trouble:
        uppers = {plan.name_of(r): (r.upperdir, set()) for r in house.records}
    some = some or count(len(uppers), "container")
    if not house.trouble:
        cause = f"{some}: pre-start's checks pass, and so does a trial mount"
        yield from sound(nextstart.NAME, subject, nextstart.check(ours), cause)
        cause = f"{some}: on a storage driver that was tried"
        yield from sound("pool", subject, check_pools(house, ours), cause)
        cause = f"{some}: not privileged on a base that is not"
        yield from sound("privileged", subject, check_privileged(house, ours), cause)
    cause = f"{some}: no images of another container engine in the layer"
    yield from sound("nested store", subject, check_stores(house, uppers), cause)


def check_pools(house: House, containers: Iterable[Container]) -> Iterator[Check]:
    """Look for containers on a pool whose driver nobody has tried."""
    drivers: dict[str, str] = {}
    for container in containers:
        pool = container.root_disk["pool"]
        if pool not in drivers:
            drivers[pool] = house.connections[0].get("storage-pools", pool)["driver"]
        if drivers[pool] not in POOL_DRIVERS:
            cause = (
                f"its pool {pool} is on {drivers[pool]}, which has not been tried as the place "
                "of an upper, and where nothing can stand on it as a base"
            )
            client = instance.client_of(container.where.daemon)
            where = container.where
            remedy = f"{client} move {where.name} -s POOL{where.flag}, to dir or btrfs"
            yield Check("pool", container.label, WARN, cause, remedy)


def check_privileged(house: House, containers: Iterable[Container]) -> Iterator[Check]:
    """Look for containers whose root is the host's, with programs that another root can write."""
    held = {base.where.key: base.container for base in inventory.bases(house)}
    for container in containers:
        base = inventory.base_of(container)
        owner = held.get(base.key) if base else None
        if container.privileged and base and owner and not owner.privileged:
            cause = f"it is privileged: whoever is root in base {base.label} is root on this host"
            remedy = (
                "unset security.privileged on it, or let nobody but the host's root into the base"
            )
            yield Check("privileged", container.label, WARN, cause, remedy)


def devices_of(container: Container) -> set[str]:
    """Where in a container devices of its own are mounted."""
    devices = container.api["expanded_devices"].values()
    return {disk["path"] for disk in devices if disk["type"] == "disk" and "path" in disk}


def check_stores(house: House, uppers: dict[str, tuple[str, set[str]]]) -> Iterator[Check]:
    """Look for images of other container engines, which overlay2 cannot keep on an overlay.

    Args:
        house: whose containers they are.
        uppers: upperdir of each container, and the paths at which devices are mounted in it.
    """
    client = instance.client_of(house.daemon.directory)
    for label, (upper, mounted) in uppers.items():
        if not is_directory(upper):
            continue  # never started
        with Tree(upper) as tree:
            for engine, place in stores_of(tree, mounted).items():
                cause = (
                    f"{engine} keeps its images on the overlay, in {place}, which cannot be the "
                    "upper of another: slow copies instead of layers, or an error"
                )
                project, _, name = label.rpartition("/")
                flag = instance.flag_of(project or "default")
                volume = f"{name}-store"
                remedy = (
                    f"give it a volume: {client} storage volume create POOL {volume}{flag}; "
                    f"{client} config device add {name} store disk pool=POOL source={volume} "
                    f"path={place}{flag}"
                )
                yield Check("nested store", label, WARN, cause, remedy)
