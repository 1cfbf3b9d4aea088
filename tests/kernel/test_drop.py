# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that a container has of its own are given back to its base, running or stopped."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import drop, giveback, kernel, layerdiff, locate, mirror, registry
from pycor_hooks.errors import CannotFreeze, StillHeld
from pycor_hooks.freezer import Freezer
from pycor_hooks.host_errors import BaseRuns, HiddenAbove, Restarted
from pycor_hooks.plan import Base
from pycor_hooks.sockets import Daemon
from pycor_hooks.staleness import Reason
from tests.kernel.patient import POOLS, Patient
from tests.kernel.test_converge import write
from tests.kernel.test_watcher import running

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = [pytest.mark.host_root, POOLS]

TOOL, HOSTNAME = "usr/bin/tool", "etc/hostname"
OF_BASE = "etc/hostname of base\n"


def give(patient: Patient, *paths: str) -> dict[str, Reason]:
    """Give paths back, while it runs."""
    return drop.from_running(patient.record, paths)


def stop_and_give(patient: Patient, *paths: str) -> dict[str, Reason]:
    """Give paths back after its stop, and start it again."""
    patient.stop()
    drop.from_stopped(where(patient), paths)
    assert not os.path.exists(patient.web.directory)
    patient.web.start()
    return {}


def where(patient: Patient) -> locate.Layer:
    """Its layer."""
    base = ("default", "base")
    return locate.find(("default", patient.web.name), base, [Daemon("lxd", patient.web.daemon)])


def differs(patient: Patient) -> dict[str, str]:
    """What it has of its own."""
    found = layerdiff.differences(patient.web.upper, patient.base, 0)
    return {one.path: one.change for one in found}


WAYS = [give, stop_and_give]
both = pytest.mark.parametrize("way", WAYS)


@both
def test_modified_file(patient: Patient, way: Callable[..., dict[str, Reason]]) -> None:
    """It sees the base's file again, as that is now; nobody else's file is touched."""
    for path in (TOOL, HOSTNAME):
        write(f"{patient.web.merged}/{path}")
    patient.replace(HOSTNAME, OF_BASE)
    assert way(patient, HOSTNAME) == {}
    assert patient.sees(HOSTNAME) == OF_BASE
    assert patient.sees(TOOL) == "own\n"
    assert differs(patient) == {TOOL: "M"}


@both
def test_added_and_deleted(patient: Patient, way: Callable[..., dict[str, Reason]]) -> None:
    """What it has added is gone, what it has deleted is there again."""
    os.unlink(f"{patient.web.merged}/{HOSTNAME}")
    write(f"{patient.web.merged}/etc/added")
    assert way(patient, HOSTNAME, "etc/added") == {}
    assert (patient.sees(HOSTNAME), patient.sees("etc/added")) == (OF_BASE, None)
    assert differs(patient) == {}


@both
@pytest.mark.parametrize("prefix", ["user", "trusted"])
def test_directory_made_anew(
    patient: Patient, way: Callable[..., dict[str, Reason]], prefix: str
) -> None:
    """A directory that hides the base's is removed with all that is in it, and that shows."""
    shutil.rmtree(f"{patient.web.merged}/usr")
    os.makedirs(f"{patient.web.merged}/usr/bin")
    write(f"{patient.web.merged}/{TOOL}")
    write(f"{patient.web.merged}/usr/bin/own")
    if way is stop_and_give:
        os.removexattr(f"{patient.web.upper}/usr", "user.overlay.opaque")
        os.setxattr(f"{patient.web.upper}/usr", f"{prefix}.overlay.opaque", b"y")
    assert way(patient, "usr") == {}
    assert patient.sees(TOOL) == "usr/bin/tool of base\n"
    assert os.listdir(f"{patient.web.merged}/usr/bin") == ["tool"]
    assert differs(patient) == {}
    assert not os.path.exists(f"{patient.web.upper}/usr")


@both
def test_whole_tree(patient: Patient, way: Callable[..., dict[str, Reason]]) -> None:
    """A directory that both have is the base's again, with its mode, and all that is in it."""
    usr = f"{patient.web.merged}/usr"
    os.chmod(usr, 0o700)
    os.setxattr(usr, "user.mark", b"own")
    for path in ("own/deep/file", "bin/own"):
        os.makedirs(os.path.dirname(f"{usr}/{path}"), exist_ok=True)
        write(f"{usr}/{path}")
    os.symlink("/etc", f"{usr}/link")
    os.mkfifo(f"{usr}/fifo")
    os.unlink(f"{usr}/bin/tool")
    write(f"{patient.web.merged}/{HOSTNAME}")
    assert way(patient, "usr") == {}
    assert sorted(os.listdir(usr)) == ["bin"]
    assert patient.sees(TOOL) == "usr/bin/tool of base\n"
    assert stat.S_IMODE(os.stat(usr).st_mode) == stat.S_IMODE(
        os.stat(f"{patient.base}/usr").st_mode
    )
    assert differs(patient) == {HOSTNAME: "M"}
    patient.stop()
    assert patient.upper() == ["etc", HOSTNAME]


