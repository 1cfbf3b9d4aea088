# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that holds what its base has replaced: cured while it runs, or reported."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from typing import Any

import pytest

from lab import images
from lab.converging import touched
from pycor_hooks import converge, inuse, kernel, mirror, overlay, stale
from pycor_hooks.plan import Base
from pycor_hooks.staleness import Reason
from tests.kernel.patient import POOLS, Patient
from tests.kernel.test_watcher import running

pytestmark = [pytest.mark.host_root, POOLS]

TOOL = "usr/bin/tool"
HOSTNAME = "etc/hostname"
NEW = "usr/bin/new"
OLD = "usr/bin/tool of base\n"


def write(path: str, text: str = "own\n") -> None:
    """Write a file of one line."""
    with open(path, "w") as file:
        file.write(text)


def stale_file(patient: Patient) -> dict[str, Reason]:
    """What ``stale`` beside the record says."""
    found = stale.read(patient.record)
    return {} if found is None else {one.path: one.reason for one in found.paths}


# -- files


def test_a_replaced_file_in_use(patient: Patient) -> None:
    """A file that a process holds is the new one for new lookups; the process keeps the old."""
    holder = patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.converge(TOOL).cured == 1
    assert patient.sees(TOOL) == "new\n"
    assert os.readlink(f"/proc/{holder.pid}/fd/0").endswith("(deleted)")
    with open(f"/proc/{holder.pid}/fd/0") as file:
        assert file.read() == OLD
    assert patient.record.converged == 1


def test_a_deleted_file_in_use(patient: Patient) -> None:
    """A file that the base has deleted is gone for the container, too, although it holds it."""
    patient.hold(TOOL)
    os.unlink(f"{patient.base}/{TOOL}")
    assert patient.converge(TOOL).cured == 1
    assert patient.sees(TOOL) is None
    assert os.listdir(f"{patient.web.merged}/usr/bin") == []


def test_a_file_that_became_a_directory(patient: Patient) -> None:
    """A directory in the place of a file that the container holds is seen, with what is in it."""
    patient.hold(TOOL)
    os.unlink(f"{patient.base}/{TOOL}")
    os.mkdir(f"{patient.base}/{TOOL}")
    write(f"{patient.base}/{TOOL}/file", "in it\n")
    assert patient.reasons(TOOL, f"{TOOL}/file") == {}
    assert patient.sees(f"{TOOL}/file") == "in it\n"


def test_what_is_not_held_needs_no_cure(patient: Patient) -> None:
    """A file that nobody holds is seen after the refresh: nothing is frozen or copied up."""
    assert patient.sees(TOOL) == OLD
    patient.replace(TOOL)
    assert patient.converge(TOOL) == (0, {}, [])
    assert patient.sees(TOOL) == "new\n"
    assert patient.upper() == []


def test_what_was_changed_in_place(patient: Patient) -> None:
    """A file that was written in place, or is the same, is no concern of a cure."""
    patient.hold(TOOL)
    write(f"{patient.base}/{TOOL}", "in place\n")
    assert patient.converge(TOOL, HOSTNAME) == (0, {}, [])
    assert patient.sees(TOOL) == "in place\n"


def test_whiteouts_of_the_base(patient: Patient) -> None:
    """A device that OverlayFS takes for a whiteout, as in Docker's layers, is nothing to see."""
    patient.hold(TOOL)
    os.mknod(f"{patient.base}/srv", stat.S_IFCHR)
    os.unlink(f"{patient.base}/{TOOL}")
    os.mknod(f"{patient.base}/{TOOL}", stat.S_IFCHR)
    assert patient.reasons("srv", TOOL) == {}
    assert patient.sees(TOOL) is None


# -- modes and owners


def test_altered_directories(patient: Patient) -> None:
    """A directory that is held, or lies above what is, is closed to others as in the base."""
    os.mkdir(f"{patient.base}/usr/lib")
    patient.hold(TOOL)
    patient.hold("usr/lib")
    directories = ("usr/bin", "usr/lib")
    for mode in (0o700, 0o755, 0o500):
        for directory in directories:
            os.chmod(f"{patient.base}/{directory}", mode)
        assert patient.reasons(*directories, altered=True) == {}
        for directory in directories:
            assert patient.lets_others_use(directory) is bool(mode & 5)
    patient.stop()
    assert patient.upper() == []


