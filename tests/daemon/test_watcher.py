# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher on a real daemon: killed, restarted, beside another one, with many overlays."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.wait import until
from lab.watcher import Watcher
from pycor_hooks import kernel
from tests.daemon.test_update import SEEN_AFTER_S, of, publish, seen, start_release

if TYPE_CHECKING:
    from lab.overlays import Overlays

RECONNECTED_AFTER_S = 5.0
"""From the daemon's being ready until the watcher follows it again."""
MANY = 20


@pytest.mark.updates_base
def test_a_base_that_changed_while_the_watcher_was_dead(
    overlays: Overlays, watcher: Watcher
) -> None:
    """A watcher that was killed, and is started again, makes good what it has missed."""
    web1 = overlays.launch("web1")
    assert seen(web1) == "1\n"
    watcher.kill()
    refreshes = live.Refreshes([web1])
    publish(overlays.base, 1)
    assert seen(web1) == "1\n"
    watcher.start()
    refreshes.wait(timeout_s=SEEN_AFTER_S)
    assert seen(web1) == of(1)
    began = time.monotonic()
    assert watcher.end() == 0
    assert time.monotonic() - began < 1


@pytest.mark.updates_base
@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_daemon_that_went_away(overlays: Overlays, watcher: Watcher, how: str) -> None:
    """The containers run on; the daemon is followed again within 5 s of its return."""
    web1, web2 = (overlays.launch(name) for name in ("web1", "web2"))
    pids = [web1.pid, web2.pid]
    assert seen(web1) == "1\n"
    if how == "restarted":
        overlays.daemon.stop()
    else:
        overlays.daemon.kill()
    watcher.wait_log("waiting for it to be started")
    assert live.states(overlays) == {"web1": "mounted", "web2": "mounted"}
    overlays.daemon.start()
    until(
        lambda: watcher.log().count("following its events") == 2,
        what="the daemon is followed again",
        timeout_s=RECONNECTED_AFTER_S,
    )
    assert [web1.pid, web2.pid] == pids
    assert live.mounts(overlays) == [web1.merged, web2.merged]

    start_release(overlays.base, 1)
    refreshes = live.Refreshes([web1, web2])
    overlays.base.stop()
    refreshes.wait(timeout_s=SEEN_AFTER_S)
    assert [seen(web1), seen(web2)] == [of(1)] * 2
    web1.stop()
    until(lambda: live.mounts(overlays) == [web2.merged], what="web1's overlay is gone")


@pytest.mark.updates_base
def test_two_watchers_and_remount_at_once(overlays: Overlays, watcher: Watcher) -> None:
    """Whoever comes second finds the work done, and nothing to complain about."""
    containers = [overlays.launch(f"web{number}") for number in range(4)]
    with Watcher(overlays.daemon, "second") as second:
        refreshes = live.Refreshes(containers)
        publish(overlays.base, 1)
        for _ in range(5):
            for each in (watcher, second):
                each.signal(signal.SIGHUP)
            overlays.pycor_hooks("remount", "--all")
        refreshes.wait(timeout_s=SEEN_AFTER_S)
        assert [seen(container) for container in containers] == [of(1)] * 4
        assert live.mounts(overlays) == [container.merged for container in containers]

        monitor = containers[0].monitor
        assert monitor is not None
        os.kill(monitor.pid, signal.SIGKILL)
        until(lambda: not os.path.exists(containers[0].record), what="its overlay is gone")
        until(
            lambda: "overlay taken down" in watcher.log() + second.log(),
            what="one of them has said so",
        )
        assert [each.end() for each in (watcher, second)] == [0, 0]  # nothing is under way
        logs = watcher.log() + second.log()
    assert "WARNING" not in logs
    assert "ERROR" not in logs
    assert logs.count("overlay taken down") == 1


@pytest.mark.updates_base
def test_watch_once(overlays: Overlays) -> None:
    """``watch --once`` refreshes and takes down what there is; exit status 1 if it could not."""
    web1, web2 = (overlays.launch(name) for name in ("web1", "web2"))
    assert seen(web1) == "1\n"
    publish(overlays.base, 1)
    monitor = web2.monitor
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGKILL)
    until(lambda: live.states(overlays)["web2"] == "orphaned", what="its init is gone as well")
    overlays.pycor_hooks("watch", "--once")
    assert seen(web1) == of(1)
    assert live.mounts(overlays) == [web1.merged]

    with open(f"{web1.merged}/etc/hostname", encoding="utf-8"):
        monitor = web1.monitor
        assert monitor is not None
        os.kill(monitor.pid, signal.SIGKILL)
        until(lambda: live.states(overlays)["web1"] == "orphaned", what="its init is gone as well")
        held = overlays.pycor_hooks("watch", "--once", check=False)
    assert held.returncode == 1
    assert "web1: overlay cannot be taken down: " in held.stderr
    overlays.pycor_hooks("watch", "--once")
    assert live.mounts(overlays) == []


@pytest.mark.updates_base
def test_twenty_containers_and_one_that_fails(overlays: Overlays, watcher: Watcher) -> None:
    """All are refreshed within 1 s of the base's stop; the one that cannot be is named."""
    names = [f"web{number:02}" for number in range(MANY)]
    containers = [overlays.init(name) for name in names]
    overlays.client("start", *names)
    broken, *sound = containers
    kernel.umount(broken.merged, kernel.MNT_DETACH)  # its container has a mount of its own
    code, rows = live.status(overlays)
    assert (code, rows[broken.name]["state"]) == (1, "missing")

    start_release(overlays.base, 1)
    refreshes = live.Refreshes(sound)
    overlays.base.stop()
    refreshes.wait(timeout_s=SEEN_AFTER_S)
    watcher.wait_log(f"ERROR   {broken.name}: cannot be refreshed: ", timeout_s=SEEN_AFTER_S)
    failed = [line for line in watcher.log().splitlines() if "cannot be refreshed" in line]
    assert [f" {broken.name}: " in line for line in failed] == [True] * len(failed)
    assert {seen(container) for container in (sound[0], sound[-1])} == {of(1)}
    assert broken.exec("cat", "/etc/hostname") == f"{broken.name}\n"

    broken.stop()
    until(lambda: broken.name not in live.states(overlays), what="it is forgotten")
    overlays.client("stop", "--force", *names[1:])
    until(lambda: not live.mounts(overlays), what="all are taken down")
