# SPDX-License-Identifier: GPL-3.0-or-later
"""What `doctor` tries: on file systems that can, and on some that cannot; killed in the middle."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab.payload import Payload
from lab.wait import until
from pycor_hooks import idmap, install, kernel, mountinfo, overlay, registry
from pycor_hooks.doctor import install as hooks
from pycor_hooks.doctor import kernel as trials
from pycor_hooks.doctor import limits, rehearsal, scratch
from pycor_hooks.doctor.peek import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pycor_hooks.doctor.check import Check

_libc = ctypes.CDLL(None, use_errno=True)
ROOT = pytest.mark.host_root

KILLED = """
import os, sys, time
from pycor_hooks import kernel
from pycor_hooks.doctor import scratch

def mount(path):
    kernel.mount("tmpfs", path, "tmpfs", 0)
    with open(f"{path}/there", "w"), open(sys.argv[2], "w") as note:
        note.write(f"{os.getpid()} {path}")
    time.sleep(60)

with scratch.directory(sys.argv[1]) as path:
    os.mkdir(f"{path}/mounted")
    scratch.apart(lambda: mount(f"{path}/mounted"))
"""


def _states(found: list[Check]) -> dict[str, str]:
    return {one.name: one.state for one in found}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory where a case may mount a file system; it has to be empty in the end."""
    path = tmp_path / "place"
    path.mkdir()
    yield path
    left = os.listdir(path)
    if kernel.is_mount_root(str(path)):
        kernel.umount(str(path))
    assert left == []


@ROOT
def test_trials_where_all_is_well(place: Path) -> None:
    """Overlay, refresh and idmapped layers work, and nothing is left, mounted or not."""
    before = [mount.target for mount in mountinfo.read()]
    found = list(trials.check([str(place)]))
    assert _states(found) == dict.fromkeys(("overlay", "refresh", "idmapped layers"), "ok")
    assert {one.subject for one in found} == {str(place)}
    assert [mount.target for mount in mountinfo.read()] == before


@ROOT
@pytest.mark.parametrize(
    ("fstype", "options", "wrong"),
    [
        ("ramfs", "", {"overlay": "FAIL", "idmapped layers": "warn"}),
        ("tmpfs", "nr_inodes=14", {"refresh": "FAIL"}),
        ("tmpfs", "ro", {"overlay": "FAIL"}),
    ],
)
def test_file_systems_that_cannot(
    place: Path, fstype: str, options: str, wrong: dict[str, str]
) -> None:
    """One without attributes and without idmapped mounts, a full one, a read-only one."""
    readonly = options == "ro"
    flags = kernel.MS_RDONLY if readonly else 0
    kernel.mount(fstype, str(place), fstype, flags, "" if readonly else options)
    states = _states(list(trials.check([str(place)])))
    assert {name: states[name] for name in wrong} == wrong


