# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit's capabilities: with them all is done, and without any one of them something is not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.wait import until
from lab.watcher import Watcher
from pycor_hooks import share
from pycor_hooks.afterupdate import KEY
from pycor_hooks.systemd import UNIT
from tests.daemon.converging import hold, replace, stopped, wait_converged
from tests.daemon.test_update import SEEN_AFTER_S, of, publish, seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays

APP = "/usr/share/app"
VERSION = f"{APP}/version"
# A /proc that hides processes, from root too (proc(5)), in mounts that are otherwise the lab's.
HIDEPID = (
    *("unshare", "--mount", "--propagation=unchanged", "sh", "-c"),
    'mount --make-private /proc && mount -t proc -o hidepid=2,gid=65534 proc /proc && exec "$@"',
    "sh",
)


def granted() -> set[str]:
    """What the unit's CapabilityBoundingSet= has."""
    text = share.text_of(f"systemd/{UNIT}")
    (line,) = re.findall("^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    return set(line.split())


def confined(overlays: Overlays, capabilities: set[str]) -> Watcher:
    """The watcher with some capabilities, none to be gained, and a /proc that hides processes."""
    names = (f"+{name.removeprefix('CAP_').lower()}" for name in sorted(capabilities))
    privileges = ("setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(names)}")
    return Watcher(overlays.daemon, prefix=[*HIDEPID, *privileges])


def kill(container: Instance) -> None:
    """Kill its monitor, and with that its init: nobody takes its overlay down."""
    monitor = container.monitor
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGKILL)


@pytest.mark.updates_base
def test_what_is_granted_is_enough(overlays: Overlays) -> None:
    """With exactly the unit's capabilities it refreshes, takes down, and asks the daemon."""
    own_ids = ("-c", "security.idmap.isolated=true")
    web1, web2 = overlays.launch("web1"), overlays.launch("web2", *own_ids)
    web3 = overlays.launch("web3", "-c", "security.privileged=true")
    with confined(overlays, granted()) as watching:
        refreshes = live.Refreshes([web1, web2, web3])
        publish(overlays.base, 1)
        refreshes.wait(timeout_s=SEEN_AFTER_S)
        assert [seen(each) for each in (web1, web2, web3)] == [of(1)] * 3
        watching.wait_log("base: generation ")
        kill(web2)
        watching.wait_log("web2: its monitor is gone; overlay taken down")
        assert live.mounts(overlays) == [web1.merged, web3.merged]
        overlays.client("rename", "base", "base2")
        watching.wait_log("correct raw.lxc of the profiles that name it: overlay\n")
        overlays.client("rename", "base2", "base")
        log = watching.log()
    assert "ERROR" not in log
    assert re.findall("WARNING (.*): renamed", log) == ["base"]


def update_what_is_held(
    overlays: Overlays, containers: Sequence[Instance], *, mode: str = "755", owner: str = "0:0"
) -> None:
    """Have a file replaced that each container holds, in a directory that changes as well."""
    wait_converged(overlays, *containers)
    for container in containers:
        hold(container, VERSION)
    with stopped(overlays.base):
        replace(overlays.base, VERSION)
        overlays.base.exec("sh", "-c", f"chown {owner} {APP}; chmod {mode} {APP}")


@pytest.mark.updates_base
def test_what_is_granted_cures(overlays: Overlays) -> None:
    """With exactly the unit's capabilities it cures, in containers of whatever ids.

    The directories that it copies up are like the base's, then and after the next update.
    """
    own_ids = ("-c", "security.idmap.isolated=true")
    webs = [overlays.launch("web1"), overlays.launch("web2", *own_ids)]
    webs.append(overlays.launch("web3", "-c", "security.privileged=true"))
    with confined(overlays, granted()) as watching:
        update_what_is_held(overlays, webs)
        update_what_is_held(overlays, webs, mode="2751", owner="7:8")
        wait_converged(overlays, *webs)
        for web in webs:
            assert web.exec("stat", "-c", "%a %u:%g", APP) == "2751 7:8\n", web
        assert "stays stale" not in watching.log()
        assert watching.log().count("1 paths cured") == 2 * len(webs)


def allowed() -> set[str]:
    """The system calls that the unit's SystemCallFilter= lets through (systemd.exec(5))."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter"], check=True, capture_output=True, text=True
    ).stdout
    groups: dict[str, list[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            members = groups.setdefault(line, [])
        elif line.strip() and not line.strip().startswith("#"):
            members.append(line.strip())

    def expand(names: Iterable[str]) -> set[str]:
        return {
            call
            for name in names
            for call in (expand(groups[name]) if name.startswith("@") else [name])
        }

    found: set[str] = set()
    text = share.text_of(f"systemd/{UNIT}")
    for names in re.findall("^SystemCallFilter=(.*)$", text, re.MULTILINE):
        if names.startswith("~"):
            found -= expand(names[1:].split())
        else:
            found |= expand(names.split())
    return found


def text_of(path: str) -> str:
    """A file's content."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


