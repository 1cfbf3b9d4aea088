# SPDX-License-Identifier: GPL-3.0-or-later
"""What `pycor-hooks doctor` says of bases, and of profiles, images and projects, on a real LXD."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest

from lab.daemon import POOL
from lab.images import MACHINE_ID
from lab.liblxc import own
from pycor_hooks.client import Connection
from pycor_hooks.doctor import bases, profiles
from pycor_hooks.provision import Wish, ensure
from pycor_hooks.sockets import find_daemons
from tests.daemon.findings import complaints, explained, faults, theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.client import Instance
    from lab.overlays import Overlays
    from pycor_hooks.doctor.check import Check


@pytest.fixture
def second(overlays: Overlays) -> Iterator[Instance]:
    """A base called ``second``, with profile and image, that a case may spoil."""
    base = overlays.client.init("busybox", "second")
    wish = Wish(name="overlay-second", base="second", prefix=overlays.prefix)
    (daemon,) = find_daemons([overlays.daemon.directory])
    with Connection(daemon) as connection:
        list(ensure(connection, wish))
    yield base
    base.set(**{"security.protection.delete": "false"})


def _bases(overlays: Overlays) -> list[Check]:
    return theme(overlays, bases.check)


def _profiles(overlays: Overlays) -> list[Check]:
    return theme(overlays, profiles.check)


def _second(overlays: Overlays) -> dict[str, tuple[str, str]]:
    """What is wrong with that base."""
    return complaints(_bases(overlays), "second")


def _write(base: Instance, path: str, text: str = "") -> None:
    os.makedirs(os.path.dirname(f"{base.rootfs}/{path}"), exist_ok=True)
    with open(f"{base.rootfs}/{path}", "w", encoding="ascii") as file:
        file.write(text)
    own(base.rootfs, os.lstat(base.rootfs).st_uid)


@pytest.mark.once
def test_what_a_base_holds(overlays: Overlays, second: Instance) -> None:
    """Host keys, cloud-init state, images of Docker, a machine-id that a container has from it."""
    web = overlays.client.launch("overlay-second", "web1")
    os.unlink(f"{web.upper}/etc/machine-id")
    _write(second, "etc/ssh/ssh_host_ed25519_key")
    _write(second, "etc/ssh/ssh_host_ed25519_key.pub")
    _write(second, "var/lib/cloud/instances/i-1/datasource")
    _write(second, "var/lib/docker/overlay2/0123/link")
    units = f"{second.rootfs}/etc/systemd/system"
    os.makedirs(f"{units}/timers.target.wants")
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer"):
        os.symlink(f"/lib/systemd/system/{unit}", f"{units}/timers.target.wants/{unit}")
    os.symlink("/dev/null", f"{units}/apt-daily.timer")
    own(second.rootfs, os.lstat(second.rootfs).st_uid)
    found = _second(overlays)
    assert {name: state for name, (state, _) in found.items()} == dict.fromkeys(
        ("ssh host keys", "cloud-init state", "nested store", "machine-id", "automatic updates"),
        "warn",
    )
    assert found["ssh host keys"][1].startswith("ssh_host_ed25519_key: every container")
    assert found["automatic updates"][1].startswith("apt-daily-upgrade.timer is enabled, in every")
    assert found["machine-id"][1].endswith("is also that of web1")
    with open(f"{web.upper}/etc/machine-id", "w", encoding="ascii") as file:
        file.write("f" * len(MACHINE_ID) + "\n")
    assert "machine-id" not in _second(overlays)


@pytest.mark.once
def test_links_out_of_a_base(overlays: Overlays, second: Instance) -> None:
    """Links and special files in a base lead nowhere, and nobody waits for a fifo."""
    root = os.lstat(second.rootfs).st_uid
    os.rename(f"{second.rootfs}/etc/machine-id", f"{second.rootfs}/etc/machine-id.away")
    os.mkfifo(f"{second.rootfs}/etc/machine-id")
    os.symlink("/etc/ssh", f"{second.rootfs}/etc/ssh")
    os.symlink("/", f"{second.rootfs}/var/lib")
    os.makedirs(f"{second.rootfs}/etc/systemd")
    os.symlink("/etc/systemd/system", f"{second.rootfs}/etc/systemd/system")
    own(second.rootfs, root)
    assert _second(overlays) == {}


@pytest.mark.once
def test_ids_of_a_base(overlays: Overlays, second: Instance) -> None:
    """Ids that an isolated container cannot hold, ids of nobody, and a root given away."""
    overlays.client.init("overlay-second", "isolated", "-c", "security.idmap.isolated=true")
    overlays.client.init("overlay-second", "plain")
    root = os.lstat(second.rootfs).st_uid
    path = f"{second.rootfs}/srv/file"
    _write(second, "srv/file")
    os.chown(path, root + 33, root + 70000)
    state, cause = _second(overlays)["ids"]
    assert state == "warn"
    assert cause == "/srv/file belongs to group 70000, for which isolated has no place"
    os.chown(path, root + 33, root + 33)
    assert "ids" not in _second(overlays)
    os.chown(path, root - 1 if root else 4000000000, root)
    state, cause = _second(overlays)["ids"]
    assert state == "warn"
    assert "/srv/file belongs to user " in cause
    assert cause.endswith("which is nobody in the base itself")
    os.chown(f"{second.rootfs}/etc", root + 1000, root)
    state, cause = _second(overlays)["base"]
    assert (state, "is owned by" in cause) == ("FAIL", True)


@pytest.mark.once
def test_a_base_that_runs_or_will(overlays: Overlays, second: Instance) -> None:
    """That it runs, and for how long; that it starts at boot, and can be deleted."""
    second.set(**{"boot.autostart": "true", "security.protection.delete": "false"})
    overlays.client.launch("overlay-second", "web1")
    second.start()
    found = faults(_bases(overlays))
    runs, protected = found["base runs", "second"], found["base is protected", "second"]
    assert runs.cause == (
        "it runs for 0 h 0 min: until it stops, 1 live overlay may see its changes half-done"
    )
    assert protected.cause == (
        "it can be deleted under its containers and starts at boot, or when it ran before"
    )
    for remedy in (runs.remedy.rpartition(": ")[2], protected.remedy):
        overlays.client(*shlex.split(remedy)[1:])
    assert _second(overlays) == {}


@pytest.mark.once
def test_a_base_that_is_none(overlays: Overlays, second: Instance) -> None:
    """Gone, or without a rootfs as on zfs; where nobody stands on it yet that is no failure."""
    os.rename(second.rootfs, f"{second.volume}/away")
    try:
        state, cause = _second(overlays)["base"]
    finally:
        os.rename(f"{second.volume}/away", second.rootfs)
    assert (state, "has no rootfs at" in cause) == ("FAIL", True)
    second.set(**{"security.protection.delete": "false"})
    overlays.client("rename", "second", "third")
    state, cause = _second(overlays)["base"]
    assert (state, "does not exist" in cause) == ("warn", True)
    overlays.client.init("overlay-second", "web1")
    assert _second(overlays)["base"][0] == "FAIL"
    overlays.client("rename", "third", "second")


@pytest.mark.once
def test_profiles_and_images(overlays: Overlays, second: Instance) -> None:
    """Hook lines changed or gone, hooks not there; an image gone, renamed, or out of date."""
    client, directory = overlays.client, overlays.daemon.directory
    subject = f"{directory} overlay-second"
    made = client("profile", "get", "overlay-second", "raw.lxc").stdout
    for raw_lxc, state, words in (
        (made + "lxc.hook.stop =\n", "FAIL", "not in effect: lxc.hook.stop"),
        (made + "lxc.rootfs.options = idmap=container\n", "FAIL", "lxc.rootfs.options (empty)"),
        (made.replace(overlays.prefix, "/nowhere"), "FAIL", "no hooks at /nowhere"),
        ("# mine\nlxc.environment = A=1\n" + made, "", ""),
        (made.replace("/hooks/stop", "/2/hooks/stop"), "warn", "not as they were made"),
    ):
        client("profile", "set", "overlay-second", "raw.lxc", raw_lxc)
        found = complaints(_profiles(overlays), subject).get("profile", ("", ""))
        assert (found[0], words in found[1]) == (state, True), raw_lxc
    remedy = faults(_profiles(overlays))["profile", subject].remedy
    overlays.pycor_hooks(*shlex.split(remedy)[2:])
    assert complaints(_profiles(overlays), subject) == {}

    client("config", "template", "edit", second.name, "hosts.tpl", text="127.0.0.1 localhost\n")
    assert complaints(_profiles(overlays), subject)["image"][0] == "warn"
    target = str(client.query("/1.0/images/aliases/overlay-second")["target"])
    client("image", "alias", "delete", "overlay-second")
    assert (
        "no alias overlay-second stands for"
        in complaints(_profiles(overlays), directory)["image"][1]
    )
    client("image", "delete", target)
    assert (
        "has no image to launch containers from"
        in complaints(_profiles(overlays), subject)["image"][1]
    )
    overlays.pycor_hooks(*shlex.split(remedy)[2:])
    assert complaints(_profiles(overlays), subject) == {}


@pytest.mark.once
def test_a_project_that_refuses_hooks(overlays: Overlays) -> None:
    """A project that was restricted after its containers were made is named, with the way out."""
    client = overlays.client
    client("project", "create", "blue")
    blue = client.in_project("blue")
    blue("profile", "device", "add", "default", "root", "disk", "path=/", f"pool={POOL}")
    words = ("--base", "default/base", "--project", "blue", "--prefix", overlays.prefix)
    overlays.pycor_hooks("profile", *words)
    blue.init("overlay", "web1")
    client("project", "create", "other", "-c", "restricted=true")
    client("project", "set", "blue", "restricted=true")
    found = faults(_profiles(overlays))
    told = {subject: one for (name, subject), one in found.items() if name == "project"}
    assert list(told) == [f"{overlays.daemon.directory} project blue"]
    (one,) = told.values()
    assert "is restricted and does not allow raw.lxc" in one.cause
    assert one.state == "FAIL"
    client(*shlex.split(one.remedy)[1:])
    assert faults(_profiles(overlays)) == {}
    assert {one.state for one in explained(overlays, "web1", "blue")} == {"ok"}
