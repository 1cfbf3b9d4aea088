# SPDX-License-Identifier: GPL-3.0-or-later
"""LXD from the snap: refreshed, crashed, with pools that only it sees, and an unfit Python."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.overlays import COMMAND, Overlays
from lab.wait import until
from lab.watcher import Watcher
from pycor_hooks import journal, mountinfo, profile, sockets
from pycor_hooks.doctor import profiles
from pycor_hooks.doctor.check import FAIL
from tests.daemon.converging import hold, wait_converged
from tests.daemon.findings import faults, theme
from tests.daemon.test_kill import kill_monitor
from tests.daemon.test_privileges import allowed, granted, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.client import Instance
    from lab.processes import Process
    from lab.snap import SnapDaemon

VERSION = "/usr/share/app/version"


def update(overlays: Overlays, text: str) -> None:
    """Replace a file of the base, as a package manager does, and stop the base."""
    overlays.base.start()
    overlays.base.exec("sh", "-c", f"echo {text} >{VERSION}.new; mv {VERSION}.new {VERSION}")
    overlays.base.stop()
    overlays.base.wait("Stopped")


def assert_seen(containers: list[Instance], text: str) -> None:
    """Each container sees the base as it is now, soon."""
    for container in containers:
        until(
            partial(_sees, container, text),
            what=f"{container.name} sees {text}",
            timeout_s=10,
        )


def _sees(container: Instance, text: str) -> bool:
    return container.exec("cat", VERSION) == f"{text}\n"


def assert_whole(overlays: Overlays, containers: list[Instance]) -> None:
    """All of them run, each on its one overlay, which the host has, and nothing is staged."""
    assert live.mounts(overlays) == sorted(container.merged for container in containers)
    assert live.states(overlays) == {container.name: "mounted" for container in containers}
    assert [container.exec("cat", "/root/own") for container in containers] == [
        f"{container.name}\n" for container in containers
    ]


def launch(overlays: Overlays, *names: str) -> list[Instance]:
    """Containers that have written something."""
    found = [overlays.launch(name) for name in names]
    for container in found:
        container.exec("sh", "-c", f"echo {container.name} >/root/own")
    return found


def monitors_are_in(containers: list[Instance]) -> set[str]:
    """The mount namespaces of their monitors."""
    found = set()
    for container in containers:
        with contextlib.suppress(FileNotFoundError):  # it is on its way out
            monitor = container.monitor
            found |= {os.readlink(f"/proc/{monitor.pid}/ns/mnt")} if monitor else set()
    return found


def on_rootfs_in(monitor: Process | None) -> list[str]:
    """What of ours is mounted on the rootfs of any container, where a monitor is."""
    assert monitor is not None
    mounts = mountinfo.read(str(monitor.pid))
    return [mount.target for mount in mounts if mount.target.endswith("/rootfs")]


def reboot_into_new_namespace(webs: list[Instance]) -> None:
    """Reboot the first one, inside: its new monitor is in the daemon's namespace of now."""
    webs[0].run("reboot")
    until(lambda: len(monitors_are_in(webs)) == 2, what="web1 is in the new namespace")
    until(lambda: webs[0].status == "Running", what="web1 runs again")


def test_the_daemon_s_namespace_is_as_a_snap_s(snap: SnapDaemon) -> None:
    """No Python, no hooks, other libraries, and a namespace that is not process 1's."""
    assert snap.inside("/usr/bin/python3", "-c", "pass").returncode
    assert snap.inside("ls", snap.prefix).returncode
    (found,) = sockets.find_daemons([], {})
    assert found.directory == snap.directory
    process = sockets.find_process(found)
    with open(f"/proc/{process}/environ", "rb") as file:
        environ = file.read()
    assert b"LD_LIBRARY_PATH=:/var/snap" in environ
    assert b"PYTHONPATH=/var/snap" in environ
    assert os.readlink(f"/proc/{process}/ns/mnt") != os.readlink("/proc/1/ns/mnt")
    assert os.readlink("/proc/self/ns/mnt") == os.readlink("/proc/1/ns/mnt")


@pytest.mark.usefixtures("overlays")
def test_with_no_option(snap: SnapDaemon) -> None:
    """Commands find the snap by themselves; doctor has nothing to say but about the watcher."""
    env = {name: value for name, value in snap.env.items() if name != "LXD_DIR"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *words], env=env, capture_output=True, text=True, check=False
        )

    done = run("profile", "--prefix", snap.prefix)
    assert done.stdout == f"{snap.directory}: profile and image overlay are unchanged\n"
    assert profile.ENTER in run("profile", "--print").stdout
    assert run("status").returncode == 0
    found = json.loads(run("doctor", "--prefix", snap.prefix, "--format=json").stdout)
    failures = {row["name"]: row for row in found if row["state"] == FAIL}
    assert failures.keys() <= {"watcher"}, failures


