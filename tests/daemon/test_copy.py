# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy, rename and delete of containers on a base, running and stopped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.daemon import content

if TYPE_CHECKING:
    from lab.overlays import Overlays


def test_a_running_container_is_copied(overlays: Overlays) -> None:
    """Each copy holds what was written and none of the base, and is a being of its own."""
    web1 = overlays.launch("web1")
    content.write(web1)
    for name, *flags in (("web2",), ("web3", "--stateless"), ("web4", "--instance-only")):
        overlays.client("copy", "web1", name, *flags)
        copy = overlays.client.instance(name)
        assert content.is_thin(copy.volume, web1.upper)
        copy.start()
        assert content.look(copy) == content.RIGHT
        assert content.are_apart(web1, copy)
        assert copy.exec("cat", "/etc/machine-id", "/etc/hostname") == f"{name}\n"
    assert content.look(web1) == content.RIGHT
    assert web1.exec("cat", "/etc/machine-id") == f"{content.MACHINE_ID}\n"


def test_a_stopped_container_is_copied(overlays: Overlays) -> None:
    """The copy needs its original no more; it is a being of its own."""
    web1 = overlays.launch("web1")
    content.write(web1)
    web1.stop()
    overlays.client("copy", "web1", "web2")
    web2 = overlays.client.instance("web2")
    assert content.is_thin(web2.volume, web1.upper)
    for container in (web1, web2):
        container.start()
    assert content.are_apart(web1, web2)
    web1.delete()
    web2.restart()
    assert content.look(web2) == content.RIGHT
    assert web2.exec("cat", "/etc/machine-id", "/etc/hostname") == "web2\n"


def test_a_copy_has_an_id_map_of_its_own(overlays: Overlays) -> None:
    """The copy of an isolated container gets other host ids, and every file keeps its owner."""
    web1 = overlays.launch("web1", "-c", "security.idmap.isolated=true")
    content.write(web1)
    overlays.client("copy", "web1", "web2")
    web2 = overlays.client.instance("web2")
    web2.start()
    assert content.look(web2) == content.RIGHT == content.look(web1)
    assert content.are_apart(web1, web2)
    first_line = [web.exec("head", "-n1", "/proc/self/uid_map") for web in (web1, web2)]
    assert first_line[0] != first_line[1]


def test_a_copy_is_refreshed(overlays: Overlays) -> None:
    """``copy --refresh`` brings what was written, removed, and removed and made again since."""
    web1 = overlays.launch("web1")
    overlays.client("copy", "web1", "web2")
    web2 = overlays.client.instance("web2")
    web2.start()
    web2.exec("sh", "-c", "echo changed >/usr/share/app/version; touch /usr/share/app/data/four")
    web2.stop()
    web2.wait("Stopped")
    content.write(web1)
    overlays.client("copy", "--refresh", "web1", "web2")
    assert content.is_thin(web2.volume, web1.upper)
    web2.start()
    assert content.look(web2) == content.RIGHT
    assert content.are_apart(web1, web2)


def test_a_container_is_renamed(overlays: Overlays) -> None:
    """It keeps all that it wrote; while it runs, the daemon refuses and nothing has changed."""
    web1 = overlays.launch("web1")
    content.write(web1)
    assert overlays.client("rename", "web1", "web2", check=False).returncode
    assert content.look(web1) == content.RIGHT
    web1.stop()
    overlays.client("rename", "web1", "web2")
    web2 = overlays.client.instance("web2")
    web2.start()
    assert content.look(web2) == content.RIGHT
    assert content.overlays_of(web2) == [web2.merged]
    assert not os.path.exists(web1.record)
    assert web2.exec("cat", "/etc/machine-id") == f"{content.MACHINE_ID}\n"


def test_a_running_container_is_deleted(overlays: Overlays) -> None:
    """``delete --force`` leaves nothing of it, and its name is free for a new container."""
    web1 = overlays.launch("web1")
    content.write(web1)
    volume = web1.volume
    web1.delete()
    assert not os.path.exists(volume)
    web1 = overlays.launch("web1")
    assert web1.run("ls", "/srv/own").returncode
    assert web1.exec("cat", "/usr/share/app/version") == "1\n"
    assert content.overlays_of(web1) == [web1.merged]
