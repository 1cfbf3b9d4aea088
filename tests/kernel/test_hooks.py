# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks, run as liblxc runs them: what is mounted, recorded and taken down."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lab import steps
from lab.liblxc import Container, Monitor, make_base
from lab.starts import half_cured, run
from lab.wait import until
from pycor_hooks import instance, kernel, mountinfo, overlay, record, registry, takedown
from pycor_hooks.kernellog import KernelLog
from pycor_hooks.rawlxc import HOOKS

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mock import MockerFixture


def read(path: str) -> str:
    """What a file holds."""
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Make a file."""
    with open(path, "w") as file:
        file.write(text)


def test_start_shows_the_base_and_keeps_writes_apart(web: Container, base: str) -> None:
    """A started container sees the base's files, and what it writes lands in its upper alone."""
    web.start()
    assert read(f"{web.merged}/etc/os-release") == "etc/os-release of base\n"
    write(f"{web.merged}/etc/mine", "mine\n")
    assert read(f"{web.upper}/etc/mine") == "mine\n"
    assert not os.path.exists(f"{base}/etc/mine")
    web.stop()


def test_no_hook_reads_the_mount_table(web: Container, tmp_path: Path) -> None:
    """Which every container of the host makes longer: not on the usual way of any of the four."""
    calls = []
    for hook in HOOKS:
        if hook == "start-host":
            web.init = subprocess.Popen(["/bin/sleep", "infinity"])
        elif hook == "stop":
            web.kill_init()
        assert run(web, hook, steps.record(f"{tmp_path}/{hook}")) == 0, web.log()
        calls += steps.read(f"{tmp_path}/{hook}", f"{web.hooks}/{hook}")
    assert {"move_mount", "umount2"} <= {each.call for each in calls}
    assert [each for each in calls if '/mountinfo"' in each.arguments] == []


def test_a_monitor_that_dies_while_its_container_starts(web: Container) -> None:
    """What its hook has begun is taken down by that: there is nobody else who would do it."""
    web.monitor = monitor = web.new_monitor()
    with ThreadPoolExecutor(1) as pool:
        with registry.Lock(web.directory):
            begun = pool.submit(web.pre_start)
            (hook,) = until(lambda: _waiting(monitor.pid), what="its hook waits for the lock")
            os.kill(monitor.pid, signal.SIGKILL)
        with pytest.raises(AssertionError, match="the shell died"):
            begun.result(timeout=10)
        until(lambda: not instance.process_start(hook), what="the hook has ended")
    web.kill_monitor()
    assert "has died while it started: start it again" in web.log()
    assert web.overlays() == []
    assert not os.path.exists(web.directory)


def _waiting(monitor: int) -> list[int]:
    """The children of a monitor that wait in flock(2)."""
    with open(f"/proc/{monitor}/task/{monitor}/children", encoding="ascii") as file:
        return [pid for pid in map(int, file.read().split()) if _waits(pid)]


def _waits(pid: int) -> bool:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"hooks/pre-start" in file.read()


def test_pre_start_binds_the_overlay_on_the_rootfs_and_start_host_detaches_it(
    web: Container,
) -> None:
    """The rootfs shows the overlay from pre-start to start-host, privately, and no longer."""
    assert web.pre_start() == 0
    on_rootfs = [mount for mount in web.overlays() if mount.target == web.rootfs]
    assert [(mount.source, mount.shared) for mount in on_rootfs] == [("pycor-hooks", False)]
    assert web.hook("start-host") == 0
    assert [mount.target for mount in web.overlays()] == [web.merged]
    assert web.hook("post-stop") == 0


def test_the_mount_has_the_options_that_let_the_base_change(web: Container) -> None:
    """The overlay is mounted with userxattr, and without index, metacopy and redirects."""
    web.start()
    (mount,) = web.overlays()
    options = mount.options.split(",")
    assert {"userxattr", "redirect_dir=nofollow"} <= set(options)
    assert not {"index=on", "metacopy=on", "xino=on"} & set(options)
    assert mount.layers("upperdir") == [web.upper]
    web.stop()


def test_stop_leaves_only_what_the_container_wrote(web: Container) -> None:
    """After a stop, upper is still there, and neither mount nor record is."""
    web.start()
    write(f"{web.merged}/etc/mine", "mine\n")
    web.stop()
    assert read(f"{web.upper}/etc/mine") == "mine\n"
    assert not os.path.exists(web.directory)


