# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that move between pools, and bases on another pool than their containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.daemon import POOL
from lab.gnu import Gnu
from lab.overlays import Overlays
from tests.daemon import content
from tests.daemon.test_whole_root import FILL, clashes

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.daemon import Daemon

_OTHER = "other"


def add_pool(daemon: Daemon) -> None:
    """Add a pool that is on btrfs where the first is on dir, and on dir where it is on btrfs."""
    words = ["dir"] if daemon.driver == "btrfs" else ["btrfs", "size=1GiB"]
    daemon.client("storage", "create", _OTHER, *words)


def move(container: Instance, pool: str) -> None:
    """Stop a container, move it to a pool, start it."""
    container.stop()
    container.wait("Stopped")
    container.client("move", container.name, "--storage", pool)
    assert f"/storage-pools/{pool}/" in container.volume
    container.start()


def test_a_container_moves_to_another_pool_and_back(overlays: Overlays) -> None:
    """Its writes go along, and nothing that it deleted comes back.

    As it was, but for what the daemon does to an ordinary container as well: hard links become
    files apart (rsync is run without -H).
    """
    add_pool(overlays.daemon)
    web1, ordinary = overlays.launch("web1"), overlays.client.launch("busybox", "ordinary")
    for container in (web1, ordinary):
        content.write(container)
        move(container, _OTHER)
    apart = {**content.RIGHT, "root": content.RIGHT["root"].replace(" 640 2\n", " 640 1\n")}
    assert content.look(web1) == content.look(ordinary) == apart
    assert content.overlays_of(web1) == [web1.merged]
    move(web1, POOL)
    assert content.look(web1) == apart
    assert content.overlays_of(web1) == [web1.merged]


def test_a_running_container_stays_in_its_pool(overlays: Overlays) -> None:
    """The daemon refuses to move it, and it runs on as before."""
    add_pool(overlays.daemon)
    web1 = overlays.launch("web1")
    content.write(web1)
    assert overlays.client("move", "web1", "--storage", _OTHER, check=False).returncode
    assert content.look(web1) == content.RIGHT
    assert content.overlays_of(web1) == [web1.merged]


def test_the_base_moves_to_another_pool(overlays: Overlays) -> None:
    """The remedy for a base without a rootfs: what runs runs on, what starts finds the base.

    And with the base on another file system no two files have one number.
    """
    client = overlays.client
    add_pool(overlays.daemon)
    client("copy", overlays.base.name, "second")
    second = Overlays(overlays.daemon, "second")
    second.pycor_hooks("profile", "--base", "second", "--prefix", second.prefix)
    web1 = second.launch("web1")
    content.write(web1)
    client("move", "second", "--storage", _OTHER)
    assert f"/storage-pools/{_OTHER}/" in second.base.volume
    assert f"/storage-pools/{POOL}/" in web1.volume
    web1.restart()
    assert content.look(web1) == content.RIGHT
    assert second.base.rootfs in overlays.pycor_hooks("status", "--format=json", "web1").stdout
    web1.exec("sh", "-c", FILL)
    assert clashes(Gnu(web1)) == ([], [])
