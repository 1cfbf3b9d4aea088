# SPDX-License-Identifier: GPL-3.0-or-later
"""Ids: each pair of base and container, stored and seen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab.liblxc import Container, make_base, own
from pycor_hooks import mountinfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.host_root

UNPRIVILEGED = ("u 0 100000 1000000", "g 0 100000 1000000")
ISOLATED = ("u 0 1165536 65536", "g 0 1165536 65536")
WITH_HOLE = ("u 0 100000 1000", "u 1000 1000 1", "u 1001 101001 64535", "g 0 100000 65536")
PRIVILEGED: tuple[str, ...] = ()


@pytest.fixture
def pair(daemon: Path, request: pytest.FixtureRequest) -> Iterator[Container]:
    """A container with the given map, on a base that is stored as the given owner."""
    owner, idmap = request.param
    make_base(daemon, owner=owner)
    container = Container(str(daemon), "web1")
    container.idmap = idmap
    yield container
    container.end()


@pytest.mark.parametrize(
    ("pair", "root"),
    [
        ((100000, UNPRIVILEGED), 100000),
        ((0, UNPRIVILEGED), 100000),
        ((100000, ISOLATED), 1165536),
        ((0, ISOLATED), 1165536),
        ((100000, PRIVILEGED), 0),
        ((0, PRIVILEGED), 0),
        ((0, WITH_HOLE), 100000),
        ((100000, WITH_HOLE), 100000),
    ],
    indirect=["pair"],
)
def test_the_base_is_owned_by_the_container_s_root(pair: Container, root: int) -> None:
    """Whatever the base is stored as, the container's root owns it, and what it writes."""
    pair.start()
    for path in ("", "/etc", "/etc/hostname", "/bin"):
        found = os.lstat(f"{pair.merged}{path}")
        assert (found.st_uid, found.st_gid) == (root, root)
    os.chown(f"{pair.merged}/etc/hostname", root + 5, root + 6)
    owner = os.lstat(f"{pair.volume}/overlay").st_uid
    stored = os.lstat(f"{pair.upper}/etc/hostname")
    assert (stored.st_uid, stored.st_gid) == (owner + 5, owner + 6)
    pair.stop()


@pytest.mark.parametrize("pair", [(0, WITH_HOLE)], indirect=True)
def test_an_id_mapped_by_raw_idmap_is_the_host_s_own(pair: Container) -> None:
    """With ``raw.idmap = both 1000 1000``, the base's user 1000 is the host's."""
    base = f"{pair.daemon}/containers/base/rootfs"
    os.chown(f"{base}/etc/hostname", 1000, 0)
    pair.start()
    assert os.lstat(f"{pair.merged}/etc/hostname").st_uid == 1000
    pair.stop()


@pytest.mark.parametrize("pair", [(100000, UNPRIVILEGED)], indirect=True)
def test_upper_survives_a_change_of_the_container_s_map(pair: Container) -> None:
    """What was written under one map belongs to the same users under another."""
    pair.start()
    os.chown(f"{pair.merged}/etc/hostname", 100033, 100033)
    pair.stop()
    pair.idmap = ISOLATED
    pair.start()
    assert os.lstat(f"{pair.merged}/etc/hostname").st_uid == 1165536 + 33
    pair.stop()


@pytest.mark.parametrize("pair", [(100000, UNPRIVILEGED)], indirect=True)
def test_upper_survives_a_base_that_was_re_owned(pair: Container) -> None:
    """The daemon shifts the base, and never the upper: each layer has a map of its own."""
    pair.start()
    os.chown(f"{pair.merged}/etc/hostname", 100033, 100033)
    pair.stop()
    own(f"{pair.daemon}/containers/base/rootfs/", 0)
    pair.start()
    assert os.lstat(f"{pair.merged}/etc/hostname").st_uid == 100033
    assert os.lstat(f"{pair.merged}/etc/os-release").st_uid == 100000
    pair.stop()


@pytest.mark.parametrize("pair", [(0, UNPRIVILEGED)], indirect=True)
def test_the_container_s_chown_of_its_root_does_not_move_the_map(pair: Container) -> None:
    """``chown 1000 /`` inside changes one owner, and no map."""
    pair.start()
    os.chown(pair.merged, 101000, 101000)
    pair.stop()
    pair.start()
    assert os.lstat(pair.merged).st_uid == 101000
    assert os.lstat(f"{pair.merged}/etc").st_uid == 100000
    pair.stop()


@pytest.mark.parametrize("pair", [(0, UNPRIVILEGED)], indirect=True)
def test_strays_of_the_idmapped_regime_get_the_container_s_ids(pair: Container) -> None:
    """A template that the daemon wrote as 0 on disk is the container's root's."""
    os.mkdir(f"{pair.rootfs}/etc")
    with open(f"{pair.rootfs}/etc/machine-id", "w"):
        pass
    os.chown(f"{pair.rootfs}/etc/machine-id", 0, 7)
    pair.start()
    found = os.lstat(f"{pair.merged}/etc/machine-id")
    assert (found.st_uid, found.st_gid) == (100000, 100007)
    pair.stop()


@pytest.mark.parametrize(
    ("pair", "root"), [((0, UNPRIVILEGED), 100000), ((0, PRIVILEGED), 0)], indirect=["pair"]
)
def test_templates_in_a_rootfs_that_was_shifted_twice(pair: Container, root: int) -> None:
    """What the daemon wrote as the container's root is its root's; another owner is refused."""
    os.chown(pair.rootfs, 200000, 200000)
    os.mkdir(f"{pair.rootfs}/var")
    os.chown(f"{pair.rootfs}/var", root, root)
    with open(f"{pair.rootfs}/var/made", "w"):
        pass
    os.chown(f"{pair.rootfs}/var/made", root, root)
    pair.start()
    found = os.lstat(f"{pair.merged}/var/made")
    assert (found.st_uid, found.st_gid) == (root, root)
    pair.stop()
    os.mkdir(f"{pair.rootfs}/var")
    os.chown(f"{pair.rootfs}/var", root + 1, root)
    assert pair.pre_start() == 1
    assert f"no id for its owner {root + 1}:{root}" in pair.log()


@pytest.mark.parametrize("pair", [(0, UNPRIVILEGED)], indirect=True)
def test_mapped_layers_leave_no_mount_behind(pair: Container) -> None:
    """The mounts that map the layers are gone once the overlay stands on them."""
    pair.start()
    below = [m.target for m in mountinfo.read() if m.target.startswith(pair.directory)]
    assert below == [pair.merged]
    pair.stop()