def test_the_next_start_sees_the_changed_base(web: Container, base: str) -> None:
    """A base that changed while the container was stopped is seen by its next start."""
    web.start()
    web.stop()
    write(f"{base}/etc/new", "new\n")
    web.start()
    assert read(f"{web.merged}/etc/new") == "new\n"
    web.stop()


def test_post_stop_of_an_earlier_start_leaves_the_new_one(web: Container) -> None:
    """A late post-stop, with another monitor as its parent, takes nothing down."""
    late = Monitor()
    web.start()
    assert web.hook("post-stop", monitor=late) == 0
    assert len(web.overlays()) == 1
    late.kill()
    web.stop()


def test_a_start_after_a_killed_monitor_repairs(web: Container) -> None:
    """Monitor and init killed, no hook run: the next start has one overlay, of its own."""
    web.start()
    web.kill_init()
    web.kill_monitor()
    assert len(web.overlays()) == 1
    web.start()
    assert len(web.overlays()) == 1
    assert web.monitor is not None
    assert record.read(web.directory).monitor == web.monitor.pid
    web.stop()


def test_a_start_after_a_kill_between_pre_start_and_start_host_repairs(web: Container) -> None:
    """The bind on the rootfs, too, is gone before the next start mounts."""
    assert web.pre_start() == 0
    web.kill_monitor()
    assert len(web.overlays()) == 2
    web.start()
    assert [mount.target for mount in web.overlays()] == [web.merged]
    web.stop()


def test_an_orphan_is_taken_down_and_a_living_container_is_not(web: Container) -> None:
    """What the watcher calls takes down the overlay of a dead start, never of a living one."""
    web.start()
    now = record.read(web.directory)
    assert not takedown.orphan(now)
    web.kill_init()
    web.kill_monitor()
    assert takedown.orphan(now)
    assert web.overlays() == []


def test_a_new_start_while_the_old_init_lives_is_refused(web: Container) -> None:
    """Two overlays never share an upper: with the old init alive, the start is refused."""
    web.start()
    web.kill_monitor()
    init = web.init
    assert init is not None
    assert web.pre_start() == 1
    assert f"{init.pid}, the init of an earlier start" in web.log()
    assert [mount.target for mount in web.overlays()] == [web.merged]
    assert record.read(web.directory).init == init.pid
    web.kill_init()
    assert web.pre_start() == 0
    assert web.hook("post-stop") == 0


def test_a_start_refused_after_a_killed_cure_leaves_the_old_one_whole(web: Container) -> None:
    """It takes the cure's whiteout away, and the container that lives on sees its file again."""
    half_cured(web, dies=False)
    assert not os.path.exists(f"{web.merged}/usr/bin/tool")
    assert web.pre_start() == 1
    assert "the init of an earlier start" in web.log()
    assert os.path.exists(f"{web.merged}/usr/bin/tool")
    web.kill_init()
    assert web.pre_start() == 0
    assert web.hook("post-stop") == 0


def other_namespace(command: str) -> subprocess.Popen[bytes]:
    """A process in a private mount namespace of its own, once it has run the command there."""
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", f"{command}; echo; sleep 60"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_copies_of_the_mount_in_other_namespaces_go_with_it(web: Container) -> None:
    """Even a private copy goes away, with its mount point: the upper is free again."""
    web.start()
    other = other_namespace("true")
    (mount,) = web.overlays()
    assert mount.device in [copy.device for copy in mountinfo.read(str(other.pid))]
    web.stop()
    assert mount.device not in [copy.device for copy in mountinfo.read(str(other.pid))]
    end(other)


@pytest.mark.host_root
def test_an_overlay_that_lives_on_elsewhere_keeps_its_upper(web: Container) -> None:
    """Bound to another place in another namespace, the old overlay lives: no second one then."""
    web.start()
    other = other_namespace(f"mount --bind '{web.merged}' /mnt")
    web.stop()
    assert web.pre_start() == 1
    assert "in a mount namespace of its own: end that process" in web.log()
    assert web.overlays() == []
    end(other)
    web.start()
    web.stop()


