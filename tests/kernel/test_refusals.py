# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts that are refused: one line with cause and remedy in the log, nothing left mounted."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab.liblxc import Container, make_base, make_volume
from pycor_hooks import attributes, errors, kernel
from pycor_hooks.beneath import Tree
from pycor_hooks.instance import Instance
from pycor_hooks.parents import Parents

if TYPE_CHECKING:
    from pathlib import Path


def refusal(web: Container, *arguments: str, status: int = 1) -> str:
    """Run a pre-start that has to fail; its one line, without the stamp."""
    assert web.hook("pre-start", *(arguments or ("--base", "base"))) == status
    assert web.overlays() == []
    assert not os.path.exists(web.directory)
    (line,) = web.log().splitlines()
    return line.partition(" pycor-hooks - ")[2]


def test_base_missing(web: Container) -> None:
    """A base that does not exist is named, with the path that was looked at."""
    line = refusal(web, "--base", "nobase")
    assert line.startswith("pre-start: base nobase does not exist (")
    assert "create it, or name another base" in line


def test_base_without_rootfs(web: Container, daemon: Path) -> None:
    """A base whose volume is not mounted while it is stopped gets the pool's remedy."""
    os.rmdir(f"{make_volume(str(daemon), 'zbase')}/rootfs")
    line = refusal(web, "--base", "zbase")
    assert "zfs, lvm or ceph" in line
    assert "storage create bases dir; lxc move zbase -s bases" in line


def test_base_without_rootfs_on_lvm_names_the_driver(web: Container, daemon: Path) -> None:
    """The label of the pool's loop file tells that it is lvm."""
    os.rmdir(f"{make_volume(str(daemon), 'zbase')}/rootfs")
    (daemon / "disks").mkdir()
    (daemon / "disks" / "pool.img").write_bytes(b"\0" * 512 + b"LABELONE")
    assert "its pool is on lvm, " in refusal(web, "--base", "zbase")


def test_base_with_an_empty_rootfs(web: Container, daemon: Path) -> None:
    """An empty rootfs is refused: the container would have nothing to run."""
    make_volume(str(daemon), "hollow")
    assert "the rootfs of base hollow" in refusal(web, "--base", "hollow")


@pytest.mark.parametrize("name", ["web1", "base"])
def test_a_rootfs_that_leads_elsewhere(web: Container, daemon: Path, name: str) -> None:
    """A link in the place of a rootfs, a base's or the container's, is named and not followed.

    Its owner is that of its end, so nothing else gives it away; and there may be nothing there.
    """
    end = (
        make_base(daemon, "end") if name == "base" else f"{make_volume(str(daemon), 'end')}/rootfs"
    )
    rootfs = f"{daemon}/storage-pools/pool/containers/{name}/rootfs"
    os.rename(rootfs, f"{daemon}/moved")
    os.symlink(end, rootfs)
    line = refusal(web)
    assert f"{rootfs} is not a directory but a symlink" in line
    assert f"lxc delete {name}" in line


def test_base_is_the_container(web: Container) -> None:
    """A container that was given the profile of which it is the base is refused."""
    assert "web1 cannot be its own base" in refusal(web, "--base", "web1")


def test_base_is_an_overlay_container(web: Container, daemon: Path) -> None:
    """An overlay container is no base: its rootfs is not the whole tree."""
    os.mkdir(f"{os.path.dirname(make_base(daemon, 'web2'))}/overlay")
    assert "base web2 is itself an overlay container" in refusal(web, "--base", "web2")


@pytest.mark.parametrize("owner", [(0, 50), (1000, 1000)])
@pytest.mark.host_root
def test_base_with_a_root_of_another_owner(
    web: Container, base: str, owner: tuple[int, int]
) -> None:
    """A base whose root directory was given away does not tell its ids; nothing is guessed."""
    os.chown(base, *owner)
    line = refusal(web)
    assert f"is owned by {owner[0]}:{owner[1]}, not by its root" in line
    assert "chown root:root /" in line


@pytest.mark.parametrize("name", ["../base", "a/b/c", "", "base_", "/base", "b ase"])
def test_base_of_an_impossible_name(web: Container, name: str) -> None:
    """A base's name cannot lead anywhere but to an instance."""
    assert "is not the name of an instance" in refusal(web, f"'--base={name}'", status=2)


@pytest.mark.parametrize("arguments", [("--bas", "base"), ("base",), ("-v",)])
def test_unknown_option(web: Container, arguments: tuple[str, ...]) -> None:
    """A word in raw.lxc that the hook does not know is named."""
    line = refusal(web, *arguments, status=2)
    assert f"unknown option '{arguments[0]}' for the pre-start hook" in line
    assert "--base [PROJECT/]NAME" in line