def test_directory_changed_after_it_was_given_back(patient: Patient) -> None:
    """What a container then makes of it is its own, at the next update and after its stop."""
    write(f"{patient.web.merged}/usr/own")
    assert give(patient, "usr") == {}
    os.chmod(f"{patient.web.merged}/usr", 0o750)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {}
    patient.stop()
    patient.start()
    assert stat.S_IMODE(os.stat(f"{patient.web.merged}/usr").st_mode) == 0o750


def test_directory_of_a_container_that_cannot_be_frozen(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only what a directory is like is left to give back, and nothing was, that is told."""
    os.chmod(f"{patient.web.merged}/usr", 0o750)
    monkeypatch.setattr(Freezer, "freeze", _refuse)
    assert give(patient, "usr") == {"usr": Reason.NOT_FROZEN}
    assert stat.S_IMODE(os.stat(f"{patient.web.merged}/usr").st_mode) == 0o750
    patient.stop()
    patient.start()
    assert stat.S_IMODE(os.stat(f"{patient.web.merged}/usr").st_mode) == 0o750


def _refuse(*_: object) -> None:
    raise CannotFreeze(reason="it was told not to")


@both
def test_file_in_the_place_of_a_directory(
    patient: Patient, way: Callable[..., dict[str, Reason]]
) -> None:
    """The base's directory shows again in the place of a file, or the other way round."""
    shutil.rmtree(f"{patient.web.merged}/usr")
    write(f"{patient.web.merged}/usr")
    os.unlink(f"{patient.web.merged}/{HOSTNAME}")
    os.makedirs(f"{patient.web.merged}/{HOSTNAME}/below")
    assert way(patient, "usr", HOSTNAME) == {}
    assert patient.sees(TOOL) == "usr/bin/tool of base\n"
    assert patient.sees(HOSTNAME) == OF_BASE


@both
def test_below_a_directory_made_anew(
    patient: Patient, way: Callable[..., dict[str, Reason]]
) -> None:
    """Where the base would not show afterwards nothing is done, and the way out is named."""
    shutil.rmtree(f"{patient.web.merged}/usr")
    os.makedirs(f"{patient.web.merged}/usr/bin")
    write(f"{patient.web.merged}/{TOOL}")
    with pytest.raises(HiddenAbove, match=r"in /usr, which the container has made .*: drop /usr"):
        way(patient, "etc", TOOL)
    if way is give:
        assert patient.sees(TOOL) == "own\n"
    else:
        assert os.path.exists(f"{patient.web.upper}/{TOOL}")


# -- while it runs


def test_file_in_use(patient: Patient) -> None:
    """A file of its own that a process has open is replaced under it, and stays open."""
    write(f"{patient.web.merged}/own", "own\n")
    os.rename(f"{patient.web.merged}/own", f"{patient.web.merged}/{HOSTNAME}")
    holder = patient.hold(HOSTNAME)
    assert give(patient, HOSTNAME) == {}
    assert patient.sees(HOSTNAME) == OF_BASE
    with open(f"/proc/{holder.pid}/fd/0") as file:
        assert file.read() == "own\n"


def test_copy_in_use(patient: Patient) -> None:
    """A copy of the base's file of now is left, and named, as long as a process has it open."""
    for path in (HOSTNAME, TOOL):
        write(f"{patient.web.merged}/{path}")
    patient.hold(HOSTNAME)
    assert give(patient, HOSTNAME, TOOL) == {HOSTNAME: Reason.IN_USE}
    assert differs(patient) == {HOSTNAME: "M"}
    patient.payload.kill()
    assert give(patient, HOSTNAME) == {}
    assert patient.sees(HOSTNAME) == OF_BASE


def test_old_file_of_the_base_in_use(patient: Patient) -> None:
    """It is the base's file of now that shows, though a process holds the one of before."""
    patient.hold(HOSTNAME)
    write(f"{patient.web.merged}/{HOSTNAME}")
    patient.replace(HOSTNAME)
    assert give(patient, HOSTNAME) == {}
    assert patient.sees(HOSTNAME) == "new\n"


def test_many(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into one freeze goes in several, what is in a directory before it."""
    monkeypatch.setattr(giveback, "AT_ONCE", 2)
    shutil.rmtree(f"{patient.web.merged}/usr/bin")
    os.mkdir(f"{patient.web.merged}/usr/bin")
    os.chmod(f"{patient.web.merged}/usr", 0o700)
    for number in range(7):
        write(f"{patient.web.merged}/usr/bin/{number}")
    write(f"{patient.web.merged}/{TOOL}")
    assert give(patient, "usr") == {}
    assert os.listdir(f"{patient.web.merged}/usr/bin") == ["tool"]
    assert differs(patient) == {}


def test_mount_point(patient: Patient) -> None:
    """Where the container has mounted something, that stays, and is named; the rest goes."""
    for path in (HOSTNAME, TOOL):
        write(f"{patient.web.merged}/{path}")
    script = f'mount --bind "$0/etc/os-release" "$0/{HOSTNAME}"; exec sleep infinity'
    process = patient.payload.run_in_namespace(script, patient.web.merged)
    assert give(patient, HOSTNAME, TOOL) == {HOSTNAME: Reason.MOUNTED}
    assert patient.payload.mounted(process, HOSTNAME)
    assert differs(patient) == {HOSTNAME: "M"}


def test_somebody_writes_meanwhile(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is another one when the container is frozen than the one shown is left."""
    write(f"{patient.web.merged}/{HOSTNAME}")
    os.unlink(f"{patient.web.merged}/{TOOL}")
    prepare = mirror.begin

    def meddle(*arguments: object) -> None:
        for path in (HOSTNAME, TOOL):
            write(f"{patient.web.merged}/{path}.own", "newer\n")
            os.rename(f"{patient.web.merged}/{path}.own", f"{patient.web.merged}/{path}")
        prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mirror, "begin", meddle)
    give(patient, HOSTNAME, TOOL)
    assert (patient.sees(HOSTNAME), patient.sees(TOOL)) == ("newer\n", "newer\n")


def test_paused(patient: Patient) -> None:
    """A container that an operator has paused stays so."""
    write(f"{patient.web.merged}/{HOSTNAME}")
    patient.payload.freeze(version=2)
    assert give(patient, HOSTNAME) == {}
    assert patient.payload.frozen() == [2]
    patient.payload.thaw()
    assert patient.sees(HOSTNAME) == OF_BASE


def test_base_runs(patient: Patient) -> None:
    """While the base is being changed nothing is given back."""
    write(f"{patient.web.merged}/{HOSTNAME}")
    with (
        running(Base(patient.web.daemon, "default", "base")),
        pytest.raises(BaseRuns, match="base base runs: stop it"),
    ):
        give(patient, HOSTNAME)
    assert patient.sees(HOSTNAME) == "own\n"


def test_another_start(patient: Patient) -> None:
    """What was shown of a start that is over is not dropped from the next."""
    write(f"{patient.web.merged}/{HOSTNAME}")
    before = patient.record
    patient.web.stop()
    with pytest.raises(Restarted, match="web1 has been started or stopped"):
        drop.from_running(before, [HOSTNAME])
    assert not os.path.exists(patient.web.directory)
    patient.web.kill_monitor()
    patient.web.start()
    with pytest.raises(Restarted):
        drop.from_running(before, [HOSTNAME])
    assert patient.sees(HOSTNAME) == "own\n"


# -- while it is stopped


def test_started_meanwhile(patient: Patient) -> None:
    """A container that is not stopped any more is left alone."""
    write(f"{patient.web.merged}/{HOSTNAME}")
    with pytest.raises(Restarted):
        drop.from_stopped(where(patient), [HOSTNAME])
    patient.stop()
    layer = where(patient)
    with (
        running(Base(patient.web.daemon, "default", patient.web.name)),
        pytest.raises(Restarted),
    ):
        drop.from_stopped(layer, [HOSTNAME])
    assert patient.upper() == ["etc", HOSTNAME]


def test_locked(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a hook is at work on the overlay nothing is taken from it."""
    patient.stop()
    layer = where(patient)
    monkeypatch.setattr(drop, "LOCK_TIMEOUT", 0.0)
    with registry.Lock(patient.web.directory), pytest.raises(StillHeld):
        drop.from_stopped(layer, [HOSTNAME])
    os.rmdir(patient.web.directory)
    os.rmdir(os.path.dirname(patient.web.directory))


def test_links_of_a_stopped_container(patient: Patient, tmp_path: str) -> None:
    """A link that it left leads nowhere, and a mount in its upper is not emptied."""
    outside = f"{tmp_path}/outside"
    os.mkdir(outside)
    write(f"{outside}/hostname")
    shutil.rmtree(f"{patient.web.merged}/etc")
    os.symlink(outside, f"{patient.web.merged}/etc")
    os.mkdir(f"{patient.web.merged}/mounted")
    patient.stop()
    with pytest.raises(HiddenAbove):
        drop.from_stopped(where(patient), [HOSTNAME])
    kernel.mount(outside, f"{patient.web.upper}/mounted", "", kernel.MS_BIND)
    with pytest.raises(OSError, match="mounted"):
        drop.from_stopped(where(patient), ["mounted"])
    kernel.umount(f"{patient.web.upper}/mounted")
    drop.from_stopped(where(patient), ["etc", "mounted"])
    assert os.listdir(outside) == ["hostname"]
    assert patient.upper() == []