def test_hooks_of_the_ordinary_form(overlays: Overlays, snap: SnapDaemon) -> None:
    """A profile whose hooks would run in the snap is named by doctor, and its remedy mends it."""
    ordinary = profile.body(prefix=snap.prefix, base="base", apart=False)["config"]["raw.lxc"]
    overlays.client("profile", "set", overlays.image, "raw.lxc", ordinary)
    subject = f"{snap.directory} {overlays.image}"
    found = faults(theme(overlays, profiles.check))["profile", subject]
    assert (found.state, "this daemon has for itself" in found.cause) == (FAIL, True)
    overlays.pycor_hooks(*shlex.split(found.remedy)[2:])
    assert ("profile", subject) not in faults(theme(overlays, profiles.check))
    overlays.launch("web1")


@pytest.mark.updates_base
def test_a_refresh_with_the_same_base(
    overlays: Overlays, watcher: Watcher, snap: SnapDaemon
) -> None:
    """Containers run on, the watcher follows again, an update is seen, stop and start work."""
    webs = launch(overlays, "web1", "web2")
    pids = [web.pid for web in webs]
    snap.restart()
    watcher.wait_log("following its events")
    assert [web.pid for web in webs] == pids
    assert_whole(overlays, webs)
    update(overlays, "same-base")
    assert_seen(webs, "same-base")
    webs[0].restart()
    assert_whole(overlays, webs)


@pytest.mark.updates_base
def test_a_refresh_with_another_base(
    overlays: Overlays, watcher: Watcher, snap: SnapDaemon
) -> None:
    """The same with a new namespace, while old monitors stay in the old one."""
    webs = launch(overlays, "web1", "web2")
    for web in webs:
        hold(web, VERSION)  # so that a refresh alone does not show what is new
    old = monitors_are_in(webs)
    snap.refresh("core24")
    watcher.wait_log("following its events")
    assert monitors_are_in(webs) == old
    assert_whole(overlays, webs)
    update(overlays, "other-base")
    assert_seen(webs, "other-base")
    reboot_into_new_namespace(webs)
    assert on_rootfs_in(webs[1].monitor) == []
    webs[1].stop()
    webs[1].wait("Stopped")
    webs[1].start()
    assert not monitors_are_in(webs) & old
    assert_whole(overlays, webs)


def test_a_start_after_a_cure_was_killed(overlays: Overlays) -> None:
    """The hook finishes it from its journal, in a namespace where it can load nothing."""
    (web,) = launch(overlays, "web1")
    web.stop()
    web.wait("Stopped")
    own = f"{web.volume}/overlay"
    whiteout = f"{own}/upper/root/gone"
    os.mknod(whiteout, stat.S_IFCHR, 0)
    book = journal.Journal(own)
    book.prepare(journal.Intent(init=2, init_start=1, ours=True, paths=["root/gone"], times={}))
    book.arm()
    book.close()
    web.start()
    assert not os.path.lexists(whiteout)
    assert sorted(os.listdir(own)) == ["upper", "work"]
    assert_whole(overlays, [web])


def test_a_crash_of_the_daemon(overlays: Overlays, watcher: Watcher, snap: SnapDaemon) -> None:
    """While it is down the watcher says so; containers run on, and restart when it is back."""
    webs = launch(overlays, "web1")
    snap.kill()
    watcher.wait_log("not running; waiting for it to be started")
    code, rows = live.status(overlays)
    assert (code, rows["web1"]["state"], rows["web1"]["base_state"]) == (0, "mounted", "unknown")
    sized = overlays.pycor_hooks("status", "--size", check=False)
    assert sized.returncode == 1
    assert "wait until it is back" in sized.stderr
    stale = overlays.pycor_hooks("stale", check=False)
    assert stale.returncode == 1
    assert "wait until it is back" in stale.stderr
    remounted = overlays.pycor_hooks("remount", "--all", "--format=json", check=False)
    (row,) = json.loads(remounted.stdout)
    assert row["result"] == "pending"
    assert "wait until it is back" in row["reason"]
    snap.start()
    assert_whole(overlays, webs)
    webs[0].restart()
    assert_whole(overlays, webs)


def test_a_monitor_killed_before_start_host(overlays: Overlays, snap: SnapDaemon) -> None:
    """What a killed start left on the rootfs, in the snap's namespace, is found and taken down."""
    web1 = overlays.launch("web1")
    place = live.of(web1).namespace
    assert place
    # as between pre-start and start-host: the overlay is on the rootfs
    tree = ["mount", "--bind", f"/var/lib/snapd/hostfs{web1.merged}", web1.rootfs]
    assert snap.inside(*tree).returncode == 0
    kill_monitor(web1)
    until(lambda: web1.status != "Running", what="the daemon has noticed")
    assert [m for m in snap.mounts() if m.target == web1.rootfs]
    overlays.pycor_hooks("watch", "--once")
    assert not [m for m in snap.mounts() if m.target == web1.rootfs]
    assert live.mounts(overlays) == []