def test_altered_files(patient: Patient) -> None:
    """A file that is held is named, as it cannot be cured; one that is not needs no cure."""
    holder = patient.hold(TOOL)
    assert patient.lets_others_use(HOSTNAME)
    for path in (TOOL, HOSTNAME):
        os.chmod(f"{patient.base}/{path}", 0o600)
    assert patient.reasons(TOOL, HOSTNAME, altered=True) == {TOOL: "altered"}
    assert not patient.lets_others_use(HOSTNAME)
    assert patient.lets_others_use(TOOL)
    assert (patient.record.converged, patient.upper()) == (None, [])
    holder.kill()
    holder.wait()
    assert patient.reasons(TOOL, HOSTNAME, altered=True) == {}
    assert not patient.lets_others_use(TOOL)


def test_altered_where_the_container_has_its_own(patient: Patient) -> None:
    """What the container has of its own keeps its mode, and is not named."""
    write(f"{patient.web.merged}/{TOOL}")
    patient.hold(TOOL)
    for path in (TOOL, "usr/bin"):
        os.chmod(f"{patient.base}/{path}", 0o700)
    assert patient.converge(TOOL, "usr/bin", altered=True) == (0, {}, [])
    assert patient.lets_others_use(TOOL)


# -- what no manifest tells of


def test_a_deleted_file_that_no_manifest_names(patient: Patient) -> None:
    """A file that came and went between two manifests is found, as the container holds it."""
    write(f"{patient.base}/{NEW}")
    overlay.refresh(patient.web.merged)
    patient.hold(NEW)
    os.unlink(f"{patient.base}/{NEW}")
    assert patient.converge().cured == 1
    assert patient.sees(NEW) is None


def test_a_deleted_mount_point_that_no_manifest_names(patient: Patient) -> None:
    """So is one on which it has mounted something, and that is told."""
    patient.payload.run_in_namespace(
        f'mount --bind "$0/{HOSTNAME}" "$0/{TOOL}"; exec sleep infinity', patient.web.merged
    )
    os.unlink(f"{patient.base}/{TOOL}")
    assert patient.reasons() == {TOOL: "mounted"}


def test_a_deleted_directory_that_no_manifest_names(patient: Patient) -> None:
    """So is a directory, and a file in it, of which alone there was a process."""
    patient.hold(TOOL)
    shutil.rmtree(f"{patient.base}/usr/bin")
    assert patient.reasons() == {"usr/bin": "directory"}
    assert patient.sees(TOOL) is None


def test_a_file_that_is_held_by_way_of_a_bind(patient: Patient) -> None:
    """The path counts that it has in the overlay, whichever one the process uses."""
    patient.payload.run_in_namespace(
        'mount --bind "$0/usr/bin" "$0/etc"; exec sleep infinity <"$0/etc/tool"',
        patient.web.merged,
    )
    patient.replace(TOOL)
    assert patient.converge().cured == 1
    assert patient.sees(TOOL) == "new\n"


