# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks profile` on a real daemon: projects, restrictions, what an operator changed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
import yaml

from lab import live
from lab.daemon import POOL
from lab.overlays import make_base
from pycor_hooks import profile, share
from tests.daemon.holdings import held, names
from tests.daemon.test_update import APP

if TYPE_CHECKING:
    import subprocess

    from lab.client import Client, Instance
    from lab.overlays import Overlays

ROOT_DISK = ("profile", "device", "add", "default", "root", "disk", "path=/", f"pool={POOL}")


@pytest.fixture
def second(overlays: Overlays) -> Instance:
    """Another base, called ``second``."""
    return make_base(overlays.client, "busybox", "second")


def _profile(
    overlays: Overlays, *words: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return overlays.pycor_hooks("profile", "--prefix", overlays.prefix, *words, check=check)


def _refused(overlays: Overlays, *words: str) -> str:
    """What `profile` says, which has to fail and to change nothing."""
    before = held(overlays.client)
    done = _profile(overlays, *words, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert held(overlays.client) == before
    return done.stderr


def _project(overlays: Overlays, **config: str) -> Client:
    """A project called blue."""
    settings = [word for key, value in config.items() for word in ("-c", f"{key}={value}")]
    overlays.client("project", "create", "blue", *settings)
    return overlays.client.in_project("blue")


def _fingerprint(client: Client, alias: str) -> str:
    return str(client.query(f"/1.0/images/aliases/{alias}")["target"])


@pytest.mark.parametrize("profiles", ["true", "false"])
@pytest.mark.parametrize("images", ["true", "false"])
def test_projects(overlays: Overlays, profiles: str, images: str) -> None:
    """Whatever a project shares with the default one, its containers come to stand on the base."""
    features = {"features.profiles": profiles, "features.images": images}
    blue = _project(overlays, **features)
    if profiles == "true":
        blue(*ROOT_DISK)
    done = _profile(overlays, "--base", "default/base", "--name", "shared", "--project", "blue")
    assert "profile shared created, for base default/base\n" in done.stdout
    for kind, own in (("profiles/shared", profiles), ("images/aliases/shared", images)):
        for project, there in (("blue", True), ("default", own == "false")):
            holder = overlays.client.in_project(project)
            assert _exists(holder, kind) is there
    web1 = blue.launch("shared", "web1")
    assert web1.exec("cat", "/etc/hostname", f"{APP}/version") == "web1\n1\n"
    assert live.status(overlays)[1]["web1"]["base"] == "default/base"
    again = _profile(overlays, "--base", "default/base", "--name", "shared", "--project", "blue")
    assert again.stdout.endswith("profile and image shared are unchanged\n")


def _exists(client: Client, path: str) -> bool:
    try:
        client.query(f"/1.0/{path}")
    except ValueError:
        return False
    return True


def test_a_restricted_project(overlays: Overlays) -> None:
    """Where raw.lxc is forbidden that is said, with the command that allows it, as it is."""
    blue = _project(overlays, restricted="true")
    blue(*ROOT_DISK)
    words = ("--base", "default/base", "--project", "blue")
    refusal = _refused(overlays, *words)
    assert "project blue is restricted and does not allow raw.lxc" in refusal
    overlays.client(*shlex.split(refusal.rpartition(": ")[2])[1:])
    _profile(overlays, *words)
    assert blue.launch("overlay", "web1").exec("cat", "/etc/hostname") == "web1\n"


def test_the_image_changes_with_the_base_s_metadata(overlays: Overlays, second: Instance) -> None:
    """Run again, the image is the same; when a template of the base changed, it is replaced."""
    client = overlays.client
    _profile(overlays, "--base", "second")
    first = _fingerprint(client, "overlay-second")
    done = _profile(overlays, "--base", "second")
    assert done.stdout.endswith("profile and image overlay-second are unchanged\n")
    assert _fingerprint(client, "overlay-second") == first

    template = "{{ container.name }}.example.org\n"
    client("config", "template", "edit", second.name, "hostname.tpl", text=template)
    done = _profile(overlays, "--base", "second")
    assert "image overlay-second replaced" in done.stdout
    now = _fingerprint(client, "overlay-second")
    assert names(client, "images") & {first, now} == {now}
    web1 = client.launch("overlay-second", "web1")
    assert web1.exec("cat", "/etc/hostname") == "web1.example.org\n"


def test_what_an_operator_added_survives(overlays: Overlays) -> None:
    """Lines of raw.lxc and settings of his own stay when our part is written anew."""
    client = overlays.client
    _profile(overlays, "--name", "mine")
    ours = client("profile", "get", "mine", "raw.lxc").stdout.strip()
    spoiled = ours.replace("/hooks/stop", "/elsewhere/hooks/stop")
    client("profile", "set", "mine", "raw.lxc", f"{spoiled}\n# his\nlxc.environment = HIS=1\n")
    client("profile", "set", "mine", "limits.processes", "100")
    assert "profile mine updated" in _profile(overlays, "--name", "mine").stdout
    raw_lxc = client("profile", "get", "mine", "raw.lxc").stdout.strip()
    assert raw_lxc == f"{ours}\n# his\nlxc.environment = HIS=1"
    assert client("profile", "get", "mine", "limits.processes").stdout == "100\n"
    assert "HIS=1\0" in client.launch("mine", "web1").exec("cat", "/proc/1/environ")


def test_names_that_are_taken(overlays: Overlays, second: Instance) -> None:
    """A profile or alias that is not ours, or serves another base, is refused; --name is a way."""
    client = overlays.client
    client("profile", "create", "taken")
    assert "profile taken in project default was not made by" in _refused(
        overlays, "--name", "taken"
    )
    client("image", "alias", "create", "alias", _fingerprint(client, "busybox"))
    refusal = _refused(overlays, "--name", "alias")
    assert "image alias alias in project default belongs to an image that" in refusal
    web1 = overlays.init("web1")
    refusal = _refused(overlays, "--base", second.name, "--name", "overlay")
    assert f"puts {web1.name} on base base" in refusal
    assert "give the profile for second another name with --name" in refusal
    _profile(overlays, "--base", second.name, "--name", "free")
    assert client.launch("free", "web2").status == "Running"


@pytest.mark.host_s_mounts
def test_print(overlays: Overlays) -> None:
    """`--print` needs no daemon, and what it prints makes the same profile by the client."""
    client = overlays.client
    words = ["--print", "--base", "base", "--daemon", "/nonexistent"]
    printed = _profile(overlays, *words).stdout
    client("profile", "create", "printed")
    client("profile", "edit", "printed", text=printed)
    made, by_hand = (client.query(f"/1.0/profiles/{name}") for name in ("overlay", "printed"))
    assert [by_hand[key] for key in ("config", "devices", "description")] == [
        made[key] for key in ("config", "devices", "description")
    ]
    web1 = client.launch("overlay", "web1", "-p", "default", "-p", "printed")
    assert web1.exec("cat", "/etc/hostname") == "web1\n"
    done = _profile(overlays, "--name", "printed")
    assert "image printed created" in done.stdout
    assert "profile" not in done.stdout


def test_the_shipped_profile(overlays: Overlays) -> None:
    """lxd-profiles/overlay.yaml is taken as it is, every key and line."""
    shipped = share.text_of(profile.TEMPLATE)
    overlays.client("profile", "create", "shipped")
    overlays.client("profile", "edit", "shipped", text=shipped)
    found = overlays.client.query("/1.0/profiles/shipped")
    wanted = yaml.safe_load(shipped)
    assert {key: found[key] for key in wanted} == wanted


def test_a_daemon_that_does_not_answer(overlays: Overlays) -> None:
    """It is named, with the reason; the other daemon is served."""
    missing = f"{overlays.daemon.directory}-2"
    words = ("--daemon", overlays.daemon.directory, "--daemon", missing)
    done = _profile(overlays, *words, check=False)
    assert done.returncode == 1
    assert f"{overlays.daemon.directory}: profile and image overlay are unchanged" in done.stdout
    assert f"{missing} does not answer (No such file or directory)" in done.stderr
