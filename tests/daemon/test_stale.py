# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks stale` and `restart`, and what a container has chosen, after real updates."""

from __future__ import annotations

import json
import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from lab import live
from lab.wait import until
from pycor_hooks import procs, stale
from pycor_hooks.afterupdate import KEY
from pycor_hooks.staleness import Reason
from tests.daemon.converging import (
    generation,
    hold,
    inode,
    mapped,
    replace,
    stopped,
    wait_converged,
)

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.watcher import Watcher

VERSION = "/usr/share/app/version"
SYSTEM = (
    *("/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-journald", "/usr/bin/dbus-daemon"),
    *("/usr/lib/systemd/systemd-logind", "/usr/bin/sleep"),
)
NOT_BLINDLY = {"dbus.service", "systemd-logind.service"}
CONVERGING_KIB = 45 * 1024
"""What the watcher may hold at most; the process that restarts is another one."""
HOSTILE = "-x$(reboot)\x1b[2J.service"
_IN_CGROUP = """
sleep 1001 >/dev/null 2>&1 </dev/null &
for top in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    test -d "$top/system.slice" || continue
    mkdir "$top/system.slice/$0"
    echo $! >"$top/system.slice/$0/cgroup.procs"
done
"""
OWN_WAY = "/etc/needrestart/restart.d/frail.service"
_OWN_WAY = """
mkdir -p "${0%/*}"
printf '#!/bin/sh\nsystemctl restart frail; touch /var/own-way\n' >"$0"
chmod 755 "$0"
echo exit 1 >"${0%/*}/systemd-journald.service"  # not to be executed
"""
FRAIL = """\
[Service]
ExecStart=/bin/sh -c "test ! -e /etc/broken || exit 3; exec sleep 1000"
[Install]
WantedBy=multi-user.target
"""


