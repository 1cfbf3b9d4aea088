# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks doctor` on real daemons: silent where all is well, and what it says of containers.

Each seeded fault is looked for by the check that has to name it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner

from lab import live
from lab.wait import until
from pycor_hooks import kernel, pulse, record, registry
from pycor_hooks.cli import main
from pycor_hooks.doctor import leaks, profiles, watching
from tests.daemon.findings import doctor, explained, faults, of_containers, theme

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.watcher import Watcher
    from pycor_hooks.doctor.check import Check


def _leaks(overlays: Overlays, *, fix: bool = False) -> list[Check]:
    return list(leaks.check([overlays.daemon.directory], fix=fix))


CHECKS = {
    *("daemon", "overlay", "refresh", "idmapped layers"),
    *("python", "hooks are root's", "version", "byte code", "a start"),
    *("project", "profile", "image", "raw.lxc"),
    *("base", "btrfs", "ids", "base runs", "base is protected", "automatic updates"),
    *("ssh host keys", "cloud-init state", "machine-id", "nested store"),
    *("next start", "pool", "privileged"),
    *("inotify instances", "inotify watches", "keys", "bytes of keys", "pids", "mounts"),
    *("watcher", "left behind", "mounted"),
}


def test_a_sound_host(overlays: Overlays, watcher: Watcher) -> None:
    """Every check is made, none complains, and nothing is changed or left on the pool."""
    web1 = overlays.launch("web1")
    overlays.init("web2")
    before = live.mounts(overlays), sorted(os.listdir(os.path.dirname(overlays.base.volume)))
    code, found = doctor(overlays)
    complaints = faults(found)
    if overlays.daemon.driver == "btrfs":
        clash = complaints.pop(("btrfs", "base"))
        assert clash.state == "warn"
        assert "it and web1, web2 are subvolumes of one btrfs" in clash.cause
        assert clash.remedy.endswith("move base -s bases")
    assert (code, complaints) == (0, {})
    assert {one.name for one in found} == CHECKS
    assert web1.exec("cat", "/etc/hostname") == "web1\n"
    pool = os.path.dirname(os.path.dirname(overlays.base.volume))
    assert not [name for name in os.listdir(pool) if name.startswith(".")]
    after = live.mounts(overlays), sorted(os.listdir(os.path.dirname(overlays.base.volume)))
    assert after == before
    assert watcher.end() == 0


def test_one_container(overlays: Overlays) -> None:
    """NAME is explained from top to bottom, while it runs and when it is stopped."""
    web1 = overlays.launch("web1")
    code, found = doctor(overlays, "web1")
    said = {one.name: one.cause for one in found}
    assert (code, faults(found)) == (0, {})
    assert list(said) == [
        *("base", "layers", "mount", "processes", "refreshed"),
        *("ids", "next start", "pool", "privileged", "nested store"),
    ]
    assert said["base"] == "base, which is stopped"
    assert f"lowerdir={overlays.base.rootfs}" in said["layers"]
    assert f"upperdir={web1.upper}" in said["layers"]
    assert said["mount"].startswith(f"{web1.merged}, up for 0 min ")
    monitor = web1.monitor
    assert monitor is not None
    assert said["processes"] == f"[lxc monitor] {monitor.pid}, init {web1.pid}"
    root = os.stat(web1.merged).st_uid
    stored = os.lstat(overlays.base.rootfs).st_uid
    assert f"its root is {root}:{root} on the host" in said["ids"]
    assert f"stored from {stored} on" in said["ids"]
    assert ("mapped: 0 as" in said["ids"]) == (stored != root)

    web1.stop()
    until(lambda: not live.mounts(overlays), what="its overlay is gone")
    found = explained(overlays, "web1")
    assert faults(found) == {}
    assert "it is stopped" in {one.name: one.cause for one in found}["overlay"]


