# SPDX-License-Identifier: GPL-3.0-or-later
"""What a base holds that its containers should not have from it. Reads its tree, and theirs."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from pycor_hooks import plan
from pycor_hooks.doctor.check import OK, WARN, Check, names
from pycor_hooks.doctor.peek import Tree, is_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycor_hooks.doctor.inventory import Base

# Units that change the package database by themselves, each as its distribution calls it.
UPDATERS = frozenset(
    {
        *("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service"),
        *("dnf-automatic.timer", "dnf-automatic-install.timer", "dnf5-automatic.timer"),
        *("yum-cron.service", "rpm-ostreed-automatic.timer", "transactional-update.timer"),
    }
)
_UNITS = ("etc/systemd/system", "usr/lib/systemd/system")
# Where container engines keep images and containers; what is there once they have some.
STORES = {
    "Docker": ("var/lib/docker", ("overlay2", "image", "vfs", "fuse-overlayfs")),
    "containerd": ("var/lib/containerd", ("io.containerd.snapshotter.v1.overlayfs",)),
    "Podman": ("var/lib/containers", ("storage",)),
    "LXD": ("var/lib/lxd", ("storage-pools",)),
    "Incus": ("var/lib/incus", ("storage-pools",)),
}


def check(base: Base, rootfs: str) -> Iterator[Check]:
    """Look into a base.

    Args:
        base: whose containers are named.
        rootfs: the base's.

    Raises:
        OSError: the tree cannot be read.
    """
    with Tree(rootfs) as tree:
        yield check_updaters(base, tree)
        yield check_ssh(base, tree)
        yield check_cloud_init(base, tree)
        yield check_machine_id(base, tree)
        yield check_stores(base, tree)


def check_updaters(base: Base, tree: Tree) -> Check:
    """Whether every container on it would upgrade by itself, and fork the package database."""
    name, subject = "automatic updates", base.where.label
    found = enabled_updaters(tree)
    if not found:
        return Check(name, subject, OK, "no timer is enabled that changes packages")
    cause = (
        f"{names(found)} is enabled, in every container too: what it installs there forks "
        "the package database, and the base's upgrades no longer arrive"
    )
    remedy = f"start the base, systemctl disable --now {' '.join(sorted(found))}, stop it"
    return Check(name, subject, WARN, cause, remedy)


def enabled_updaters(tree: Tree) -> set[str]:
    """Those of UPDATERS that systemd would start (systemd.unit(5), "Unit File Load Path")."""
    wanted = {
        unit
        for directory in _UNITS
        for target in tree.names(directory)
        if target.endswith(".wants")
        for unit in tree.names(f"{directory}/{target}")
    }
    return {unit for unit in wanted & UPDATERS if not _is_masked(tree, unit)}


def _is_masked(tree: Tree, unit: str) -> bool:
    """Whether a link, to /dev/null, takes the place of a unit in /etc."""
    return stat.S_ISLNK(tree.mode(f"{_UNITS[0]}/{unit}"))


def check_ssh(base: Base, tree: Tree) -> Check:
    """Whether its containers share the private keys by which ssh knows a host."""
    keys = [
        name
        for name in tree.names("etc/ssh")
        if name.startswith("ssh_host_") and name.endswith("_key")
    ]
    name, subject = "ssh host keys", base.where.label
    if not keys:
        return Check(name, subject, OK, "none in the base")
    cause = f"{names(keys)}: every container can read them, and answers with them"
    remedy = "remove them from the base, and let each container make its own: ssh-keygen -A"
    return Check(name, subject, WARN, cause, remedy)


def check_cloud_init(base: Base, tree: Tree) -> Check:
    """Whether cloud-init has left the state of an instance."""
    name, subject = "cloud-init state", base.where.label
    if not tree.mode("var/lib/cloud/instance") and not tree.names("var/lib/cloud/instances"):
        return Check(name, subject, OK, "none in the base")
    cause = "/var/lib/cloud says which instance it is, with its user data, in every container"
    return Check(name, subject, WARN, cause, "in the base, last thing: cloud-init clean --logs")


def check_machine_id(base: Base, tree: Tree) -> Check:
    """Whether containers have the base's machine-id, and so its DHCP identity.

    A base that was ever booted has one; the image's template gives each container its own.
    """
    name, subject = "machine-id", base.where.label
    filled = tree.read("etc/machine-id").strip()
    if filled in {b"", b"uninitialized"}:
        return Check(name, subject, OK, "not filled in the base")
    same = [label for label, upper in _uppers(base) if _has(upper, filled)]
    if not same:
        return Check(name, subject, OK, "filled in the base; each container has one of its own")
    cause = f"that of the base, and so its DHCP identity, is also that of {names(same)}"
    remedy = "in each: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup"
    return Check(name, subject, WARN, cause, remedy)


def _has(upper: str, machine_id: bytes) -> bool:
    """Whether a container has the base's machine-id, not covered by what its upper says."""
    with Tree(upper) as tree:
        return not tree.mode("etc/machine-id") or tree.read("etc/machine-id").strip() == machine_id


def _uppers(base: Base) -> Iterator[tuple[str, str]]:
    """Label and upperdir of the containers on a base that were started once."""
    found = {plan.name_of(one): one.upperdir for one in base.live}
    found |= {one.label: f"{one.where.volume()}/overlay/upper" for one in base.users}
    yield from ((label, path) for label, path in found.items() if is_directory(path))


def check_stores(base: Base, tree: Tree) -> Check:
    """Whether it holds images of another container engine, for all containers to have below."""
    name, subject = "nested store", base.where.label
    found = stores_of(tree, ())
    if not found:
        return Check(name, subject, OK, "none in the base")
    cause = f"{names(found)} keeps images in it, which no container on it can use as layers"
    return Check(name, subject, WARN, cause, f"in the base: rm -r {' '.join(found.values())}")


def stores_of(tree: Tree, mounted: Iterable[str]) -> dict[str, str]:
    """Which container engines keep their images in a tree, and where.

    Args:
        tree: an upper, or a base's.
        mounted: absolute paths in the container where devices of its own are mounted.
    """
    free = {path.strip("/") for path in mounted}
    return {
        engine: f"/{place}"
        for engine, (place, signs) in STORES.items()
        if place not in free and any(tree.names(f"{place}/{sign}") for sign in signs)
    }