@pytest.mark.host_root
def test_a_copy_of_the_bind_on_the_rootfs_is_cut_off(web: Container) -> None:
    """A namespace that was copied while the container started does not hold its upper for ever.

    Any user can make one, and be it by ``unshare -Urm``. With something in the bare rootfs, which
    cannot be replaced then, the start is refused, and nothing is lost.
    """
    assert web.pre_start() == 0
    other = other_namespace("true")
    web.init = subprocess.Popen(["/bin/sleep", "infinity"])
    assert web.hook("start-host") == 0
    web.stop()
    owner = os.stat(web.rootfs)
    write(f"{web.rootfs}/pushed", "pushed\n")
    assert web.pre_start() == 1
    assert f"is still held by process {other.pid} in a mount namespace of its own" in web.log()
    assert read(f"{web.rootfs}/pushed") == "pushed\n"
    os.unlink(f"{web.rootfs}/pushed")
    os.mkdir(f"{web.rootfs}.new")  # a try that was killed
    web.start()
    web.stop()
    now = os.stat(web.rootfs)
    assert (now.st_mode, now.st_uid, now.st_gid) == (owner.st_mode, owner.st_uid, owner.st_gid)
    assert sorted(os.listdir(web.volume)) == ["overlay", "rootfs"]
    end(other)


@pytest.mark.host_root
def test_a_complaint_about_another_s_upper_stops_nobody(
    web: Container, base: str, mocker: MockerFixture
) -> None:
    """Whoever can mount can fill the kernel log with complaints.

    The log is a mock: what is in the real one counts as a complaint in other tests, too.
    """
    web.start()
    web.stop()
    staging, merged = f"{web.daemon}/staging", f"{web.daemon}/merged"
    layers = overlay.Layers(
        lowerdirs=[base],
        base_key="base",
        volume=f"{web.volume}/overlay",
        lower_map=None,
        upper_map=None,
        fs_ids=(0, 0),
        staging=staging,
    )
    for directory in (staging, merged):
        os.mkdir(directory)
    mocker.patch.object(KernelLog, "may_tell_of_a_shared_upper", return_value=True)
    overlay.mount(layers, merged)
    assert read(f"{merged}/etc/hostname") == "etc/hostname of base\n"
    kernel.umount(merged)
    assert (os.listdir(staging), os.listdir(f"{staging}/probe")) == (["probe"], [])


def test_a_busy_overlay_stays_until_it_is_left(web: Container) -> None:
    """A host's process that works in the overlay keeps it from being unmounted lazily."""
    web.start()
    held = os.open(f"{web.merged}/etc", os.O_RDONLY)
    web.kill_init()
    assert web.hook("post-stop") == 1
    assert "is still held by a process of the host" in web.log()
    assert len(web.overlays()) == 1
    os.close(held)
    assert web.hook("post-stop") == 0


def test_a_foreign_mount_on_the_rootfs_is_refused_and_left(web: Container) -> None:
    """A mount on the rootfs that is not ours is neither covered nor unmounted."""
    kernel.mount("tmpfs", web.rootfs, "tmpfs", 0)
    assert web.pre_start() == 1
    assert "is a mount that pycor-hooks did not make" in web.log()
    assert [mount.fstype for mount in web.overlays()] == ["tmpfs"]
    kernel.umount(web.rootfs)


def test_a_refresh_shows_what_changed_in_the_base(web: Container, base: str) -> None:
    """Replaced, new and deleted files of the base are seen right after a refresh.

    The kernel drops the dentries before it asks OverlayFS, which is incidental: this test is
    what would notice if a kernel stopped doing so.
    """
    web.start()
    assert read(f"{web.merged}/etc/hostname") == "etc/hostname of base\n"
    assert not os.path.exists(f"{web.merged}/etc/new")
    write(f"{base}/etc/.hostname", "replaced\n")
    os.rename(f"{base}/etc/.hostname", f"{base}/etc/hostname")
    write(f"{base}/etc/new", "new\n")
    os.unlink(f"{base}/usr/bin/tool")
    overlay.refresh(web.merged)
    assert read(f"{web.merged}/etc/hostname") == "replaced\n"
    assert read(f"{web.merged}/etc/new") == "new\n"
    assert os.listdir(f"{web.merged}/usr/bin") == []
    web.stop()


def test_a_base_of_another_project_is_found(web: Container, daemon: Path) -> None:
    """--base PROJECT/NAME takes the instance of that project."""
    make_base(daemon, "blue_base2")
    assert web.pre_start(base="blue/base2") == 0
    assert read(f"{web.merged}/etc/hostname") == "etc/hostname of blue_base2\n"
    assert web.hook("post-stop") == 0


def test_paths_with_the_characters_of_the_mount_options(tmp_path: Path) -> None:
    """A daemon's directory with comma, colon, backslash and blank mounts like any other."""
    daemon = tmp_path / "a,b:c\\d e"
    daemon.mkdir()
    make_base(daemon)
    web = Container(str(daemon), "web1")
    try:
        web.start()
        (mount,) = web.overlays()
        assert mount.layers("upperdir") == [web.upper]
        web.stop()
    finally:
        web.end()