@pytest.mark.once
def test_one_that_is_not_on_a_base(overlays: Overlays) -> None:
    """A base, and an ordinary container, are called what they are; an unknown name is an error."""
    overlays.init("web1")
    overlays.client.init("busybox", "ordinary")
    found = explained(overlays, "base")
    assert "it is a base: of web1, 0 of them live" in found[0].cause
    assert {one.name for one in found} >= {"ids", "machine-id"}
    assert [one.cause for one in explained(overlays, "ordinary")] == [
        "it stands on no base: raw.lxc names no hooks of pycor-hooks"
    ]
    unknown = overlays.pycor_hooks("doctor", "blue/web1", check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "there is no container blue/web1 in " in unknown.stderr


def _raw_lxc(overlays: Overlays) -> str:
    return str(overlays.client("profile", "get", overlays.image, "raw.lxc").stdout)


@pytest.mark.once
def test_hidden_hooks(overlays: Overlays) -> None:
    """raw.lxc of the container's own, or of a later profile, and a profile that is not there."""
    client = overlays.client
    client("profile", "create", "later")
    client("profile", "set", "later", "raw.lxc", "lxc.environment = A=1")
    overlays.init("own").set(**{"raw.lxc": "lxc.environment = A=1"})
    overlays.init("part").set(**{"raw.lxc": _raw_lxc(overlays) + "lxc.hook.stop =\n"})
    overlays.init("whole").set(**{"raw.lxc": _raw_lxc(overlays) + "lxc.environment = A=1\n"})
    overlays.init("replaced", "-p", "default", "-p", "overlay", "-p", "later")
    overlays.init("without", "-p", "default")
    found = theme(overlays, profiles.check)
    told = {one.subject: one for one in found if one.name == "raw.lxc"}
    assert {name: one.state for name, one in told.items()} == dict.fromkeys(
        ("own", "part", "replaced", "without"), "FAIL"
    )
    assert "its own raw.lxc hides the hooks of profile overlay" in told["own"].cause
    assert "(lxc.hook.stop)" in told["part"].cause
    assert "raw.lxc of a later profile replaces that of profile overlay" in told["replaced"].cause
    assert told["without"].remedy.endswith("profile add without overlay")
    client(*told["without"].remedy.split()[1:])
    client("config", "unset", "own", "raw.lxc")
    found = theme(overlays, profiles.check)
    assert {one.subject for one in found if one.name == "raw.lxc"} == {"part", "replaced"}


@pytest.mark.once
def test_privileged_and_nested(overlays: Overlays) -> None:
    """A privileged container on an unprivileged base, and images of Docker on an overlay."""
    root, docker = overlays.launch("root", "-c", "security.privileged=true"), {}
    for name in ("stored", "mounted"):
        docker[name] = overlays.launch(name)
        docker[name].exec("mkdir", "-p", "/var/lib/docker/overlay2/0123")
    place = os.path.join(overlays.daemon.world.directory, "docker")
    os.mkdir(place)
    words = ("docker", "disk", f"source={place}", "path=/var/lib/docker")
    overlays.client("config", "device", "add", "mounted", *words)
    hostile = docker["stored"]
    hostile.exec("ln", "-s", "/etc", "/var/lib/containers")
    found = theme(overlays, of_containers)
    complaints = faults(found)
    assert ("privileged", root.name) in complaints
    assert "base is root on this host" in complaints["privileged", root.name].cause
    told = [one for one in found if one.name == "nested store"]
    assert [(one.subject, one.state) for one in told] == [("stored", "warn")]
    assert told[0].cause.startswith("Docker keeps its images on the overlay, in /var/lib/docker")


@pytest.mark.once
def test_without_a_daemon(overlays: Overlays) -> None:
    """While it is down that is said, once, and the rest is looked at all the same."""
    overlays.launch("web1")
    overlays.daemon.stop()
    try:
        code, found = doctor(overlays, "--prefix", overlays.prefix)
        one_code, one_found = doctor(overlays, "web1")
    finally:
        overlays.daemon.start()
    complaints = faults(found)
    directory = overlays.daemon.directory
    assert code == 1
    assert set(complaints) == {("daemon", directory), ("watcher", directory)}
    assert "it is not running" in complaints["daemon", directory].cause
    assert "were not looked at" in complaints["daemon", directory].cause
    unseen = {"project", "profile", "image", "raw.lxc", "next start", "pool", "privileged"}
    assert {one.name for one in found} == CHECKS - unseen - {"base is protected"}
    assert one_code == 1
    said = {one.name: one for one in one_found}
    assert said["mount"].state == "ok"
    assert (said["daemon"].state, said["next start"].state) == ("FAIL", "warn")


def _kill(container: Instance) -> None:
    """Kill its monitor, and with it the container."""
    monitor = container.monitor
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGKILL)


