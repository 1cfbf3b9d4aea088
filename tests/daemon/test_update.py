# SPDX-License-Identifier: GPL-3.0-or-later
"""What running containers see of a base that changes: when it stops, and while it runs."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.watcher import Watcher

APP = "/usr/share/app"
SEEN_AFTER_S = 1.0
"""From the end of the base's stop until its containers see what was done to it."""


def release(number: int) -> str:
    """A script for release ``number`` of APP: one file replaced, one new, one deleted."""
    return (
        f"cd {APP}; echo {number} >version.new; mv version.new version;"
        f"echo fresh {number} >fresh-{number}; rm -f fresh-{number - 1}"
    )


def of(number: int) -> str:
    """What a container sees that sees release ``number``."""
    return f"{number}\nfresh {number}\n"


def seen(container: Instance) -> str:
    """What a container sees; it has looked for the files of releases to come as well."""
    names = "fresh-1 fresh-2 fresh-3 fresh-4 fresh-5 fresh-6 fresh-7 fresh-8"
    return container.run("sh", "-c", f"cd {APP}; cat version {names} 2>/dev/null").stdout


def start_release(base: Instance, number: int) -> None:
    """Start the base, make a release in it, and leave it running."""
    base.start()
    base.exec("sh", "-c", release(number))


def publish(base: Instance, number: int) -> None:
    """Make a release in the base, which is stopped before and afterwards."""
    start_release(base, number)
    base.stop()
    base.wait("Stopped")


# -- the ways of stopping it


def stop(base: Instance) -> None:
    """``lxc stop base``."""
    base.stop()


def poweroff(base: Instance) -> None:
    """``poweroff``, inside."""
    base.run("poweroff")
    base.wait("Stopped")


def kill_init(base: Instance) -> None:
    """Its init is killed."""
    os.kill(base.pid, signal.SIGKILL)
    base.wait("Stopped")


def stop_by_force(base: Instance) -> None:
    """``lxc stop --force base``."""
    base.stop(force=True)


def restart(base: Instance) -> None:
    """``lxc restart base``, which leaves it running, and then a stop."""
    base.restart()
    base.stop()


def reboot(base: Instance) -> None:
    """``reboot``, inside, which leaves it running, and then a stop."""
    before = base.monitor
    base.run("reboot")
    until(lambda: base.monitor not in {None, before}, what="it has a new monitor")
    base.wait("Running")
    base.stop()


WAYS: list[Callable[[Instance], None]] = [
    *(stop, poweroff, kill_init, stop_by_force),
    *(restart, reboot),
]


@pytest.mark.updates_base
def test_every_way_of_stopping_the_base(overlays: Overlays, watcher: Watcher) -> None:
    """Within 1 s of the end of the base's stop its containers see the update, by themselves."""
    publish(overlays.base, 1)
    containers = [overlays.launch(name) for name in ("web1", "web2")]
    for number, way in enumerate(WAYS, 2):
        assert [seen(container) for container in containers] == [of(number - 1)] * 2, way
        start_release(overlays.base, number)
        seen(containers[0])  # what was looked up is remembered, present or absent, most often
        refreshes = live.Refreshes(containers)
        way(overlays.base)
        refreshes.wait(timeout_s=SEEN_AFTER_S)
        assert [seen(container) for container in containers] == [of(number)] * 2, way
    assert "WARNING" not in watcher.log()


@pytest.mark.updates_base
def test_files_pushed_to_the_stopped_base(overlays: Overlays, watcher: Watcher) -> None:
    """A file pushed to the stopped base, or deleted from it, is seen; from Incus when asked."""
    client, path = overlays.client, f"base{APP}/fresh-1"
    web1 = overlays.launch("web1")
    assert seen(web1) == "1\n"

    refreshes = live.Refreshes([web1])
    client("file", "push", "-", path, text="fresh 1\n")
    if overlays.daemon.kind == "incus":  # announces no such thing
        watcher.signal(signal.SIGHUP)
    refreshes.wait(timeout_s=SEEN_AFTER_S)
    assert seen(web1) == of(1)

    refreshes = live.Refreshes([web1])
    client("file", "delete", path)
    if overlays.daemon.kind == "incus":
        overlays.pycor_hooks("remount", "web1")
    refreshes.wait(timeout_s=SEEN_AFTER_S)
    assert seen(web1) == "1\n"