@pytest.mark.parametrize("part", ["overlay", "overlay/upper", "overlay/work"])
@pytest.mark.parametrize("kind", ["a file", "a symlink"])
def test_own_layer_is_something_else(web: Container, part: str, kind: str) -> None:
    """overlay, upper and work are directories, and never symlinks that lead elsewhere."""
    path = f"{web.volume}/{part}"
    if part != "overlay":
        assert web.pre_start() == 0
        assert web.hook("post-stop") == 0
        os.rename(path, f"{web.volume}/moved")
    if kind == "a file":
        with open(path, "w"):
            pass
    else:
        os.symlink("/etc", path)
    line = refusal(web)
    assert f"{path} is not a directory but {kind}" in line


def test_own_layer_is_another_s(web: Container, daemon: Path) -> None:
    """A link to another container's layer, as an imported volume may have it: that is let be.

    Not even what a cure has left there is touched, which only its own container's hooks finish.
    """
    other = f"{make_volume(str(daemon), 'other')}/overlay"
    os.makedirs(f"{other}/upper/etc")
    os.mkdir(f"{other}/work")
    parents = Parents(other)
    with Tree(f"{other}/upper") as upper:
        descriptor = upper.open("etc")
        parents.add("etc", attributes.of(descriptor))
        os.close(descriptor)
    parents.save()
    os.symlink(other, f"{web.volume}/overlay")
    assert "overlay is not a directory but a symlink" in refusal(web)
    assert sorted(os.listdir(other)) == ["parents", "upper", "work"]
    assert os.listdir(f"{other}/upper") == ["etc"]


def test_root_disk_readonly(web: Container) -> None:
    """The daemon's option for a read-only root disk is refused, though raw.lxc clears it."""
    web.config = "lxc.rootfs.options = idmap=container,ro\nlxc.rootfs.options =\n"
    assert "config device set web1 root readonly=false" in refusal(web)


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (errors.BadRootfs, "lxc delete web1 --project staging"),
        (errors.RootDiskReadonly, "lxc config device set web1 root readonly=false --project st"),
        (errors.BaseIsSelf, "lxc profile remove web1 PROFILE --project staging"),
        (errors.BaseWithoutRootfs, "lxc move web1 -s bases --project staging"),
    ],
)
def test_commands_in_another_project(error: type[errors.PycorError], command: str) -> None:
    """What a refusal tells to type means that container, and no namesake of it."""
    words = Instance("/var/lib/nowhere", "staging", "web1").words()
    line = str(error(**words, path="/p", kind="a symlink", driver="zfs"))
    assert command in line
    assert "staging/web1" in line


def test_no_root_in_the_id_map(web: Container) -> None:
    """An id map without user 0 cannot hold the base's root."""
    web.idmap = ("u 1 100001 1000", "g 0 100000 1000")
    assert "the id map of web1 has no user 0" in refusal(web)


def test_file_system_without_idmapped_mounts(daemon: Path) -> None:
    """A layer that the kernel will not map is refused by name; here the base is on overlayfs."""
    pool = daemon / "storage-pools" / "pool"
    pool.mkdir(parents=True)
    for name in ("l", "u", "w"):
        (daemon / name).mkdir()
    data = f"lowerdir={daemon}/l,upperdir={daemon}/u,workdir={daemon}/w"
    kernel.mount("test", str(pool), "overlay", 0, data)
    make_base(daemon)
    web = Container(str(daemon), "web1")
    web.idmap = ("u 0 100000 65536", "g 0 100000 65536")
    try:
        line = refusal(web)
        assert "cannot map the ids of" in line
        assert "Linux 5.19" in line
    finally:
        web.end()
        kernel.umount(str(pool))


def test_no_space(daemon: Path) -> None:
    """A full volume is named before the kernel is asked to mount."""
    pool = daemon / "storage-pools" / "pool"
    pool.mkdir(parents=True)
    kernel.mount("tmpfs", str(pool), "tmpfs", 0, "nr_inodes=30")
    make_base(daemon)
    web = Container(str(daemon), "web1")
    try:
        fill = 0
        while True:
            try:
                os.mkdir(f"{pool}/{fill}")
            except OSError:
                break
            fill += 1
        assert "no space left at" in refusal(web)
    finally:
        web.end()
        kernel.umount(str(pool))


@pytest.mark.host_root
def test_volume_readonly(daemon: Path) -> None:
    """A volume on a read-only file system is named as such."""
    pool = daemon / "storage-pools" / "pool"
    pool.mkdir(parents=True)
    kernel.mount("tmpfs", str(pool), "tmpfs", 0)
    make_base(daemon)
    web = Container(str(daemon), "web1")
    subprocess.run(["mount", "-o", "remount,ro", str(pool)], check=True)
    try:
        assert "came up read-only" in refusal(web)
    finally:
        web.end()
        kernel.umount(str(pool))


def test_called_by_hand(web: Container) -> None:
    """A hook that is not run by liblxc says so."""
    hook = os.path.join(os.path.dirname(__file__), "../../hooks/pre-start")
    done = subprocess.run([hook], env={}, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "this script is run by liblxc" in done.stderr
    assert web.overlays() == []