@pytest.mark.once
def test_what_is_left_behind(overlays: Overlays) -> None:
    """Overlay, bind, mapped layer and directory of nobody are named; --fix takes them down."""
    web1, dead = overlays.launch("web1"), overlays.launch("dead")
    _kill(dead)
    until(lambda: live.states(overlays)["dead"] == "orphaned", what="its init is gone as well")
    kernel.mount(web1.merged, web1.rootfs, "", kernel.MS_BIND)
    os.mkdir(f"{web1.record}/lower.{overlays.base.name}")
    kernel.mount(
        overlays.base.rootfs, f"{web1.record}/lower.{overlays.base.name}", "", kernel.MS_BIND
    )
    os.mkdir(f"{overlays.daemon.records}/never")
    found = _leaks(overlays)
    directory = overlays.daemon.directory
    told = sorted(
        (one.subject.removeprefix(f"{directory} "), one.state, one.cause.partition(",")[0])
        for one in found
        if one.name == "left behind"
    )
    assert told == [
        ("dead", "FAIL", "the overlay of a container that is gone"),
        ("never", "warn", "an empty directory"),
        (
            "web1",
            "FAIL",
            "a bind of its overlay on its rootfs: copies and snapshots take the whole tree",
        ),
        ("web1", "warn", "a mapped layer"),
    ]
    with registry.Lock(dead.record):  # a hook is at it
        assert {one.subject for one in _leaks(overlays)} >= {f"{directory} never"}
        assert f"{directory} dead" not in {one.subject for one in _leaks(overlays)}
    found = explained(overlays, "dead")
    assert ("left behind", f"{directory} dead") in faults(found)

    _, found = doctor(overlays, "--fix")
    fixed = [one for one in found if one.name == "left behind"]
    assert [one.state for one in fixed] == ["ok"] * 4
    assert all(one.cause.endswith(": taken down") for one in fixed)
    assert live.mounts(overlays) == [web1.merged]
    assert os.listdir(overlays.daemon.records) == ["web1"]
    assert not kernel.is_mount_root(web1.rootfs)
    assert web1.exec("cat", "/etc/hostname") == "web1\n"
    assert faults(_leaks(overlays)) == {}


@pytest.mark.once
def test_what_cannot_be_taken_down(overlays: Overlays) -> None:
    """A mount that is not ours, and an overlay in which a process works, stay and are named."""
    dead = overlays.launch("dead")
    _kill(dead)
    until(lambda: live.states(overlays)["dead"] == "orphaned", what="its init is gone as well")
    foreign = f"{overlays.daemon.records}/foreign/merged"
    os.makedirs(foreign)
    kernel.mount("tmpfs", foreign, "tmpfs", 0)
    try:
        with open(f"{dead.merged}/etc/hostname", encoding="utf-8"):
            found = _leaks(overlays, fix=True)
        told = {one.subject.split()[-1]: one for one in found if one.name == "left behind"}
        assert {name: one.state for name, one in told.items()} == {
            "dead": "FAIL",
            "foreign": "FAIL",
        }
        assert "still held by a process of the host" in told["dead"].cause
        assert f"fuser -vm {dead.merged}" in told["dead"].remedy
        assert "is a mount that pycor-hooks did not make" in told["foreign"].cause
        assert kernel.is_mount_root(foreign)
    finally:
        kernel.umount(foreign)
    assert faults(_leaks(overlays, fix=True)) == {}
    assert live.mounts(overlays) == []