def test_more_than_can_be_looked_at(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that holds too much is told of; what a manifest names is cured nevertheless."""
    monkeypatch.setattr(inuse, "MOST", 1)
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {"": "too-much"}
    assert patient.sees(TOOL) == "new\n"


# -- what is the container's own


def own_copy(patient: Patient) -> str:
    """It has written to the file."""
    with open(f"{patient.web.merged}/{TOOL}", "a") as file:
        file.write("own\n")
    return OLD + "own\n"


def own_file_in_place(patient: Patient) -> str:
    """It has replaced the file."""
    write(f"{patient.web.merged}/{TOOL}.own")
    os.rename(f"{patient.web.merged}/{TOOL}.own", f"{patient.web.merged}/{TOOL}")
    return "own\n"


def whiteout(patient: Patient) -> None:
    """It has deleted the file."""
    os.unlink(f"{patient.web.merged}/{TOOL}")


def whiteout_above(patient: Patient) -> None:
    """It has deleted a directory above it."""
    shutil.rmtree(f"{patient.web.merged}/usr")


def opaque_above(patient: Patient) -> None:
    """It has deleted a directory above it, and made it again."""
    shutil.rmtree(f"{patient.web.merged}/usr/bin")
    os.mkdir(f"{patient.web.merged}/usr/bin")


def file_above(patient: Patient) -> None:
    """It has a file in the place of a directory above it."""
    shutil.rmtree(f"{patient.web.merged}/usr")
    write(f"{patient.web.merged}/usr")


def link_above(patient: Patient) -> str:
    """It has a symlink in the place of a directory above it."""
    os.mkdir(f"{patient.web.merged}/elsewhere")
    write(f"{patient.web.merged}/elsewhere/tool")
    shutil.rmtree(f"{patient.web.merged}/usr/bin")
    os.symlink("/elsewhere", f"{patient.web.merged}/usr/bin")
    return ""


@pytest.mark.parametrize(
    "does",
    [own_copy, own_file_in_place, whiteout, whiteout_above, opaque_above, file_above, link_above],
)
def test_what_the_container_did_itself(patient: Patient, does: object) -> None:
    """What upper has or hides is no false alarm, although the old file is held, and stays."""
    patient.hold(TOOL)
    does(patient)  # type: ignore[operator]
    before, seen = patient.upper(), patient.sees(TOOL)
    patient.replace(TOOL)
    assert patient.converge(TOOL) == (0, {}, [])
    assert (patient.upper(), patient.sees(TOOL)) == (before, seen)


def test_opaque_by_the_older_name(patient: Patient) -> None:
    """A directory marked by trusted.overlay.opaque counts as opaque: another mount may heed it."""
    os.chmod(f"{patient.web.merged}/usr/bin", 0o755)
    os.setxattr(f"{patient.web.upper}/usr/bin", "trusted.overlay.opaque", b"y")
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.converge(TOOL) == (0, {}, [])


# -- what cannot be cured


def test_a_mount_point_in_another_namespace(patient: Patient) -> None:
    """A path on which a service of the container has mounted something is reported, and kept."""
    script = 'mount --bind "$0/etc/os-release" "$0/usr/bin/tool" && exec sleep infinity'
    service = patient.payload.run_in_namespace(script, patient.web.merged)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {TOOL: "mounted"}
    assert patient.payload.mounted(service, TOOL)
    assert stale_file(patient) == {f"/{TOOL}": Reason.MOUNTED}
    assert patient.record.converged is None

    patient.payload.kill()
    assert patient.converge(TOOL) == (0, {}, [])
    assert stale_file(patient) == {}
    assert patient.record.converged == 1


def test_a_mount_point_by_way_of_a_bind(patient: Patient) -> None:
    """A mount in a directory that is bound elsewhere is a mount on the path in the overlay."""
    script = (
        'mount -t tmpfs none "$0/var" && mkdir "$0/var/bin" &&'
        'mount --bind "$0/usr/bin" "$0/var/bin" &&'
        'mount --bind "$0/etc/os-release" "$0/var/bin/tool" && exec sleep infinity'
    )
    service = patient.payload.run_in_namespace(script, patient.web.merged)
    patient.hold(HOSTNAME)
    patient.replace(TOOL)
    patient.replace(HOSTNAME)
    result = patient.converge(TOOL, HOSTNAME)
    assert result.reasons == {TOOL: Reason.MOUNTED}
    assert result.cured == 1
    assert patient.payload.mounted(service, "var/bin/tool")


def test_a_replaced_directory_that_is_held(patient: Patient) -> None:
    """A directory that is another one now, and held, is reported with all that is stale in it."""
    os.mkdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv/file", "old\n")
    patient.hold("srv/file")
    os.rename(f"{patient.base}/srv", f"{patient.base}/srv.old")
    os.mkdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv/file", "new\n")
    write(f"{patient.base}/srv/other", "new\n")
    paths = ("srv", "srv/file", "srv/other")
    assert patient.reasons(*paths) == {
        "srv": "directory",
        "srv/file": "below",
        "srv/other": "below",
    }
    assert patient.upper() == []

    patient.payload.kill()
    assert patient.reasons(*paths) == {}
    assert patient.sees("srv/other") == "new\n"


@pytest.mark.parametrize("names_differ", [True, False])
def test_a_replaced_directory_that_upper_has(patient: Patient, *, names_differ: bool) -> None:
    """So is a directory in which the container has something of its own."""
    os.mkdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv/file", "old\n")
    write(f"{patient.web.merged}/srv/own")
    patient.hold("srv/file")
    os.rename(f"{patient.base}/srv", f"{patient.base}/srv.old")
    os.mkdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv/file", "new\n")
    if names_differ:
        write(f"{patient.base}/srv/other", "new\n")
    reasons = patient.reasons("srv", "srv/file")
    assert reasons.pop("srv", "directory") == "directory"
    assert reasons == {"srv/file": "below"}
    patient.payload.kill()
    assert patient.reasons("srv", "srv/file") == {}
    assert (patient.sees("srv/file"), patient.sees("srv/own")) == ("new\n", "own\n")


def test_a_file_in_a_deleted_directory(patient: Patient) -> None:
    """A file in use goes with its directory; that stays, empty, and is reported."""
    os.makedirs(f"{patient.base}/opt/app")
    write(f"{patient.base}/opt/app/lib", "old\n")
    patient.hold("opt/app/lib")
    shutil.rmtree(f"{patient.base}/opt")
    paths = ("opt", "opt/app", "opt/app/lib")
    result = patient.converge(*paths)
    assert result.reasons == {"opt": Reason.DIRECTORY, "opt/app": Reason.DIRECTORY}
    assert result.cured == 1
    assert patient.sees("opt/app/lib") is None
    patient.payload.kill()
    assert patient.reasons(*paths) == {}
    assert not os.path.exists(f"{patient.web.merged}/opt")
    assert patient.upper() == []


def test_a_deleted_directory_that_lives_elsewhere(patient: Patient) -> None:
    """What is in a directory that the base has moved cannot be cured by unlinking it."""
    os.mkdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv/file", "old\n")
    patient.hold("srv/file")
    os.rename(f"{patient.base}/srv", f"{patient.base}/moved")
    assert patient.reasons("srv", "srv/file") == {"srv": "directory", "srv/file": "below"}
    assert patient.upper() == []


def test_a_directory_that_became_a_file(patient: Patient) -> None:
    """A directory that the container works in hides the file that the base has there now."""
    os.mkdir(f"{patient.base}/srv")
    patient.hold("srv")
    os.rmdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv", "new\n")
    assert patient.reasons("srv") == {"srv": "directory"}
    patient.payload.kill()
    assert patient.reasons("srv") == {}
    assert patient.sees("srv") == "new\n"


def test_an_immutable_file(patient: Patient) -> None:
    """A file that was immutable when the container looked it up cannot be unlinked."""
    try:
        subprocess.run(["chattr", "+i", f"{patient.base}/{TOOL}"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no chattr: {error}")
    patient.hold(TOOL)
    subprocess.run(["chattr", "-i", f"{patient.base}/{TOOL}"], check=True)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {TOOL: "not-permitted"}
    assert patient.upper() == ["usr", "usr/bin"]


# -- the directories that it copies up


def test_parents_go_with_the_stop(patient: Patient) -> None:
    """What a cure copied up is taken away at the stop; what the container wrote there stays."""
    patient.hold(TOOL)
    patient.hold(HOSTNAME)
    patient.replace(TOOL)
    patient.replace(HOSTNAME)
    assert patient.converge(TOOL, HOSTNAME).cured == 2
    assert patient.upper() == ["etc", "usr", "usr/bin"]
    write(f"{patient.web.merged}/etc/own")
    patient.stop()
    assert patient.upper() == ["etc", "etc/own"]
    assert sorted(os.listdir(patient.own)) == ["upper", "work"]
    patient.web.start()
    assert patient.sees("etc/own") == "own\n"


DEFAULT_ACL = "system.posix_acl_default"


def acl_for(uid: int) -> bytes:
    """An ACL that gives one user more than others."""
    nobody = 0xFFFFFFFF
    others = ((0x01, 7, nobody), (0x02, 5, uid), (0x04, 5, nobody), (0x10, 7, nobody))
    return images.acl(*others, (0x20, 0, nobody))


def test_parents_are_as_the_base_has_them(patient: Patient) -> None:
    """Mode, owner, ACL, attributes and mtime are the base's, after this cure and the next ones."""
    directory = f"{patient.base}/usr/bin"
    patient.hold(TOOL)
    for mode, owner, mtime, attribute in ((0o750, 7, 10**18, b"one"), (0o2771, 8, 10**17, b"two")):
        patient.replace(TOOL, str(mode))
        os.chown(directory, owner, owner)
        os.chmod(directory, mode)
        os.setxattr(directory, "user.sample", attribute)
        os.setxattr(directory, DEFAULT_ACL, acl_for(owner))
        os.utime(directory, ns=(mtime, mtime))
        assert patient.reasons(TOOL) == {}
        patient.hold(TOOL)
        seen = os.stat(f"{patient.web.merged}/usr/bin")
        assert stat.S_IMODE(seen.st_mode) == mode
        assert (seen.st_uid, seen.st_gid, seen.st_mtime_ns) == (owner, owner, mtime)
        assert os.getxattr(f"{patient.web.merged}/usr/bin", "user.sample") == attribute
        assert os.getxattr(f"{patient.web.merged}/usr/bin", DEFAULT_ACL) == acl_for(owner)
    patient.stop()
    assert patient.upper() == []


def test_a_parent_that_the_container_changed(patient: Patient) -> None:
    """A directory whose mode the container has set keeps it, whatever the base does."""
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {}
    os.chmod(f"{patient.web.merged}/usr/bin", 0o700)
    os.chmod(f"{patient.base}/usr/bin", 0o711)
    assert patient.reasons() == {}
    assert stat.S_IMODE(os.stat(f"{patient.web.merged}/usr/bin").st_mode) == 0o700
    patient.stop()
    assert patient.upper() == ["usr", "usr/bin"]


def test_a_parent_that_the_base_has_deleted(patient: Patient) -> None:
    """A directory that a cure copied up goes when the base's goes, while the container runs."""
    os.mkdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv/file", "old\n")
    patient.hold("srv/file")
    patient.replace("srv/file")
    assert patient.reasons("srv/file") == {}
    patient.payload.kill()
    shutil.rmtree(f"{patient.base}/srv")
    assert patient.reasons("srv", "srv/file") == {}
    assert not os.path.exists(f"{patient.web.merged}/srv")
    assert patient.upper() == []


def test_a_parent_that_became_a_file(patient: Patient) -> None:
    """A directory that a cure copied up does not hide what the base has there now."""
    os.mkdir(f"{patient.base}/srv")
    write(f"{patient.base}/srv/file", "old\n")
    patient.hold("srv/file")
    patient.replace("srv/file")
    assert patient.reasons("srv/file") == {}
    patient.payload.kill()
    shutil.rmtree(f"{patient.base}/srv")
    write(f"{patient.base}/srv", "a file\n")
    assert patient.reasons("srv", "srv/file") == {}
    assert patient.sees("srv") == "a file\n"


def test_mtimes_of_the_containers_own_directories(patient: Patient) -> None:
    """A directory that the container has in upper already keeps its mtime through a cure."""
    write(f"{patient.web.merged}/usr/bin/own")
    before = os.stat(f"{patient.web.merged}/usr/bin").st_mtime_ns
    patient.hold(TOOL)
    patient.replace(TOOL)
    assert patient.reasons(TOOL) == {}
    assert os.stat(f"{patient.web.merged}/usr/bin").st_mtime_ns == before
    patient.stop()
    assert patient.upper() == ["usr", "usr/bin", "usr/bin/own"]


# -- the overlay itself


def test_a_container_that_has_gone(patient: Patient) -> None:
    """A container that stopped meanwhile is left alone."""
    record = patient.record
    patient.stop()
    assert converge.converge(record, 1, lambda _: []) is None
    assert not kernel.is_mount_root(record.merged)


def test_a_container_that_ends_meanwhile(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a container whose init has ended, and whose stop hook is to come, nothing is said."""
    patient.hold(TOOL)
    patient.replace(TOOL)
    overlay.refresh(patient.web.merged)
    begin = mirror.begin

    def end(*given: Any) -> None:
        begin(*given)
        patient.web.kill_init()

    monkeypatch.setattr(mirror, "begin", end)
    for _ in range(2):
        assert converge.converge(patient.record, 1, touched(patient.base, [TOOL])) is None
        assert stale.read(patient.record) is None
    patient.stop()


@pytest.mark.parametrize("when", ["searched", "to be frozen"])
def test_a_base_that_starts_meanwhile(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A base that starts while a container is looked at changes nothing of what that sees."""
    patient.hold(TOOL)
    overlay.refresh(patient.web.merged)
    patient.replace(TOOL)
    what, name = {"searched": (converge, "search"), "to be frozen": (mirror, "begin")}[when]
    whole = getattr(what, name)
    with contextlib.ExitStack() as stack:

        def last(*given: object) -> object:
            result = whole(*given)
            assert patient.sees(NEW) is None  # which is remembered until a refresh
            stack.enter_context(running(Base(patient.web.daemon, "default", "base")))
            patient.replace(NEW)
            return result

        monkeypatch.setattr(what, name, last)
        assert converge.converge(patient.record, 1, touched(patient.base, [TOOL])) is None
    assert (patient.sees(TOOL), patient.sees(NEW)) == (OLD, None)
