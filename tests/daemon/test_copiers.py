# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that the daemons copy with, confined as newer daemons confine them.

Here they are not confined, for want of AppArmor; so these cases run them, with the daemons' own
flags and the capabilities that their profiles leave. CAP_SYS_ADMIN is not among them, and without
it an attribute ``trusted.overlay.opaque`` cannot even be read.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from pycor_hooks import kernel, overlay
from tests.daemon import content

if TYPE_CHECKING:
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays

# lxd/apparmor/rsync.go of LXD 5.0.3, internal/server/apparmor/{rsync,archive}.go of Incus 6
_CAPABILITIES = ["chown", "dac_override", "dac_read_search", "fowner", "fsetid", "mknod"]
_CONFINED = ["setpriv", "--bounding-set=-all," + ",".join(f"+{name}" for name in _CAPABILITIES)]
_RSYNC = {
    # LocalCopy() of lxd/rsync/rsync.go, of internal/rsync/rsync.go
    "lxd": ["--sparse", "--devices", "--delete", "--checksum", "--numeric-ids"],
    "incus": ["--sparse", "--devices", "--delete", "--numeric-ids", "--modify-window=-1"],
}


def write_and_stop(overlays: Overlays) -> Instance:
    """A container that removed files, and removed directories and made them again."""
    web1 = overlays.launch("web1")
    content.write(web1)
    web1.stop()
    web1.wait("Stopped")
    return web1


def seen(base: Instance, copy: str, staging: str) -> list[list[str]]:
    """Directories in which something was deleted, in a copied layer mounted on its base."""
    merged = os.path.join(staging, "merged")
    os.mkdir(merged)
    layers = overlay.Layers(
        lowerdirs=[base.rootfs],
        base_key=base.key,
        volume=f"{copy}/overlay",
        lower_map=None,
        upper_map=None,
        fs_ids=(0, 0),
        staging=staging,
    )
    overlay.mount(layers, merged)
    try:
        paths = ("usr/share/app", "usr/share/app/data", "home")
        return [os.listdir(f"{merged}/{path}") for path in paths]
    finally:
        kernel.umount(merged)
        os.rmdir(merged)


def test_rsync(overlays: Overlays, tmp_path: Path) -> None:
    """rsync, confined, brings each mark of what was deleted."""
    web1 = write_and_stop(overlays)
    confined = [_CONFINED[0], f"{_CONFINED[1]},+setfcap"]
    for name, flags in _RSYNC.items():
        copy = str(tmp_path / name)
        words = ["-a", "-HA", *flags, "--xattrs", "--filter=-x security.selinux", "-q"]
        subprocess.run([*confined, "rsync", *words, f"{web1.volume}/", copy], check=True)
        assert seen(overlays.base, copy, str(tmp_path)) == [["data"], ["three"], []]


def test_tar(overlays: Overlays, tmp_path: Path) -> None:
    """tar, confined, unpacks each mark of what was deleted from the daemon's own backup."""
    web1 = write_and_stop(overlays)
    backup, copy = str(tmp_path / "backup"), str(tmp_path / "copy")
    overlays.client("export", web1.name, backup, "--compression=none")
    os.mkdir(copy)
    # Unpack() of lxd/archive/archive.go
    words = ["--restrict", "--force-local", "-C", copy, "--numeric-owner", "--xattrs-include=*"]
    inside = ["--strip-components=2", "-xf", backup, "backup/container"]
    # it has no CAP_SETFCAP either, says so, and goes on
    subprocess.run([*_CONFINED, "tar", *words, *inside], check=True, stderr=subprocess.DEVNULL)
    assert seen(overlays.base, copy, str(tmp_path)) == [["data"], ["three"], []]