@pytest.mark.updates_base
def test_a_base_left_running(overlays: Overlays, watcher: Watcher) -> None:
    """While the base runs, a container sees old and new mixed: what it knows is old, ls is new.

    It starts, with a warning in its log; ``status`` and ``remount`` say that the base runs;
    and when the base stops all is new.
    """
    publish(overlays.base, 1)
    overlays.base.start()
    web1 = overlays.launch("web1")
    assert "base base is running: until it stops, web1 may see" in web1.log()
    code, rows = live.status(overlays)
    assert (code, rows["web1"]["base_state"], rows["web1"]["state"]) == (0, "running", "mounted")

    assert seen(web1) == of(1)
    overlays.base.exec("sh", "-c", release(2) + "; echo unknown >unknown; echo more >>version")
    watcher.signal(signal.SIGHUP)
    remount = overlays.pycor_hooks("remount", "--all", check=False)
    assert remount.returncode == 1
    assert "pending" in remount.stdout
    assert seen(web1) == of(1)
    assert web1.exec("cat", f"{APP}/unknown") == "unknown\n"
    listed = web1.run("ls", APP)
    assert "fresh-2: No such file" in listed.stderr  # in the directory, and known to be absent
    assert "fresh-1" not in listed.stdout

    refreshes = live.Refreshes([web1])
    overlays.base.stop()
    refreshes.wait(timeout_s=SEEN_AFTER_S)
    assert seen(web1) == "2\nmore\nfresh 2\n"


# -- another tree in its place


def snapshot_words(overlays: Overlays, word: str) -> list[str]:
    """The client's command for ``create``, ``restore`` or ``delete`` of the base's snapshot s."""
    if overlays.daemon.kind == "incus":
        return ["snapshot", word, "base", "s"]
    return {
        "create": ["snapshot", "base", "s"],
        "restore": ["restore", "base", "s"],
        "delete": ["delete", "base/s"],
    }[word]


@pytest.mark.updates_base
def test_a_base_restored_from_a_snapshot(overlays: Overlays, watcher: Watcher) -> None:
    """Restored in place (dir) it is seen; where its tree is replaced (btrfs), after a restart."""
    publish(overlays.base, 1)
    overlays.client(*snapshot_words(overlays, "create"))
    publish(overlays.base, 2)
    web1 = overlays.launch("web1")
    assert seen(web1) == of(2)
    refreshes = live.Refreshes([web1])
    overlays.client(*snapshot_words(overlays, "restore"))
    refreshes.wait(timeout_s=SEEN_AFTER_S)
    if overlays.daemon.driver == "btrfs":
        watcher.wait_log("web1: base base was replaced or re-owned: restart it")
        code, rows = live.status(overlays)
        assert (code, rows["web1"]["state"]) == (1, "detached")
        assert seen(web1) == of(2)
        web1.restart()
    else:
        assert "restart" not in watcher.log()
    assert seen(web1) == of(1)
    assert live.states(overlays) == {"web1": "mounted"}
    overlays.client(*snapshot_words(overlays, "delete"))


@pytest.mark.updates_base
def test_a_base_deleted_and_made_again(overlays: Overlays, watcher: Watcher) -> None:
    """Log and status name the containers on a base that is gone, or another; a restart cures."""
    web1, web2 = (overlays.launch(name) for name in ("web1", "web2"))
    overlays.base.set(**{"security.protection.delete": "false"})
    overlays.base.delete()
    watcher.wait_log("base: deleted; correct raw.lxc of the profiles that name it: overlay\n")
    for name in ("web1", "web2"):
        watcher.wait_log(f"{name}: base base is gone")
    code, rows = live.status(overlays)
    assert (code, rows["web1"]["state"], rows["web1"]["base_state"]) == (1, "detached", "missing")

    overlays.client.launch("busybox", "base").stop()
    for name in ("web1", "web2"):
        watcher.wait_log(f"{name}: base base was replaced or re-owned: restart it")
    assert live.states(overlays) == {"web1": "detached", "web2": "detached"}
    web1.restart(force=True)
    assert web1.exec("cat", f"{APP}/version") == "1\n"
    assert live.states(overlays) == {"web1": "mounted", "web2": "detached"}
    web2.stop(force=True)
    overlays.install()  # protects it from being deleted again


def test_a_base_renamed(overlays: Overlays, watcher: Watcher) -> None:
    """The log names the profile that says the old name; under that name again, all is well."""
    web1 = overlays.launch("web1")
    overlays.client("move", "base", "base2")
    watcher.wait_log("base: renamed to base2; correct raw.lxc of the profiles that name it: over")
    assert live.states(overlays) == {"web1": "detached"}
    assert web1.exec("cat", f"{APP}/version") == "1\n"
    overlays.client("move", "base2", "base")
    assert live.states(overlays) == {"web1": "mounted"}


@pytest.mark.updates_base
def test_a_base_re_owned(overlays: Overlays, watcher: Watcher) -> None:
    """Where the daemon gave the base other owners, a restart is asked for, and cures."""
    web1 = overlays.launch("web1")
    before = os.stat(overlays.base.rootfs).st_uid
    overlays.base.set(**{"security.privileged": "true"})
    overlays.base.start()
    overlays.base.stop()
    if os.stat(overlays.base.rootfs).st_uid != before:  # shifted on disk, not by its mount
        watcher.wait_log("web1: base base was replaced or re-owned: restart it")
        assert live.states(overlays) == {"web1": "detached"}
        web1.restart()
    assert web1.exec("stat", "-c", "%u:%g", "/home/user", "/etc/shadow") == "1000:1000\n0:0\n"
    assert live.states(overlays) == {"web1": "mounted"}
    overlays.base.set(**{"security.privileged": "false"})
    overlays.base.start()
    overlays.base.stop()
