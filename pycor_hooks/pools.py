# SPDX-License-Identifier: GPL-3.0-or-later
"""Which storage driver a pool has, told from the host alone, for the text of a refusal.

Imported by the hooks, and only by a start that is refused: standard library only.
"""

from __future__ import annotations

import os

from pycor_hooks import mountinfo

_LVM_LABEL = (512, b"LABELONE")
_ZFS_UBERBLOCK = (128 * 1024, b"\x0c\xb1\xba\x00\x00\x00\x00\x00")
_SUSPECTS = "zfs, lvm or ceph"


def driver_of(volume: str) -> str:
    """Name the driver of the pool that a volume without a rootfs belongs to.

    Args:
        volume: DIR/storage-pools/POOL/containers/KEY.

    Returns:
        "zfs", "lvm" or "ceph" where a mounted volume of the pool or its loop file tells, and
        all three of them where nothing does.
    """
    pool = os.path.dirname(os.path.dirname(volume))
    for mount in mountinfo.read():
        if mount.target.startswith(f"{pool}/"):
            if mount.fstype == "zfs":
                return "zfs"
            if mount.source.startswith("/dev/rbd"):
                return "ceph"
            if mount.source.startswith("/dev/"):
                return "lvm"
    daemon = os.path.dirname(os.path.dirname(pool))
    return _driver_of_image(f"{daemon}/disks/{os.path.basename(pool)}.img")


def _driver_of_image(path: str) -> str:
    try:
        with open(path, "rb") as image:
            image.seek(_LVM_LABEL[0])
            if image.read(8) == _LVM_LABEL[1]:
                return "lvm"
            for slot in range(128):
                image.seek(_ZFS_UBERBLOCK[0] + slot * 1024)
                if image.read(8) == _ZFS_UBERBLOCK[1]:
                    return "zfs"
    except OSError:
        pass
    return _SUSPECTS