@ROOT
def test_kernels_that_cannot(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh that drops nothing, marks in the wrong attribute, and ids that are not mapped."""
    with monkeypatch.context() as patch:
        patch.setattr(overlay, "refresh", lambda _: None)
        states = _states(list(trials.check([str(place)])))
    assert states == {"overlay": "ok", "refresh": "FAIL", "idmapped layers": "ok"}
    with monkeypatch.context() as patch:
        patch.setattr(overlay, "_OPTIONS", "index=off,metacopy=off,redirect_dir=nofollow,xino=off")
        (wrong,) = [one for one in trials.check([str(place)]) if one.state != "ok"]
    assert "not marked opaque in user.overlay.opaque" in wrong.cause
    with monkeypatch.context() as patch:
        patch.setattr(idmap.IdMap, "layer", lambda *_: ("0 5000 65536\n", "0 5000 65536\n"))
        wrong_ids = [one for one in trials.check([str(place)]) if one.state != "ok"]
    assert [one.name for one in wrong_ids] == ["idmapped layers"]


def test_a_place_that_is_not_there() -> None:
    """Where nothing can be made, that is what is said."""
    (one,) = trials.check(["/nonexistent"])
    assert (one.name, one.state) == ("overlay", "FAIL")
    assert "No such file or directory" in one.cause


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_killed_in_the_middle(place: Path, tmp_path: Path) -> None:
    """SIGKILL leaves no mount, no process, and a directory that the next run removes."""
    before = [mount.target for mount in mountinfo.read()]
    note = tmp_path / "note"
    running = subprocess.Popen([sys.executable, "-c", KILLED, str(place), str(note)])
    pid, path = until(lambda: _text(note), what="it mounts").split()
    assert not os.path.exists(f"{path}/there")  # seen by the child alone
    with scratch.directory(str(place)) as other:
        assert os.path.isdir(path)  # it is in use
        assert other != os.path.dirname(path)
    running.kill()
    running.wait()
    until(lambda: not os.path.exists(f"/proc/{pid}"), what="its child is gone")
    assert [mount.target for mount in mountinfo.read()] == before
    assert os.listdir(place) == [os.path.basename(os.path.dirname(path))]
    os.mkdir(f"{place}/.pycor-hooks-other")
    scratch.sweep(str(place))
    assert os.listdir(place) == [".pycor-hooks-other"]
    os.rmdir(f"{place}/.pycor-hooks-other")


def test_a_trial_that_dies() -> None:
    """What a trial has said until then counts, and its end is told."""

    def die() -> Iterator[Check]:
        yield from trials.check(["/nonexistent"])
        os.kill(os.getpid(), signal.SIGKILL)

    first, second = scratch.apart(die)
    assert first.subject == "/nonexistent"
    assert (second.state, second.cause) == ("FAIL", "the trial ended with -9")

    def fail() -> list[Check]:
        raise LookupError("nothing")

    (one,) = scratch.apart(fail)
    assert (one.state, one.cause) == ("FAIL", "LookupError: nothing")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Installed hooks."""
    path = tmp_path_factory.mktemp("installed") / "prefix"
    list(install.install_hooks(str(path), owner=os.geteuid()))
    return str(path)


def _rehearse(path: str, place: Path) -> Check:
    with scratch.directory(str(place)) as directory:
        (one,) = scratch.apart(lambda: [rehearsal.check(path, directory)])
    return one


@ROOT
def test_a_start_that_is_rehearsed(prefix: str, place: Path) -> None:
    """The installed hooks start and stop a made-up container, and nothing is recorded."""
    one = _rehearse(prefix, place)
    assert (one.state, one.subject) == ("ok", prefix)
    assert registry.directories() == []


@ROOT
@pytest.mark.parametrize(
    "broken",
    [
        ("pre-start", "echo no >&2; exit 3", "pre-start ended with 3: no"),
        ("pre-start", "", "after pre-start the rootfs holds nothing"),
        ("start-host", "", "after start-host the rootfs holds ['base']"),
        ("post-stop", "exit 1", "post-stop ended with 1: it said nothing"),
    ],
)
def test_hooks_that_do_not_work(
    prefix: str, place: Path, tmp_path: Path, broken: tuple[str, str, str]
) -> None:
    """A hook that fails is named with what it says, and so is one that does nothing."""
    hook, script, cause = broken
    copy = tmp_path / "broken"
    shutil.copytree(os.path.realpath(f"{prefix}/hooks/.."), copy)
    (copy / "hooks" / hook).write_text(f"#!/bin/sh\n{script}\n")
    one = _rehearse(str(copy), place)
    assert (one.state, one.cause) == ("FAIL", cause)


@ROOT
def test_hooks_as_a_whole(prefix: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound hooks are sound in every respect; none at all are one failure."""
    monkeypatch.setattr("pycor_hooks.prefix.check", lambda path: path)  # /tmp is open to others
    found = list(hooks.check(prefix, str(place)))
    assert _states(found) == dict.fromkeys(
        ("python", "hooks are root's", "version", "byte code", "a start"), "ok"
    )
    *_, last = hooks.check("/nonexistent", str(place))
    assert (last.name, last.state) == ("hooks", "FAIL")
    assert "no hooks at /nonexistent" in last.cause


def test_inotify_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process opens is seen, watch by watch, and counts for no container."""
    monkeypatch.setattr(limits, "_CGROUP", "no such cgroup")
    before = limits.look_at_processes("/proc")
    descriptors = [_libc.inotify_init1(os.O_CLOEXEC) for _ in range(40)]
    try:
        for path in (b"/", b"/tmp", b"/run"):
            assert _libc.inotify_add_watch(descriptors[0], path, 2) > 0
        after = limits.look_at_processes("/proc")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    # others come and go meanwhile, but not by the dozen
    assert 30 <= after.instances[0] - before.instances[0] <= 50
    assert after.instances[1] == after.containers == 0


@ROOT
def test_looks_into_a_tree_do_not_leave_it(tmp_path: Path) -> None:
    """Links, mounts, fifos and devices of a tree are not followed, entered or waited for."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "plain").write_text("plain")
    (tree / "link").symlink_to(secret)
    (tree / "etc" / "file").symlink_to(secret / "file")
    (tree / "up").symlink_to("../secret")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (tree / "mounted").mkdir()
    kernel.mount(str(secret), str(tree / "mounted"), "", kernel.MS_BIND)
    try:
        with Tree(str(tree)) as looked:
            assert looked.read("etc/plain") == b"plain"
            for path in ("link/file", "etc/file", "up/file", "fifo", "zero", "mounted/file"):
                assert looked.read(path) == b"", path
            for path in ("link", "up", "mounted", "../secret", "/etc"):
                assert looked.names(path) == [], path
            assert looked.mode("../secret") == 0
            assert looked.mode("link") == stat.S_IFLNK | 0o777
            owners = looked.owners()
            assert (set(owners.uids), owners.whole) == ({0}, True)
    finally:
        kernel.umount(str(tree / "mounted"))


@ROOT
def test_every_id_of_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each id is found once, with a path; of a tree that is too big a part is looked at."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    os.lchown(deep / "file", 1234, 5678)
    with Tree(str(tmp_path)) as looked:
        owners = looked.owners()
        monkeypatch.setattr("pycor_hooks.doctor.peek.MOST_ENTRIES", 0)
        part = looked.owners()
    assert (owners.uids[1234], owners.gids[5678]) == ("a/b/file", "a/b/file")
    assert (part.whole, 1234 in part.uids) == (False, False)


# -- what containers use of the host's limits

_USES = """
import ctypes, threading, time
libc = ctypes.CDLL(None)
descriptors = [libc.inotify_init1(0) for _ in range(5)]
for path in (b"/", b"/tmp", b"/var"):
    libc.inotify_add_watch(descriptors[0], path, 2)
for _ in range(3):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
time.sleep(1000)
"""


@ROOT
def test_what_a_container_uses_is_measured() -> None:
    """Its inotify instances and watches and its threads are counted, and it is one more."""
    before = limits.look_at_processes("/proc")

    def more() -> tuple[int, ...]:
        now = limits.look_at_processes("/proc")
        pairs = ("instances", "watches", "threads")
        used = [getattr(now, name)[1] - getattr(before, name)[1] for name in pairs]
        return (*used, now.containers - before.containers)

    with Payload("measured") as payload:
        payload.run(sys.executable, "-c", _USES)
        until(lambda: more() == (5, 3, 4, 1), what="all that it uses is counted", timeout_s=10)
        measured = {limit.name: limit for limit in limits.measure()}
        assert measured["inotify instances"].used >= 5
        assert measured["inotify instances"].used_by_containers == before.instances[1] + 5
        assert measured["pids"].used_by_containers == before.threads[1] + 4
        with open("/proc/1/mountinfo") as table:
            assert abs(measured["mounts"].used - len(table.readlines())) < 30  # others mount, too
        for name, path in (("pids", "kernel/pid_max"), ("mounts", "fs/mount-max")):
            with open(f"/proc/sys/{path}") as file:
                assert measured[name].limit == int(file.read())
    assert more() == (0, 0, 0, 0)