@pytest.mark.once
def test_mounted_otherwise_than_recorded(overlays: Overlays) -> None:
    """An overlay that somebody unmounted, and one whose record is lost, both with a container."""
    gone, lost = overlays.launch("gone"), overlays.launch("lost")
    kernel.umount(gone.merged, kernel.MNT_DETACH)
    kept = f"{os.path.dirname(record.RUN)}/state"
    os.rename(f"{lost.record}/state", kept)
    try:
        found = _leaks(overlays, fix=True)
        told = {one.subject.split()[-1]: one for one in found if one.name == "mounted"}
    finally:
        os.rename(kept, f"{lost.record}/state")
    assert {name: one.state for name, one in told.items()} == {"gone": "FAIL", "lost": "FAIL"}
    assert "is no longer mounted" in told["gone"].cause
    assert "has lost its record" in told["lost"].cause
    assert [one.state for one in found if one.name == "left behind"] == ["ok"]
    assert live.mounts(overlays) == [lost.merged]
    for container in (gone, lost):
        container.stop(force=True)
    until(lambda: not os.path.exists(overlays.daemon.records), what="all is forgotten")


@pytest.mark.once
def test_a_base_that_was_exchanged(overlays: Overlays) -> None:
    """A container whose base has another tree now is named, and how it gets to see that."""
    old, new = overlays.launch("old"), overlays.launch("new")
    recorded = live.of(old)
    recorded.lower_identity = "of a tree before"
    recorded.write()
    (told,) = faults(_leaks(overlays)).values()
    assert (told.name, told.subject.split()[-1], told.state) == ("mounted", old.name, "FAIL")
    assert (told.cause.partition(",")[0], told.remedy) == (
        "its base was replaced or re-owned",
        "restart it",
    )
    (told,) = faults(explained(overlays, old.name)).values()
    assert (told.name, told.state) == ("base", "FAIL")
    old.restart(force=True)
    assert faults(_leaks(overlays)) == {}
    assert faults(explained(overlays, new.name)) == {}


@pytest.mark.once
def test_the_watcher(overlays: Overlays, watcher: Watcher) -> None:
    """One that follows is seen; one that was killed counts for nothing, nor does its file."""
    overlays.launch("web1")
    directory = overlays.daemon.directory

    def told() -> tuple[str, str]:
        found = theme(overlays, lambda house: watching.check([house], time.time()))
        (one,) = [one for one in found if one.subject == directory]
        return one.state, one.cause

    assert told()[1].startswith("followed, last heard of ")
    overlays.daemon.stop()
    watcher.wait_log("waiting for it to be started")
    try:
        assert told()[0] == "ok"
        assert "waited for" in told()[1]
    finally:
        overlays.daemon.start()
    until(lambda: watcher.log().count("following its events") == 2, what="it is followed again")
    assert told()[1].startswith("followed, last heard of ")
    (mine,) = [one for one in pulse.pulses() if directory in {d.directory for d in one.daemons}]
    watcher.signal(signal.SIGKILL)
    until(lambda: mine.pid not in {one.pid for one in pulse.pulses()}, what="it is dead")
    state, cause = told()
    assert (state, cause) == (
        "FAIL",
        "no watcher follows it: 1 live overlay would not be refreshed when a base stops",
    )


@pytest.mark.once
def test_formats(overlays: Overlays) -> None:
    """The same rows in every format; what a terminal would obey is shown escaped."""
    runner = CliRunner(env=overlays.daemon.env)
    hostile = f"{overlays.daemon.records}/\x1b[2J_web2"
    os.makedirs(f"{hostile}/merged")
    try:
        texts = {
            style: runner.invoke(main, ["doctor", "--format", style]).stdout
            for style in ("json", "csv", "yaml", "table")
        }
    finally:
        os.rmdir(f"{hostile}/merged")
        os.rmdir(hostile)
    names = [row["name"] for row in json.loads(texts["json"])]
    assert [row["name"] for row in csv.DictReader(io.StringIO(texts["csv"]))] == names
    assert [row["name"] for row in yaml.safe_load(texts["yaml"])] == names
    assert "\x1b" not in texts["csv"] + texts["table"]
    assert r"\x1b[2J/web2" in texts["table"]
    assert "run pycor-hooks doctor --fix" in texts["table"]