@pytest.mark.once
@pytest.mark.updates_base
def test_what_the_filter_lets_through(overlays: Overlays, tmp_path: Path) -> None:
    """A watcher that looks, walks, cures, mirrors and restarts makes no call that is forbidden."""
    for program in ("strace", "systemd-analyze"):
        if not shutil.which(program):
            pytest.skip(f"no {program} here")
    trace = str(tmp_path / "trace")
    web1 = overlays.launch("web1", "-c", f"{KEY}=restart")
    with Watcher(overlays.daemon, prefix=["strace", "-D", "-f", "-q", "-o", trace]) as watching:
        update_what_is_held(overlays, [web1])
        update_what_is_held(overlays, [web1], mode="2751", owner="7:8")
        wait_converged(overlays, web1)
        assert watching.log().count("1 paths cured") == 2
        with stopped(overlays.base):
            replace(overlays.base, "/usr/bin/busybox")
        watching.wait_log("web1: needs a restart of the container: ", timeout_s=30)
        watching.end()
        ended = f"{watching.pid} +++ exited with 0 +++"
        until(lambda: ended in " ".join(text_of(trace).split()), what="strace has seen all of it")
    calls = set(re.findall(r"^\d+ +(\w+)\(", text_of(trace), re.MULTILINE))
    assert {"openat2", "unlinkat", "fchown", "mount", "execve"} <= calls
    assert calls - allowed() == set()


def mirror_nothing(overlays: Overlays, watcher: Watcher) -> None:
    """A directory that a cure copied up does not become like the base's."""
    web1 = overlays.launch("web1")
    with watcher:
        update_what_is_held(overlays, [web1])
        update_what_is_held(overlays, [web1], mode="2751", owner="7:8")
        watcher.wait_log("WARNING web1: 1 path stays stale (1 not-permitted)")
        assert web1.exec("stat", "-c", "%a %u:%g", APP) != "2751 7:8\n"


def lose_a_time(overlays: Overlays, watcher: Watcher) -> None:
    """A directory that a cure copied up shows when that was."""
    web1 = overlays.launch("web1")
    with watcher:
        update_what_is_held(overlays, [web1])
        wait_converged(overlays, web1)
    base, seen = (os.stat(f"{root}{APP}") for root in (overlays.base.rootfs, web1.merged))
    assert seen.st_mtime_ns > base.st_mtime_ns


def lose_a_bit(overlays: Overlays, watcher: Watcher) -> None:
    """A directory that a cure copied up loses the bit by which files inherit its group."""
    web1 = overlays.launch("web1")
    with watcher:
        update_what_is_held(overlays, [web1])
        update_what_is_held(overlays, [web1], mode="2751", owner="7:8")
        wait_converged(overlays, web1)
        assert web1.exec("stat", "-c", "%a %u:%g", APP) == "751 7:8\n"


def refresh_nothing(overlays: Overlays, watcher: Watcher) -> None:
    """The first look at an overlay, which refreshes it, fails."""
    overlays.launch("web1")
    with watcher:
        watcher.wait_log("ERROR   web1: cannot be refreshed: ")


def leave_an_orphan(overlays: Overlays, watcher: Watcher) -> None:
    """The overlay of a container that was killed stays."""
    web1 = overlays.launch("web1")
    with watcher:
        kill(web1)
        watcher.wait_log("WARNING web1: overlay cannot be taken down: ")
    overlays.pycor_hooks("watch", "--once")


def take_the_living_for_dead(overlays: Overlays, watcher: Watcher) -> None:
    """The overlay of a privileged container that runs goes."""
    web1 = overlays.launch("web1", "-c", "security.privileged=true")
    with watcher:
        watcher.wait_log("INFO    web1: its monitor is gone; overlay taken down")
    assert web1.status == "Running"


WITHOUT = {
    "CAP_CHOWN": mirror_nothing,
    "CAP_DAC_OVERRIDE": leave_an_orphan,
    "CAP_FOWNER": lose_a_time,
    "CAP_FSETID": lose_a_bit,
    "CAP_SYS_ADMIN": refresh_nothing,
    "CAP_SYS_PTRACE": take_the_living_for_dead,
}
ELSEWHERE = {"CAP_SYS_CHROOT"}
"""Needed for daemons in mount namespaces of their own: tests/snap."""


@pytest.mark.once
@pytest.mark.updates_base
@pytest.mark.parametrize("capability", sorted(granted() - ELSEWHERE))
def test_what_is_granted_is_needed(overlays: Overlays, capability: str) -> None:
    """Without any one of the unit's capabilities something of its work goes wrong."""
    WITHOUT[capability](overlays, confined(overlays, granted() - {capability}))
