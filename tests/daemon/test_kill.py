# SPDX-License-Identifier: GPL-3.0-or-later
"""Monitors and hooks that are killed: the overlay goes, and the next start is clean."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lab import before_hooks, live
from lab.steps import Step
from lab.wait import until

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.watcher import Watcher

TAKEN_DOWN_AFTER_S = 5.0
OWN = "written by the container\n"


def kill_monitor(container: Instance) -> None:
    """SIGKILL; the kernel takes the container's init along, and no hook runs."""
    monitor = container.monitor
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGKILL)


def write(container: Instance) -> None:
    """Write what must not get lost."""
    container.exec("sh", "-c", "cat >/root/own; sync", text=OWN)


def assert_clean_start(overlays: Overlays, container: Instance, *, own: bool = True) -> None:
    """Start it: one overlay, of this start, with what was written, and nothing staged."""
    container.start()
    assert live.mounts(overlays) == [container.merged]
    monitor = container.monitor
    assert monitor is not None
    assert live.of(container).monitor == monitor.pid
    if own:
        assert container.exec("cat", "/root/own") == OWN
    assert container.exec("cat", "/etc/hostname") == f"{container.name}\n"
    assert live.states(overlays) == {container.name: "mounted"}


# -- the monitor


def test_a_killed_monitor_with_a_watcher(overlays: Overlays, watcher: Watcher) -> None:
    """The watcher takes the overlay down within 5 s of the kill; the next start is clean."""
    web1 = overlays.launch("web1")
    write(web1)
    kill_monitor(web1)
    until(
        lambda: not os.path.exists(web1.record) and not live.mounts(overlays),
        what="the overlay is taken down",
        timeout_s=TAKEN_DOWN_AFTER_S,
    )
    watcher.wait_log("web1: its monitor is gone; overlay taken down")  # said once it is done
    assert_clean_start(overlays, web1)


def test_a_killed_monitor_without_a_watcher(overlays: Overlays) -> None:
    """The next start finds the overlay of the killed one, and takes it down first."""
    web1 = overlays.launch("web1")
    write(web1)
    for _ in range(2):
        kill_monitor(web1)
        until(lambda: web1.status != "Running", what="the daemon has noticed")
        assert live.mounts(overlays) == [web1.merged]
        assert_clean_start(overlays, web1)


def test_a_killed_monitor_and_a_deleted_container(overlays: Overlays, watcher: Watcher) -> None:
    """A container that is deleted after its monitor was killed leaves no overlay either."""
    del watcher
    web1 = overlays.launch("web1")
    kill_monitor(web1)
    web1.delete()
    until(
        lambda: not os.path.exists(web1.record) and not live.mounts(overlays),
        what="the overlay is taken down",
        timeout_s=TAKEN_DOWN_AFTER_S,
    )


# -- a hook


# Of these calls there are as many in both id regimes.
OVERLAY, BOUND = Step("mount", 1, "the overlay"), Step("mount", 2, "the rootfs, private")
DETACH = Step("umount2", 1, "bind on the rootfs")
UNMOUNT = Step("umount2", 1, "merged")
FORGET = Step("unlink", 1, "state")


@pytest.mark.slow_on_lxd
def test_a_hook_killed_on_the_way_up(overlays: Overlays) -> None:
    """Pre-start and start-host killed: the start fails, nothing stays, the next one is clean."""
    cases = {
        "before-mount": {"pre-start": OVERLAY},
        "when-bound": {"pre-start": BOUND},
        "before-detach": {"start-host": DETACH},
    }
    containers = []
    for name, steps in cases.items():
        containers.append(overlays.init(name))
        before_hooks.put(overlays, containers[-1], {hook: at.kill() for hook, at in steps.items()})

    def start(container: Instance) -> int:
        return overlays.client("start", container.name, check=False).returncode

    with ThreadPoolExecutor() as pool:  # LXD takes 30 s to say so
        assert list(pool.map(start, containers)) == [1] * len(containers)
    until(lambda: not live.mounts(overlays), what="post-stop has taken them down")
    for container in containers:
        before_hooks.remove(container)
        assert_clean_start(overlays, container, own=False)
        container.stop(force=True)
        until(lambda: not live.mounts(overlays), what="it is taken down")


def test_a_hook_killed_on_the_way_down(overlays: Overlays) -> None:
    """Stop killed: post-stop does its work; both killed: the next start, or ``watch --once``."""
    web1 = overlays.launch("web1")
    write(web1)
    for steps, after in (
        ({"stop": UNMOUNT}, "post-stop"),
        ({"stop": FORGET}, "post-stop"),
        ({"stop": UNMOUNT, "post-stop": UNMOUNT}, "start"),
        ({"stop": FORGET, "post-stop": FORGET}, "start"),
        ({"stop": UNMOUNT, "post-stop": FORGET}, "watch --once"),
    ):
        before_hooks.put(overlays, web1, {hook: at.kill() for hook, at in steps.items()})
        web1.restart(force=True)  # with the hooks of this round
        web1.stop()
        web1.wait("Stopped")
        if after == "post-stop":
            until(lambda: not os.path.exists(web1.record), what="post-stop has done it")
        else:
            assert os.path.exists(f"{web1.record}/state"), steps
        if after == "watch --once":
            overlays.pycor_hooks("watch", "--once")
            assert not os.path.exists(web1.record)
        before_hooks.remove(web1)
        assert_clean_start(overlays, web1)
