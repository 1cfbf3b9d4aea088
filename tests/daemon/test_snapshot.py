# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of containers on a base, and their return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.daemon import content

if TYPE_CHECKING:
    from lab.overlays import Overlays

_SPOIL = """
set -e
rm -r /usr/share/app /srv/own /usr/bin/dash-setuid
mkdir /home/user
chmod 755 /usr/bin/own-setuid
echo later >/etc/later
"""


def test_a_running_container_returns_to_a_snapshot(overlays: Overlays) -> None:
    """The snapshot is thin; what was made since is gone, what was deleted before stays deleted."""
    web1 = overlays.launch("web1")
    content.write(web1)
    directory = content.take_snapshot(web1, "before")
    assert content.is_thin(directory, web1.upper)
    web1.exec("sh", "-c", _SPOIL)
    content.restore_snapshot(web1, "before")
    web1.wait("Running")
    assert content.look(web1) == content.RIGHT
    assert web1.run("ls", "/etc/later").returncode
    assert content.overlays_of(web1) == [web1.merged]
    assert web1.exec("cat", "/etc/machine-id") == f"{content.MACHINE_ID}\n"


def test_a_stopped_container_returns_to_a_snapshot(overlays: Overlays) -> None:
    """As a running one; and a copy of the snapshot is a being of its own."""
    web1 = overlays.launch("web1")
    content.write(web1)
    web1.stop()
    web1.wait("Stopped")
    directory = content.take_snapshot(web1, "before")
    assert content.is_thin(directory, web1.upper)
    web1.start()
    web1.exec("sh", "-c", _SPOIL)
    web1.stop()
    web1.wait("Stopped")
    content.restore_snapshot(web1, "before")
    web1.start()
    assert content.look(web1) == content.RIGHT
    assert web1.run("ls", "/etc/later").returncode

    overlays.client("copy", "web1/before", "web2")
    web2 = overlays.client.instance("web2")
    web2.start()
    assert content.look(web2) == content.RIGHT
    assert web2.exec("cat", "/etc/machine-id", "/etc/hostname") == "web2\n"
    assert [content.overlays_of(web) for web in (web1, web2)] == [[web1.merged], [web2.merged]]
