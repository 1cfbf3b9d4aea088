# SPDX-License-Identifier: GPL-3.0-or-later
"""Ids that change in the life of a container and of its base."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab.overlays import Overlays

SWITCHES = [
    {"security.idmap.isolated": "true"},
    {"security.idmap.isolated": "false", "security.privileged": "true"},
    {"security.privileged": "false"},
]


def owners(text: str) -> str:
    """A stat command for the files of the base and of the container's own."""
    return f"stat -c %u:%g {text}"


def test_the_map_of_a_container_may_be_switched(overlays: Overlays) -> None:
    """Unprivileged, isolated, privileged and back: every file keeps its user inside."""
    web1 = overlays.launch("web1")
    web1.exec("sh", "-c", "echo >/home/user/own; chown 1000:1000 /home/user/own; echo >/etc/root")
    files = "/etc/passwd /home/user/.profile /home/user/own /etc/root"
    expected = web1.exec("sh", "-c", owners(files))
    assert expected == "0:0\n1000:1000\n1000:1000\n0:0\n"
    for switch in SWITCHES:
        web1.stop()
        web1.set(**switch)
        web1.start()
        assert web1.exec("sh", "-c", owners(files)) == expected, switch
        web1.exec("sh", "-c", f"echo more >>/home/user/own; echo more >/etc/{len(switch)}")


def test_a_daemon_that_was_killed_once_it_had_shifted_the_rootfs(overlays: Overlays) -> None:
    """It shifts it again, where it shifts; the container starts, with what templates gave it."""
    web1 = overlays.init("web1")
    shifts_to = os.lstat(overlays.base.rootfs).st_uid
    os.chown(web1.rootfs, shifts_to, shifts_to)
    web1.start()
    assert os.lstat(web1.rootfs).st_uid == 2 * shifts_to
    assert web1.exec("hostname") == "web1\n"
    assert web1.exec("sh", "-c", owners("/etc/hostname /etc/machine-id")) == "0:0\n0:0\n"


@pytest.mark.updates_base
def test_the_map_of_the_base_may_be_switched(overlays: Overlays) -> None:
    """A base that the daemon re-owns at its start is right in each container's next start."""
    web1 = overlays.launch("web1")
    web1.exec("sh", "-c", "echo >/home/user/own; chown 1000:1000 /home/user/own; echo >/etc/root")
    files = "/etc/passwd /home/user/.profile /home/user/own /etc/root"
    expected = web1.exec("sh", "-c", owners(files))
    for value in ("true", "false"):
        web1.stop()
        overlays.base.set(**{"security.privileged": value})
        overlays.base.start()
        overlays.base.stop()
        overlays.base.wait("Stopped")
        web1.start()
        assert web1.exec("sh", "-c", owners(files)) == expected, value
