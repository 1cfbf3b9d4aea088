# SPDX-License-Identifier: GPL-3.0-or-later
"""Export and import of containers on a base."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from tests.daemon import content

if TYPE_CHECKING:
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays


def export(container: Instance, directory: Path, *flags: str) -> None:
    """Make a backup that is called like the container."""
    path = str(directory / container.name)
    container.client("export", container.name, path, "--compression=none", *flags)


def test_an_exported_container_is_imported(overlays: Overlays, tmp_path: Path) -> None:
    """Exported while running, then deleted, it comes back under its name and under another.

    As it was, but for what the daemon does to an ordinary container as well: LXD 5.0.2 loses
    access lists (a tar record that tar does not know).
    """
    web1, ordinary = overlays.launch("web1"), overlays.client.launch("busybox", "ordinary")
    for container in (web1, ordinary):
        content.write(container)
        export(container, tmp_path)
        assert content.look(container) == content.RIGHT
        container.delete()
        overlays.client("import", str(tmp_path / container.name), container.name)
        container.start()
    overlays.client("import", str(tmp_path / "web1"), "web2")
    web2 = overlays.client.instance("web2")
    web2.start()
    as_ever = content.look(ordinary)
    assert set(content.RIGHT["1000"].split()) - set(as_ever["1000"].split()) <= {"acl", "own"}
    for container in (web1, web2):
        assert content.look(container) == {**content.RIGHT, "1000": as_ever["1000"]}
        assert container.exec("cat", "/etc/machine-id") == f"{content.MACHINE_ID}\n"
    assert content.are_apart(web1, web2)


def test_an_optimized_backup_is_imported(overlays: Overlays, tmp_path: Path) -> None:
    """A backup in the pool's own format, with a snapshot in it, serves as well."""
    web1 = overlays.launch("web1")
    content.write(web1)
    content.take_snapshot(web1, "before")
    web1.exec("rm", "-r", "/srv/own", "/usr/share/app")
    web1.stop()
    export(web1, tmp_path, "--optimized-storage")
    overlays.client("import", str(tmp_path / "web1"), "web2")
    web2 = overlays.client.instance("web2")
    web2.start()
    assert web2.run("ls", "/srv/own").returncode
    assert web2.run("ls", "/usr/share/app").returncode
    content.restore_snapshot(web2, "before")
    assert content.look(web2)["root"] == content.RIGHT["root"]
    assert content.overlays_of(web2) == [web2.merged]


def test_a_backup_is_thin(overlays: Overlays, tmp_path: Path) -> None:
    """The backup of a stopped container, and its snapshots, hold layers and none of the base."""
    web1 = overlays.launch("web1")
    content.write(web1)
    content.take_snapshot(web1, "before")
    web1.stop()
    export(web1, tmp_path)
    with tarfile.open(tmp_path / "web1") as tar:
        entries = {entry.name: entry.size for entry in tar}
    assert [name for name in entries if "/rootfs/" in name] == []
    for volume in ("backup/container", "backup/snapshots/before"):
        assert f"{volume}/overlay/upper/srv/own/fifo" in entries
        held = sum(size for name, size in entries.items() if name.startswith(volume))
        assert held < content.bytes_below(web1.upper) + content.ALLOWANCE
