# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts that are refused, as the operator sees it: `lxc start` fails, the log says why.

LXD 5.0 takes 30 s to report any failing pre-start, so they run side by side.
"""

from __future__ import annotations

import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pycor_hooks import kernel, mountinfo
from tests.daemon.findings import faults, of_containers, theme

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from lab.client import Instance
    from lab.overlays import Overlays


class Refusal(NamedTuple):
    """What to do to a stopped container called NAME, and what its log has to say then."""

    name: str
    spoil: Callable[[Overlays, Instance], None]
    says: tuple[str, ...]


def _base(name: str) -> Callable[[Overlays, Instance], None]:
    """Give the container a raw.lxc of its own, with another option for pre-start."""

    def spoil(overlays: Overlays, container: Instance) -> None:
        raw_lxc = overlays.client("profile", "get", overlays.image, "raw.lxc").stdout
        container.set(**{"raw.lxc": raw_lxc.replace("--base base", name)})

    return spoil


def _readonly(_: Overlays, container: Instance) -> None:
    container.client("config", "device", "override", container.name, "root", "readonly=true")


def _own_system(_: Overlays, container: Instance) -> None:
    os.makedirs(f"{container.rootfs}/sbin")
    with open(f"{container.rootfs}/sbin/init", "w", encoding="ascii"):
        pass


def _upper_is_a_link(_: Overlays, container: Instance) -> None:
    os.makedirs(f"{container.volume}/overlay/work")
    os.symlink("/etc", f"{container.volume}/overlay/upper")


def _clash(_: Overlays, container: Instance) -> None:
    os.mkdir(f"{container.rootfs}/bin")


def _work_is_a_file(_: Overlays, container: Instance) -> None:
    os.makedirs(f"{container.volume}/overlay/upper")
    with open(f"{container.volume}/overlay/work", "w", encoding="ascii"):
        pass


def _no_rootfs(overlays: Overlays, container: Instance) -> None:
    """A base whose volume lies there as one of a stopped instance does on zfs, lvm and ceph."""
    hollow = overlays.init("hollow")
    os.rename(hollow.rootfs, f"{hollow.volume}/rootfs.away")
    _base("--base hollow")(overlays, container)


def _root_given_away(overlays: Overlays, container: Instance) -> None:
    given = overlays.client.init("busybox", "given")
    os.chown(given.rootfs, os.stat(given.rootfs).st_uid + 1000, -1)
    _base("--base given")(overlays, container)


def _layer_on(fstype: str, options: str, overlays: Overlays, container: Instance) -> None:
    """Have the container's own layer on another file system, stored by the base's ids."""
    base = os.stat(overlays.base.rootfs)
    os.mkdir(f"{container.volume}/overlay")
    kernel.mount(fstype, f"{container.volume}/overlay", fstype, 0, options)
    for name in ("", "upper", "work"):
        path = f"{container.volume}/overlay/{name}"
        os.makedirs(path, exist_ok=True)
        os.chown(path, base.st_uid, base.st_gid)


def _no_idmapped_mounts(overlays: Overlays, container: Instance) -> None:
    """A file system that cannot be idmapped, where base and container differ in their ids."""
    if os.stat(overlays.base.rootfs).st_uid:
        container.set(**{"security.privileged": "true"})
    _layer_on("ramfs", "", overlays, container)


def _no_space(overlays: Overlays, container: Instance) -> None:
    _layer_on("tmpfs", "nr_inodes=4", overlays, container)  # with none left for a probe
    with open(f"{container.volume}/overlay/upper/last", "w", encoding="ascii"):
        pass


def _imported_base(overlays: Overlays, container: Instance) -> None:
    """A base from a backup in which somebody made a link to the host's root of its rootfs."""
    client, directory = overlays.client, overlays.daemon.world.directory
    backups = [os.path.join(directory, f"{name}.tar") for name in ("backup", "tampered")]
    client("init", "busybox", "imported")
    client("export", "imported", backups[0], "--compression=none")
    client("delete", "imported")
    with tarfile.open(backups[0]) as old, tarfile.open(backups[1], "w") as new:
        for member in old:
            if member.name.endswith("/rootfs"):
                member.type, member.linkname = tarfile.SYMTYPE, "/"
            if "/rootfs/" not in member.name:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    client("import", backups[1], "imported")
    for backup in backups:
        os.unlink(backup)
    _base("--base imported")(overlays, container)