def rows(overlays: Overlays, *words: str) -> list[dict[str, Any]]:
    """What ``stale`` says, which fits its exit status."""
    done = overlays.pycor_hooks("stale", *words, "--format=json", check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (int(bool(found)), "")
    return found


def units(overlays: Overlays, container: Instance) -> set[str]:
    """The units of a container that ``stale`` names."""
    return {row["unit"] for row in rows(overlays, container.name)}


def with_deleted(container: Instance) -> set[str | None]:
    """The units whose processes have something mapped that is deleted, by the kernel's word."""
    return {
        procs.unit(task)
        for task, paths in mapped(container).items()
        if any(path.endswith(" (deleted)") for path in paths)
    }


def restart(overlays: Overlays, *words: str) -> tuple[int, str, str]:
    """Exit status, and what ``restart`` says."""
    done = overlays.pycor_hooks("restart", *words, check=False)
    return done.returncode, done.stdout, done.stderr


def launch_frail(overlays: Overlays, name: str, *words: str) -> Instance:
    """A container with a service that does not start while there is an /etc/broken."""
    container = overlays.launch(name, *words)
    container.wait_booted()
    script = f"echo {shlex.quote(FRAIL)} >/etc/systemd/system/frail.service"
    container.exec("sh", "-ec", f"{script}; systemctl enable --now frail")
    return container


def check_rows(overlays: Overlays, web1: Instance, expected: set[str | None]) -> None:
    """Who runs what, since when; a dry run changes nothing."""
    assert units(overlays, web1) == expected
    found = rows(overlays, "web1", "web2")
    assert {row["generation"] for row in found} == {generation(overlays)}
    assert {path for row in found for path in row["files"]} == set(SYSTEM)
    (manager,) = (row for row in found if (row["instance"], row["unit"]) == ("web1", "init.scope"))
    assert (manager["pid"], manager["command"]) == (web1.pid, "systemd")
    assert manager["files"] == ["/usr/lib/systemd/systemd"]
    status, said, notes = restart(overlays, "--dry-run", "web1")
    assert (status, "would restart frail.service, " in said) == (1, True)
    assert "web1: needs a restart of the container: dbus.service, systemd-logind.service" in notes
    status, said, notes = restart(overlays, "--dry-run", "web1", "--format", "json")
    assert {row["unit"] for row in json.loads(said)} == expected
    assert "would restart frail.service, " in notes
    assert units(overlays, web1) == expected


def check_stop(overlays: Overlays, web1: Instance) -> None:
    """Where a unit fails in one container, the rest of it is restarted, and no other one."""
    web1.exec("touch", "/etc/broken")
    status, said, notes = restart(overlays, "web1", "web2")
    assert status == 1
    assert "web1: systemctl restart in web1: frail.service is failed, failed, exit-code" in notes
    assert notes.splitlines()[-1].endswith("; not begun: web2")
    assert "web2: restarted" not in said
    assert units(overlays, web1) == NOT_BLINDLY


@pytest.mark.updates_base
def test_stale_and_restart(debian_overlays: Overlays, watcher: Watcher) -> None:
    """Who runs old code is named; restart brings it to the new, or says why not.

    It stops where a unit fails; a container that has chosen so is restarted by the watcher, and
    a unit in the way that the container has for it.
    """
    overlays, base = debian_overlays, debian_overlays.base
    with ThreadPoolExecutor() as pool:
        making = [
            pool.submit(launch_frail, overlays, name, *words)
            for name, *words in [("auto", "-c", f"{KEY}=restart"), ("web1",), ("web2",)]
        ]
        auto, web1, web2 = (each.result() for each in making)
    web2.exec("sh", "-ec", _IN_CGROUP, HOSTILE)
    auto.exec("sh", "-ec", _OWN_WAY, OWN_WAY)
    wait_converged(overlays, auto, web1, web2)
    assert rows(overlays) == []
    with stopped(base):
        replace(base, *SYSTEM)
    wait_converged(overlays, auto, web1, web2)
    watcher.wait_log(f"auto: restarted frail.service by {OWN_WAY}", timeout_s=30)
    watcher.wait_log("auto: restarted systemd-journald.service", timeout_s=30)
    assert os.path.exists(f"{auto.upper}/var/own-way")
    assert units(overlays, auto) == NOT_BLINDLY
    assert watcher.usage.peak < CONVERGING_KIB

    expected = with_deleted(web1)
    assert expected >= NOT_BLINDLY | {"init.scope", "systemd-journald.service", "frail.service"}
    check_rows(overlays, web1, expected)
    check_stop(overlays, web1)
    assert units(overlays, web2) == {*expected, HOSTILE}
    assert "\x1b" not in overlays.pycor_hooks("stale", check=False).stdout

    before = web2.pid
    status, said, notes = restart(overlays, "--base", base.name, "--serial", "2")
    assert status == 1
    assert "web2: systemd has executed itself anew\nweb2: restarted frail.service, " in said
    escaped = HOSTILE.replace("\x1b", "\\x1b")
    assert f"web2: needs a restart of the container: {escaped}, dbus.service, " in notes
    assert units(overlays, web2) == with_deleted(web2) == {*NOT_BLINDLY, HOSTILE}
    assert web2.pid == before
    web2.restart()
    web2.wait_booted()
    assert rows(overlays, "web2") == []
    assert restart(overlays, "web2") == (0, "", "")


@pytest.mark.updates_base
def test_without_systemd(overlays: Overlays, watcher: Watcher) -> None:
    """A container without systemd is named, and a restart of it is the way."""
    del watcher
    web1 = overlays.launch("web1")
    web1.wait_listening()
    wait_converged(overlays, web1)
    with stopped(overlays.base):
        replace(overlays.base, "/usr/bin/busybox")
    wait_converged(overlays, web1)
    found = rows(overlays)
    assert {(row["unit"], tuple(row["files"])) for row in found} == {(None, ("/usr/bin/busybox",))}
    assert web1.pid in {row["pid"] for row in found}
    status, said, notes = restart(overlays)
    assert (status, "web1" in said) == (1, True)
    client = overlays.client.program
    assert "web1: needs a restart of the container: it has no systemd (" in notes
    assert notes.endswith(f"): {client} restart web1\n")
    web1.restart(force=True)
    assert rows(overlays) == []


@pytest.mark.once
@pytest.mark.host_s_mounts
@pytest.mark.updates_base
def test_stale_without_the_daemon(overlays: Overlays, watcher: Watcher) -> None:
    """The daemon is not needed to tell who runs what; --paths has a line for each file."""
    del watcher
    web1 = overlays.launch("web1")
    wait_converged(overlays, web1)
    with stopped(overlays.base):
        replace(overlays.base, "/usr/bin/busybox")
    wait_converged(overlays, web1)
    found = rows(overlays)
    overlays.daemon.stop()
    try:
        assert rows(overlays) == found != []
        listed = overlays.pycor_hooks("stale", "--paths", check=False).stdout
    finally:
        overlays.daemon.start()
    assert "FILES" not in listed
    assert listed.count("/usr/bin/busybox") == sum(len(row["files"]) for row in found)


@pytest.mark.updates_base
def test_report_only(overlays: Overlays, watcher: Watcher) -> None:
    """A container that has chosen it, here by a profile, is told of what is stale; no more.

    Another one has chosen what there is not, which is said, and is cured.
    """
    client, base = overlays.client, overlays.base
    client("profile", "create", "told")
    client("profile", "set", "told", KEY, "report")
    told = overlays.launch("told1", *("-p", "default", "-p", overlays.image, "-p", "told"))
    wrong = overlays.launch("wrong1", "-c", f"{KEY}=never")
    for container in (told, wrong):
        hold(container, VERSION)
    wait_converged(overlays, told, wrong)
    with stopped(base):
        replace(base, VERSION)
        base.exec("touch", "/etc/fresh")
    until(lambda: stale.read(live.of(told)), what="it is reported")
    wait_converged(overlays, wrong)
    assert f"wrong1: {KEY} is never, which is none of" in watcher.log()
    assert os.path.exists(f"{told.merged}/etc/fresh")
    assert inode(told, VERSION) != os.stat(base.rootfs + VERSION).st_ino
    assert not os.path.exists(f"{told.upper}/usr")
    (row,) = rows(overlays)
    assert (row["instance"], row["unit"], row["files"]) == ("told1", None, [VERSION])
    assert (row["reason"], row["generation"]) == (Reason.REPORTED.word, generation(overlays))
    overlays.pycor_hooks("remount", "told1")
    assert inode(told, VERSION) == os.stat(base.rootfs + VERSION).st_ino
    assert rows(overlays) == []
    for container in (told, wrong):
        container.delete()
    client("profile", "delete", "told")
