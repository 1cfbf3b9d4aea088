# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that reboot and restart: one overlay each, and nothing lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab import live
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.client import Instance
    from lab.overlays import Overlays

TIMES = 5


def reboot(container: Instance) -> None:
    """``reboot``, typed inside; our post-stop never runs then."""
    before = container.monitor
    container.run("reboot")
    until(lambda: container.monitor not in {None, before}, what="it has a new monitor")
    container.wait("Running")


def restart(container: Instance) -> None:
    """``lxc restart``."""
    container.restart()


def restart_by_force(container: Instance) -> None:
    """``lxc restart --force``."""
    container.restart(force=True)


def again_and_again(overlays: Overlays, how: Callable[[Instance], None], times: int) -> None:
    """Write, start again, look; the leak check reads the kernel log afterwards."""
    web1 = overlays.launch("web1")
    starts = {(live.of(web1).monitor, live.of(web1).monitor_start)}
    for number in range(1, times + 1):
        web1.exec("sh", "-c", f"echo {number} >>/root/written; sync")
        how(web1)
        assert live.mounts(overlays) == [web1.merged]
        record, monitor = live.of(web1), web1.monitor
        assert monitor is not None
        assert (record.monitor, record.monitor_start) == (monitor.pid, monitor.start)
        starts.add((monitor.pid, monitor.start))
        assert len(starts) == number + 1
        assert len(web1.exec("cat", "/root/written").split()) == number
        assert live.of(web1).init == web1.pid
    assert live.states(overlays) == {"web1": "mounted"}
    assert os.listdir(web1.rootfs) == []


def test_reboot_inside_five_times(overlays: Overlays) -> None:
    """Five reboots typed inside leave one overlay, the last start's, with all that was written."""
    again_and_again(overlays, reboot, TIMES)


def test_restart(overlays: Overlays) -> None:
    """So does a restart by the daemon."""
    again_and_again(overlays, restart, 2)


def test_restart_by_force(overlays: Overlays) -> None:
    """So does one that kills the container's init."""
    again_and_again(overlays, restart_by_force, 2)


def test_poweroff_inside(overlays: Overlays) -> None:
    """A container that powers itself off leaves no overlay, and starts again."""
    web1 = overlays.launch("web1")
    web1.exec("sh", "-c", "echo 1 >/root/written; sync")
    web1.run("poweroff")
    web1.wait("Stopped")
    until(lambda: not os.path.exists(web1.record), what="its overlay is gone")
    web1.start()
    assert web1.exec("cat", "/root/written") == "1\n"
    assert live.mounts(overlays) == [web1.merged]