def _hostile_name(_: Overlays, container: Instance) -> None:
    os.mkfifo(f"{container.rootfs}/a\n\x1b[31m\u202e")


def _journal_of_another_version(_: Overlays, container: Instance) -> None:
    """What a volume brings along that was copied from a host of a later version."""
    for name in ("upper", "work", "cure"):
        os.makedirs(f"{container.volume}/overlay/{name}")
    with open(f"{container.volume}/overlay/cure/armed", "w", encoding="ascii") as file:
        file.write("pycor-hooks cure 9\n")


REFUSALS = [
    Refusal("missing", _base("--base nobase"), ("base nobase does not exist", "create it, or")),
    Refusal("self", _base("--base self"), ("self cannot be its own base", "profile remove self")),
    Refusal("onweb", _base("--base web0"), ("base web0 is itself an overlay container",)),
    Refusal("option", _base("--bse base"), ("unknown option '--bse'", "--base [PROJECT/]NAME")),
    Refusal("readonly", _readonly, ("root disk of readonly has readonly=true", "readonly=false")),
    Refusal("own", _own_system, ("own has an operating system of its own", "sbin/init")),
    Refusal("link", _upper_is_a_link, ("overlay/upper is not a directory but a symlink",)),
    Refusal("clash", _clash, ("/bin was put into the stopped container as a directory",)),
    Refusal("work", _work_is_a_file, ("overlay/work is not a directory but a file",)),
    Refusal("onhollow", _no_rootfs, ("base hollow has no rootfs at", "move hollow -s bases")),
    Refusal("ongiven", _root_given_away, ("base given is owned by", "chown root:root /")),
    Refusal("nomap", _no_idmapped_mounts, ("cannot map the ids of", "Linux 5.19")),
    Refusal("onlink", _imported_base, ("imported/rootfs is not a directory but a symlink",)),
    Refusal("cured", _journal_of_another_version, ("is not the journal of a cure", "find upper")),
    Refusal("named", _hostile_name, (r"/a\n\x1b[31m\u202e was put into",)),
    Refusal("full", _no_space, ("no space left at", "raise the quota of the root disk")),
]


@pytest.fixture
def _layers_unmounted(overlays: Overlays) -> Iterator[None]:
    """Unmount in the end what a refusal mounted as a container's own layer."""
    yield
    below = os.path.join(overlays.daemon.directory, "storage-pools", "")
    for mount in mountinfo.read():
        if mount.target.startswith(below) and mount.target.endswith("/overlay"):
            kernel.umount(mount.target)


@pytest.mark.usefixtures("_layers_unmounted")
def test_refusals(overlays: Overlays) -> None:
    """Each refusal is one ERROR line with cause and remedy, and leaves nothing mounted.

    `doctor` says the same beforehand, of each of them and of no other, and starts nobody.
    """
    overlays.launch("web0").stop()
    sound = overlays.init("sound")
    refused = [overlays.init(refusal.name) for refusal in REFUSALS]
    for refusal, container in zip(REFUSALS, refused, strict=True):
        refusal.spoil(overlays, container)
    foretold = faults(theme(overlays, of_containers))
    for refusal in REFUSALS:
        told = foretold["next start", refusal.name]
        assert told.state == "FAIL"
        for words in refusal.says:
            assert words in f"{told.cause}: {told.remedy}"
    assert ("next start", sound.name) not in foretold
    assert not any(" pycor-hooks - " in container.log() for container in refused)
    with ThreadPoolExecutor(len(refused)) as pool:
        tries = list(pool.map(_try_to_start, refused))
    for refusal, container, done in zip(REFUSALS, refused, tries, strict=True):
        assert done.returncode != 0, refusal.name
        lines = [line for line in container.log().splitlines() if " pycor-hooks - " in line]
        assert [" ERROR " in line for line in lines] == [True], (refusal.name, lines)
        assert lines[0].isprintable()
        for words in refusal.says:
            assert words in lines[0]
        assert not os.path.exists(container.record)
    targets = {mount.target for mount in mountinfo.read()}
    assert not targets & {container.rootfs for container in refused}


def _try_to_start(container: Instance) -> subprocess.CompletedProcess[str]:
    return container.client("start", container.name, check=False)
