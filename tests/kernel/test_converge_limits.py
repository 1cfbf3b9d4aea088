# SPDX-License-Identifier: GPL-3.0-or-later
"""A cure under adverse conditions: paused, busy or full containers, and hostile ones."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from lab.converging import touched
from lab.tree import deep
from lab.wait import until
from pycor_hooks import converge, cure, freezer, journal, mirror, overlay, search, stale, staleness
from pycor_hooks.beneath import Tree
from pycor_hooks.staleness import Reason
from tests.kernel.patient import POOLS, Patient
from tests.kernel.test_converge import HOSTNAME, OLD, TOOL, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


pytestmark = [pytest.mark.host_root, POOLS]


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, do: Callable[[], None]
) -> None:
    """Have something happen once, right before a function is called."""
    whole = getattr(owner, name)

    def both(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(owner, name, whole)
        do()
        return whole(*arguments, **named)

    monkeypatch.setattr(owner, name, both)


def many(patient: Patient, count: int) -> list[str]:
    """As many files of the base, all held by one process and then replaced."""
    os.mkdir(f"{patient.base}/many")
    paths = [f"many/{number:04d}" for number in range(count)]
    for path in paths:
        write(f"{patient.base}/{path}", "old\n")
    held = [os.open(f"{patient.web.merged}/{path}", os.O_RDONLY) for path in paths]
    patient.payload.run("sleep", "infinity", fds=held)
    for descriptor in held:
        os.close(descriptor)
    for path in paths:
        patient.replace(path)
    return paths


# -- frozen by somebody else


@pytest.mark.parametrize("version", [1, 2])
def test_a_paused_container(patient: Patient, version: int) -> None:
    """A container that an operator has paused is cured, and paused all the time."""
    if not (patient.payload.version1 if version == 1 else patient.payload.version2):
        pytest.skip(f"no cgroups of version {version} here")
    patient.hold(TOOL)
    patient.replace(TOOL)
    patient.payload.freeze(version=version)
    assert patient.converge(TOOL).cured == 1
    assert patient.payload.frozen() == [version]
    assert patient.sees(TOOL) == "new\n"
    patient.payload.thaw()


def test_paused_while_it_is_cured(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that an operator pauses in the middle of it stays paused."""
    version = 2 if patient.payload.version2 else 1
    meanwhile(monkeypatch, mirror, "renew", lambda: patient.payload.freeze(version=version))
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.converge(TOOL).cured == 1
    assert patient.payload.frozen() == [version]
    patient.payload.thaw()


# -- time


