# SPDX-License-Identifier: GPL-3.0-or-later
"""Which storage driver a pool has: zfs and ceph cannot be had here, so their signs are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pycor_hooks import mountinfo, pools
from pycor_hooks.mountinfo import Mount

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mock import MockerFixture

VOLUME = "storage-pools/pool/containers/base"


def mounted(fstype: str, source: str, target: str) -> Mount:
    """What stands in the mount table (proc_pid_mountinfo(5))."""
    return Mount(f"40 30 0:50 / {target} rw - {fstype} {source} rw")


@pytest.mark.parametrize(
    ("fstype", "source", "driver"),
    [
        ("zfs", "tank/containers/web1", "zfs"),
        ("ext4", "/dev/rbd0", "ceph"),
        ("ext4", "/dev/lxd/containers_web1", "lvm"),
        ("tmpfs", "tmpfs", "zfs, lvm or ceph"),
    ],
)
def test_another_volume_of_the_pool_is_mounted(
    tmp_path: Path, mocker: MockerFixture, fstype: str, source: str, driver: str
) -> None:
    """A container that runs there tells the driver; one of another pool does not."""
    table = [
        mounted("zfs", "tank/x", f"{tmp_path}/storage-pools/other/containers/web1"),
        mounted(fstype, source, f"{tmp_path}/storage-pools/pool/containers/web1"),
    ]
    mocker.patch.object(mountinfo, "read", return_value=table)
    assert pools.driver_of(f"{tmp_path}/{VOLUME}") == driver


@pytest.mark.parametrize(
    ("offset", "sign", "driver"),
    [
        (512, b"LABELONE", "lvm"),
        (128 * 1024 + 1024, b"\x0c\xb1\xba\0\0\0\0\0", "zfs"),
        (0, b"", "zfs, lvm or ceph"),
    ],
)
def test_the_loop_file_of_the_pool(
    tmp_path: Path, mocker: MockerFixture, offset: int, sign: bytes, driver: str
) -> None:
    """Where nothing runs, the label of LVM or an uberblock of ZFS in the pool's file tells."""
    mocker.patch.object(mountinfo, "read", return_value=[])
    (tmp_path / "disks").mkdir()
    (tmp_path / "disks" / "pool.img").write_bytes(b"\0" * offset + sign)
    assert pools.driver_of(f"{tmp_path}/{VOLUME}") == driver
