# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: what the other cases rest on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from lab import images, leaks, limits, processes, tree
from lab.leaks import Watch
from lab.reset import Inventory
from lab.supervisor import Supervised
from lab.wait import until
from pycor_hooks import kernel

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from lab.daemon import Daemon
    from lab.overlays import Overlays


def test_a_process_that_detached_itself_is_known_and_killed(tmp_path: Path) -> None:
    """A supervisor knows what its command forked away, and takes it along in the end."""
    script = "setsid sleep 1000 & exit 0"
    service = Supervised(["sh", "-c", script], log=str(tmp_path / "log"), env=os.environ)
    until(lambda: not service.alive, what="the command has ended")
    until(
        lambda: [row.command for row in service.descendants()] == ["sleep 1000"],
        what="only the orphan is left",
    )
    (orphan,) = service.descendants()
    service.end()
    assert not orphan.alive


def test_a_supervisor_outlives_nobody(tmp_path: Path) -> None:
    """When whoever started a supervisor is killed, its service goes, too."""
    code = (
        "import os, signal; from lab.supervisor import Supervised;"
        "service = Supervised(['sleep', '1000'], log=os.devnull, env=os.environ);"
        "print(service.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -9
    pid = int(done.stdout)
    until(lambda: processes.look_up(pid) is None, what="the service is gone")


DEAD_LXCFS = """
import subprocess
from lab import world
from lab.wait import until
from pycor_hooks import kernel
kernel.umount(world.LXCFS, kernel.MNT_DETACH)  # the one that serves this test
lxcfs = subprocess.Popen(["lxcfs", "-f", "-p", "lxcfs.pid", world.LXCFS])
until(lambda: kernel.fs_magic(world.LXCFS) == 0x65735546, what="it serves")  # FUSE
lxcfs.kill()
lxcfs.wait()
with world.World():
    print(open(f"{world.LXCFS}/proc/uptime").read())
"""


def test_a_dead_lxcfs_is_replaced(daemon: Daemon, tmp_path: Path) -> None:
    """Where lxcfs was killed and its mount has stayed, containers get one of the lab's own."""
    del daemon  # it made the mount point
    command = ["unshare", "--mount", sys.executable, "-c", DEAD_LXCFS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) > 0


def test_limits_are_put_back_by_the_last_lab(daemon: Daemon, tmp_path: Path) -> None:
    """Two labs at once: the first to leave changes nothing, the last one puts back."""
    del daemon  # its world holds the real note; this test has one of its own
    note = str(tmp_path / "note")
    name = "fs/inotify/max_user_instances"
    before = _sysctl(name)
    limits.write(name, 128)
    try:
        with limits.raised(note):
            code = f"from lab import limits\nwith limits.raised({note!r}): pass"
            subprocess.run([sys.executable, "-c", code], check=True)
            assert _sysctl(name) == limits.WANTED[name]
        assert _sysctl(name) == 128
        assert not os.path.exists(note)
    finally:
        limits.write(name, before)


def _sysctl(name: str) -> int:
    with open(f"/proc/sys/{name}", encoding="ascii") as value:
        return int(value.read())


def test_a_tree_s_changes_are_named(tmp_path: Path) -> None:
    """Content, mode and attributes count; what is new and what is gone does, too."""
    for name in ("content", "mode", "xattr", "gone", "same"):
        (tmp_path / name).write_text("1")
    before = tree.describe(str(tmp_path))
    status = os.stat(tmp_path / "content")
    (tmp_path / "content").write_text("2")
    os.utime(tmp_path / "content", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "mode").chmod(0o600)
    os.setxattr(tmp_path / "xattr", "user.x", b"1")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").mkdir()
    changed = [
        line.partition(":")[0] for line in tree.changes(before, tree.describe(str(tmp_path)))
    ]
    assert changed == ["gone", "new", ".", "content", "mode", "xattr"]


def test_nothing_of_a_daemon_shows_on_the_host_s_network(daemon: Daemon) -> None:
    """The bridge is in the World's network namespace, and in no other."""
    bridge = daemon.network()
    assert bridge in os.listdir("/sys/class/net")
    host = daemon.world.run_outside(["ip", "link", "show", bridge], check=False)
    assert host.returncode == 1


def test_containers_run_on_while_the_daemon_restarts(daemon: Daemon) -> None:
    """The supervised daemon is restarted alone."""
    inventory = Inventory(daemon.client)
    web1 = daemon.client.launch("busybox", "web1")
    before = web1.pid
    daemon.restart()
    assert web1.pid == before
    inventory.remove_what_came_since()


def test_the_busybox_system_reboots_and_powers_off(daemon: Daemon) -> None:
    """What an operator types inside works, and quickly."""
    inventory = Inventory(daemon.client)
    web1 = daemon.client.launch("busybox", "web1")
    before = web1.pid
    web1.run("reboot")
    until(lambda: web1.status == "Running" and web1.pid not in {0, before}, what="rebooted")
    web1.run("poweroff")
    web1.wait("Stopped")
    inventory.remove_what_came_since()


def test_the_samples_arrive_in_a_container(daemon: Daemon) -> None:
    """A setuid bit, a file capability and an access list come through the image."""
    inventory = Inventory(daemon.client)
    web1 = daemon.client.launch("busybox", "web1")
    script = "while read -r key real effective rest; do echo $key $effective; done"
    status = web1.exec(f"/{images.SETUID}", "-pc", script + " </proc/self/status", user=1000)
    assert "Uid: 0\n" in status
    status = web1.exec(f"/{images.CAPABLE}", "grep", "CapEff", "/proc/self/status", user=1000)
    assert int(status.split()[1], 16) == 1 << images.CAP_NET_RAW
    assert web1.exec("cat", f"/{images.ACL_FILE}", user=1000) == "acl\n"
    assert web1.run("cat", f"/{images.ACL_FILE}", user=1001).returncode
    inventory.remove_what_came_since()


def test_a_leak_of_any_kind_is_named(
    installed: Overlays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount, a process, a namespace, a state file, a complaint of the kernel, a touched base."""
    watch = Watch(installed.daemon, installed.base.rootfs)
    assert (watch.passing(), watch.lasting()) == ([], [])
    state = os.path.join(installed.daemon.records, "web1")
    target = os.path.join(installed.daemon.world.directory, "mounted")
    os.makedirs(state)
    os.mkdir(target)
    kernel.mount(str(tmp_path), target, "", kernel.MS_BIND)
    with subprocess.Popen(["unshare", "--uts", "sleep", "1000"]) as process:
        until(lambda: "sleep 1000" in str(watch.passing()), what="it has its namespace")
        with open(f"/proc/{process.pid}/ns/uts", encoding="ascii"):
            found = watch.passing()
        process.kill()
    assert [line.partition(":")[0] for line in found] == [
        *("mount", "process", "namespace", "state")
    ]
    kernel.umount(target)
    os.rmdir(target)
    os.rmdir(state)
    assert watch.passing() == []

    other = Watch(installed.daemon, str(tmp_path))
    (tmp_path / "new").touch()
    # not the real word: it would be a leak to every other lab on this kernel
    monkeypatch.setattr(leaks, "COMPLAINT", re.compile("pycor-lab-test:"))
    with open("/dev/kmsg", "w", encoding="ascii") as log:
        log.write("pycor-lab-test: written by the test of the lab, no complaint\n")
    assert [line.partition(":")[0] for line in other.lasting()] == ["kernel log", "base", "base"]
    other.close()
    watch.close()