def test_many_paths_take_several_freezes(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit in one freeze is cured in several; the container runs between them."""
    monkeypatch.setattr(converge, "AT_ONCE", 100)
    paths = many(patient, 250)
    result = patient.converge(*paths)
    assert (result.cured, result.reasons, len(result.frozen)) == (250, {}, 3)
    assert {patient.sees(path) for path in paths} == {"new\n"}


def test_time_runs_out(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a freeze has lasted long enough no other path is begun in it, but in the next one."""
    monkeypatch.setattr(cure, "BUDGET", 0.1)
    slow = Tree.unlink

    def unlink(tree: Tree, path: str) -> None:
        slow(tree, path)
        threading.Event().wait(0.03)

    monkeypatch.setattr(Tree, "unlink", unlink)
    paths = many(patient, 10)
    result = patient.converge(*paths)
    assert (result.cured, result.reasons) == (10, {})
    assert len(result.frozen) > 2
    assert max(result.frozen) < cure.LIMIT


def test_it_cannot_be_done_in_time(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no freeze gets as far as one path, all is as it was, and reported."""
    monkeypatch.setattr(cure, "BUDGET", 0.0)
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {TOOL: "too-slow"}
    assert patient.sees(TOOL) == OLD
    monkeypatch.undo()
    assert patient.reasons(TOOL) == {}


def test_a_call_that_hangs(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container is thawed while a system call of ours takes its time, and ends well."""
    unlink = Tree.unlink
    thawed: list[str] = []

    def hangs(tree: Tree, path: str) -> None:
        unlink(tree, path)
        if not thawed:
            until(lambda: not patient.payload.frozen(), what="it is thawed")
            thawed.append(path)

    monkeypatch.setattr(Tree, "unlink", hangs)
    patient.hold(TOOL)
    patient.hold(HOSTNAME)
    patient.replace(TOOL)
    patient.replace(HOSTNAME)
    assert patient.converge(HOSTNAME, TOOL).reasons == {}
    assert thawed == [HOSTNAME]
    assert (patient.sees(HOSTNAME), patient.sees(TOOL)) == ("new\n", "new\n")


# -- what cannot be frozen


def test_a_whiteout_that_stays(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system fails in the midst, nothing is held, and the next one mends it."""
    patient.hold(TOOL)
    patient.replace(TOOL)
    overlay.refresh(patient.web.merged)
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "withdraw", _fail)
        result = converge.converge(patient.record, 1, touched(patient.base, [TOOL]))
    assert result is not None
    assert result.reasons == {TOOL: Reason.FAILED}
    assert (patient.payload.frozen(), os.listdir("/proc/self/fd")) == ([], before)
    assert converge.interrupted(patient.record)
    assert patient.reasons(TOOL) == {}
    assert patient.sees(TOOL) == "new\n"


def test_a_killed_cure_whose_whiteout_stays(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed cure has frozen goes on, though the file system fails who mends the rest."""
    patient.hold(TOOL)
    patient.replace(TOOL)
    overlay.refresh(patient.web.merged)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "withdraw", _fail)
        patch.setattr(cure.Cure, "_end", _fail)
        patch.setattr(freezer.Freezer, "thaw", lambda _: None)
        patch.setattr(cure, "LIMIT", 0.01)
        converge.converge(patient.record, 1, touched(patient.base, [TOOL]))
        for watchdog in filter(
            lambda one: isinstance(one, threading.Timer), threading.enumerate()
        ):
            watchdog.join()
    assert patient.payload.frozen()
    with monkeypatch.context() as patch:
        patch.setattr(journal, "withdraw", _fail)
        with pytest.raises(OSError, match="Input/output error"):
            converge.settle(patient.record)
    assert patient.payload.frozen() == []
    assert patient.reasons(TOOL) == {}
    assert patient.sees(TOOL) == "new\n"


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_container_outside_all_cgroups(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a freezer nothing is cured or copied up for good, and that is reported."""
    monkeypatch.setattr(freezer, "_UNIFIED", ())
    monkeypatch.setattr(freezer, "_FREEZER", "/nonexistent")
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {TOOL: "not-frozen"}
    assert patient.sees(TOOL) == OLD
    assert patient.record.converged is None
    patient.stop()
    assert patient.upper() == []


@pytest.mark.parametrize("why", ["not-frozen", "too-slow"])
def test_a_parent_that_cannot_be_renewed_now(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """A directory that was to be like the base's again and is not is still told from others."""
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {}
    os.chmod(f"{patient.base}/usr/bin", 0o711)
    with monkeypatch.context() as patch:
        if why == "not-frozen":
            patch.setattr(freezer, "_UNIFIED", ())
            patch.setattr(freezer, "_FREEZER", "/nonexistent")
        else:
            patch.setattr(mirror, "renew", lambda *_: {"usr/bin": Reason.TOO_SLOW})
        assert patient.reasons() == {"usr/bin": why}
    os.chmod(f"{patient.web.merged}/usr/bin", 0o700)
    patient.stop()
    assert patient.upper() == ["usr", "usr/bin"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    """A small file system of its own, mounted."""
    image, mounted = f"{tmp_path}/small.img", f"{tmp_path}/small"
    os.mkdir(mounted)
    for command in (
        ["truncate", "--size=16M", image],
        ["mkfs.ext4", "-q", "-m0", "-N", "64", image],
        ["mount", "-o", "loop", image, mounted],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"{command[0]}: {error}")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def test_a_process_that_does_not_stop(
    patient: Patient, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with a process in uninterruptible sleep is let go on, and reported."""
    monkeypatch.setattr(converge, "PAUSE", 0.0)
    patient.hold(TOOL)
    subprocess.run(["fsfreeze", "--freeze", small], check=True)
    try:
        sleeper = patient.payload.start("sh", "-c", f"echo >{small}/file")
        until(lambda: waits_for(sleeper.pid) == "percpu_rwsem_wait", what="it sleeps")
        patient.replace(TOOL)
        assert patient.reasons(TOOL) == {TOOL: "not-frozen"}
        assert patient.payload.frozen() == []
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", small], check=True)
    sleeper.wait()
    assert patient.reasons(TOOL) == {}


def waits_for(pid: int) -> str:
    """The kernel's function in which a process sleeps (proc_pid_wchan(5))."""
    with open(f"/proc/{pid}/wchan") as file:
        return file.read()


def test_a_directory_of_too_many_names(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a container puts into one of its base's is not all read; it is reported."""
    monkeypatch.setattr(search, "MOST_NAMES", 10)
    for number in range(10):
        write(f"{patient.web.merged}/var/{number}")
    patient.hold("var")
    assert patient.reasons("var") == {}
    write(f"{patient.web.merged}/var/one-more")
    assert patient.reasons("var") == {"var": "too-much"}


# -- what is full


def test_a_full_volume(patient: Patient, small: str) -> None:
    """Without room for the directories that a cure needs nothing is changed; with it, it is."""
    patient.stop()
    shutil.copytree(patient.own, f"{small}/overlay")
    shutil.rmtree(patient.own)
    os.mkdir(patient.own)
    subprocess.run(["mount", "--bind", f"{small}/overlay", patient.own], check=True)
    try:
        patient.start()
        patient.hold(TOOL)
        patient.replace(TOOL)
        fill(small)
        assert patient.reasons(TOOL) == {TOOL: "no-space"}
        assert patient.sees(TOOL) == OLD
        assert stale.read(patient.record) is not None
        os.unlink(f"{small}/fill")
        assert patient.reasons(TOOL) == {}
        patient.stop()
        assert patient.upper() == []
    finally:
        subprocess.run(["umount", patient.own], check=True)
    for name in ("upper", "work"):
        os.mkdir(f"{patient.own}/{name}")


def fill(directory: str) -> None:
    """Leave no room in a file system, and no inode."""
    with open(f"{directory}/fill", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


# -- hostile and hasty


def swapped_in_upper(patient: Patient, outside: str) -> Callable[[], None]:
    """Swap a directory of upper for a link to a place of the host."""

    def do() -> None:
        os.rename(f"{patient.web.upper}/usr/bin", f"{patient.web.upper}/usr/bin2")
        os.symlink(outside, f"{patient.web.upper}/usr/bin")

    return do


def swapped_in_merged(patient: Patient, outside: str) -> Callable[[], None]:
    """Swap a directory for a link, as the container's root does it."""

    def do() -> None:
        shutil.rmtree(f"{patient.web.merged}/usr/bin")
        os.symlink(outside, f"{patient.web.merged}/usr/bin")

    return do


@pytest.mark.parametrize("swap", [swapped_in_upper, swapped_in_merged])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (mirror, "copy_up"),
        (journal.Journal, "prepare"),
        (journal.Journal, "arm"),
        (Tree, "unlink"),
        (journal, "withdraw"),
        (journal, "put_back_times"),
        (mirror, "renew"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_directory_swapped_for_a_link(  # noqa: PLR0913, PLR0917 - each a fixture or a parameter
    patient: Patient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swap: Callable[[Patient, str], Callable[[], None]],
    owner: object,
    name: str,
) -> None:
    """Whenever a directory becomes a link out of the container, nothing outside is touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "tool").write_text("the host's\n")
    os.mknod(outside / "device", 0o20600, 0)
    os.utime(outside, ns=(1, 1))
    patient.hold(TOOL)
    patient.replace(TOOL)
    write(f"{patient.web.merged}/usr/bin/own")
    meanwhile(monkeypatch, owner, name, swap(patient, str(outside)))
    patient.converge(TOOL)
    assert sorted(os.listdir(outside)) == ["device", "tool"]
    assert (outside / "tool").read_text() == "the host's\n"
    assert outside.stat().st_mtime_ns == 1


def pushed(patient: Patient) -> None:
    """Somebody outside the cgroup writes the file, as lxc file push does."""
    write(f"{patient.web.merged}/{TOOL}.new", "pushed\n")
    os.rename(f"{patient.web.merged}/{TOOL}.new", f"{patient.web.merged}/{TOOL}")


def deleted(patient: Patient) -> None:
    """Somebody outside the cgroup deletes the file."""
    os.unlink(f"{patient.web.merged}/{TOOL}")


@pytest.mark.parametrize("does", [pushed, deleted])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(mirror, "copy_up"), (journal.Journal, "prepare"), (journal.Journal, "arm")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_writers_outside_the_cgroup(
    patient: Patient,
    monkeypatch: pytest.MonkeyPatch,
    does: Callable[[Patient], None],
    owner: object,
    name: str,
) -> None:
    """What is done to the file until the last moment before the unlink is not undone."""
    patient.hold(TOOL)
    patient.replace(TOOL)
    meanwhile(monkeypatch, owner, name, lambda: does(patient))
    assert patient.reasons(TOOL) == {}
    assert patient.sees(TOOL) == ("pushed\n" if does is pushed else None)


def test_a_writer_in_the_last_instant(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody puts in the place of our whiteout is not taken for one."""
    meanwhile(monkeypatch, journal, "withdraw", lambda: pushed(patient))
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {}
    assert patient.sees(TOOL) == "pushed\n"


def test_a_deep_tree(patient: Patient) -> None:
    """A path that is longer than a system call takes is no obstacle."""
    names = ["d" * 200] * 30
    base, merged = f"{patient.base}/deep", f"{patient.web.merged}/deep"
    path = "/".join(["deep", *names, "file"])
    os.mkdir(base)
    with deep(base, names, make=True) as directory:
        write_at(directory, "old\n")
    with deep(merged, names) as directory:
        held = os.open("file", os.O_RDONLY, dir_fd=directory)
        patient.payload.run("sleep", "infinity", fds=[held])
        os.close(held)
    with deep(base, names) as directory:
        os.unlink("file", dir_fd=directory)
        write_at(directory, "new\n")
        found = staleness.file_of(os.stat("file", dir_fd=directory))
    overlay.refresh(patient.web.merged)
    result = converge.converge(patient.record, 1, lambda _: [(path, found)])
    assert result is not None
    assert (result.cured, result.reasons) == (1, {})
    with (
        deep(merged, names) as directory,
        open(os.open("file", os.O_RDONLY, dir_fd=directory)) as file,
    ):
        assert file.read() == "new\n"


def write_at(directory: int, text: str) -> None:
    """Write the file ``file`` in a directory."""
    with open(os.open("file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory), "w") as file:
        file.write(text)


def test_many_mounts(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with more bind mounts than can be told apart in time is let alone, and told."""
    monkeypatch.setattr("pycor_hooks.mountpoints.MAX_BINDS", 5)
    script = 'for i in 1 2 3 4 5 6 7; do mount --bind "$0/etc" "$0/var"; done; exec sleep infinity'
    patient.payload.run_in_namespace(script, patient.web.merged)
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {"": "too-much", TOOL: "too-slow"}
    uncured = [stale.Uncured("/", Reason.TOO_MUCH), stale.Uncured(f"/{TOOL}", Reason.TOO_SLOW)]
    assert stale.read(patient.record) == stale.Stale(1, uncured)