def in_the_unit(snap: SnapDaemon, *without: str) -> Watcher:
    """A watcher with the capabilities of the systemd unit, but for some."""
    names = (f"+{name.removeprefix('CAP_').lower()}" for name in sorted(granted() - {*without}))
    bounds = f"--bounding-set=-all,{','.join(names)}"
    return Watcher(snap, prefix=["setpriv", "--no-new-privs", bounds])


@pytest.mark.updates_base
def test_what_the_unit_grants_is_enough_and_needed(overlays: Overlays, snap: SnapDaemon) -> None:
    """With its capabilities an update converges and an orphan goes; not without CAP_SYS_CHROOT."""
    web1, web2 = launch(overlays, "web1", "web2")
    with in_the_unit(snap) as watching:
        update(overlays, "granted")
        assert_seen([web1, web2], "granted")
        wait_converged(overlays, web1, web2)
        kill_monitor(web2)
        watching.wait_log("web2: its monitor is gone; overlay taken down")
        assert "ERROR" not in watching.log()
    with in_the_unit(snap, "CAP_SYS_CHROOT") as watching:
        watching.wait_log("Operation not permitted")


@pytest.mark.updates_base
def test_what_the_filter_of_the_unit_lets_through(
    overlays: Overlays, snap: SnapDaemon, tmp_path: Path
) -> None:
    """A watcher that steps into the daemon's namespace makes no call that the unit forbids."""
    for program in ("strace", "systemd-analyze"):
        if not shutil.which(program):
            pytest.skip(f"no {program} here")
    trace = str(tmp_path / "trace")
    (web1,) = launch(overlays, "web1")
    with Watcher(snap, prefix=["strace", "-D", "-f", "-q", "-o", trace]) as watching:
        update(overlays, "filtered")
        wait_converged(overlays, web1)
        watching.end()
        ended = f"{watching.pid} +++ exited with 0 +++"
        until(lambda: ended in " ".join(text_of(trace).split()), what="strace has seen all of it")
    calls = set(re.findall(r"^\d+ +(\w+)\(", text_of(trace), re.MULTILINE))
    assert {"setns", "unshare", "open_tree", "move_mount"} <= calls
    assert calls - allowed() == set()


@pytest.fixture
def hidden_pool(snap: SnapDaemon) -> Iterator[str]:
    """A pool on a file system that is mounted in the snap's namespace only."""
    source = f"{os.path.dirname(snap.directory)}/pool-hidden"
    os.mkdir(source)
    assert snap.inside("mount", "-t", "tmpfs", "tmpfs", source).returncode == 0
    yield source
    snap.inside("umount", "-l", source)
    os.rmdir(source)


@pytest.mark.updates_base
def test_a_pool_that_only_the_daemon_sees(
    overlays: Overlays, hidden_pool: str, snap: SnapDaemon, watcher: Watcher
) -> None:
    """Base and container on it start, are measured and updated, after a refresh, too."""
    client = overlays.client
    client("storage", "create", "hidden", "dir", f"source={hidden_pool}")
    client("copy", overlays.base.name, "second", "--storage", "hidden")
    second = Overlays(snap, "second")
    second.pycor_hooks("profile", "--base", "second", "--prefix", snap.prefix)
    web1 = second.launch("web1", "--storage", "hidden")
    web1.exec("sh", "-c", "echo web1 >/root/own")
    assert not os.path.exists(second.base.rootfs)  # here
    assert_whole(overlays, [web1])
    known = live.of(web1)
    os.unlink(known.state_path)
    watcher.wait_log("web1: its record was lost, and is made anew")
    assert_whole(overlays, [web1])
    again = live.of(web1)
    assert (again.namespace, again.lower_identity) == (known.namespace, known.lower_identity)
    sized = second.pycor_hooks("status", "--size", "--format=json").stdout
    assert json.loads(sized)[0]["upper_bytes"] > 0
    update(second, "hidden-1")
    assert_seen([web1], "hidden-1")
    snap.refresh("core24")
    watcher.wait_log("following its events")
    assert_whole(overlays, [web1])
    update(second, "hidden-2")
    assert_seen([web1], "hidden-2")
    web1.restart()
    assert_whole(overlays, [web1])


@pytest.mark.private
@pytest.mark.updates_base
def test_a_unit_with_private_mounts(overlays: Overlays, watcher: Watcher) -> None:
    """Each start of the daemon has a new namespace; containers of the old one go on."""
    raw_lxc = overlays.client.query(f"/1.0/profiles/{overlays.image}")["config"]["raw.lxc"]
    assert profile.enters(raw_lxc)
    webs = launch(overlays, "web1", "web2")
    assert_whole(overlays, webs)
    overlays.daemon.restart()
    watcher.wait_log("following its events")
    assert_whole(overlays, webs)
    update(overlays, "private")
    assert_seen(webs, "private")
    reboot_into_new_namespace(webs)
    assert_whole(overlays, webs)
