# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of the profile, and the bytes of the image."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
import yaml

from pycor_hooks import afterupdate, image, profile, rawlxc, share
from pycor_hooks.host_errors import BadBaseName, BadProfileName

RAW_LXC = """\
lxc.rootfs.options =
lxc.hook.pre-start = /usr/local/lib/pycor-hooks/hooks/pre-start --base base
lxc.hook.start-host = /usr/local/lib/pycor-hooks/hooks/start-host
lxc.hook.stop = /usr/local/lib/pycor-hooks/hooks/stop
lxc.hook.post-stop = /usr/local/lib/pycor-hooks/hooks/post-stop
"""


def test_default_text() -> None:
    """The shipped file is the profile of the base named base, at the default prefix."""
    assert profile.text() == share.text_of(profile.TEMPLATE)
    assert yaml.safe_load(profile.text())["config"] == {
        "user.pycor-hooks": "1",
        "raw.lxc": RAW_LXC,
    }


def test_other_base_and_prefix() -> None:
    """Prefix and base are written into each hook line, the base as it was given."""
    raw_lxc = profile.body(prefix="/opt/base", base="shop/web")["config"]["raw.lxc"]
    expected = RAW_LXC.replace("/usr/local/lib/pycor-hooks", "/opt/base")
    assert raw_lxc == expected.replace("--base base", "--base shop/web")
    assert rawlxc.base(raw_lxc) == "shop/web"


def test_the_other_way_to_write_an_option() -> None:
    """A line of ours whose base follows "=" is replaced, not kept beside the new one."""
    old = RAW_LXC.replace("--base base", "--base=web")
    assert rawlxc.base(old) == "web"
    assert profile.merge(old, RAW_LXC) == RAW_LXC


@pytest.mark.parametrize("text", ["base", "web-1", "24-04", "shop/base", "a.b/c"])
def test_base_names(text: str) -> None:
    """An instance is named alone, or after its project."""
    assert profile.check_base(text) == text


@pytest.mark.parametrize(
    "text", ["", "-x", "a b", "a/", "/a", "a/b/c", "$(id)", "a;b", "a_b", "é"]
)
def test_bad_base_names(text: str) -> None:
    """What no instance can be called, and what a shell would act on, is used wrongly."""
    with pytest.raises(BadBaseName, match="write --base NAME") as caught:
        profile.check_base(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "default", "a/b", "-x", "a b"])
def test_bad_profile_names(name: str) -> None:
    """The default profile, and names with a meaning in URLs and options, are refused."""
    with pytest.raises(BadProfileName):
        profile.check_name(name)


def test_default_name() -> None:
    """Without --name the base named base gets overlay, another one overlay-NAME."""
    assert [profile.default_name(base) for base in ("base", "shop/base", "shop/web")] == [
        "overlay",
        "overlay",
        "overlay-web",
    ]


def test_own_lines_survive_an_update() -> None:
    """What an operator added to raw.lxc stays, and hook lines of an older prefix go."""
    own = "lxc.cap.drop = sys_time\nlxc.hook.stop = /srv/own/stop --now\n"
    old = profile.body(prefix="/old", base="base")["config"]["raw.lxc"] + own
    new = profile.merge(old, RAW_LXC)
    assert new == RAW_LXC + own
    assert profile.merge(new, RAW_LXC) == new


@pytest.mark.parametrize(
    ("config", "devices", "as_made"),
    [
        ({}, {}, True),
        ({afterupdate.KEY: "restart"}, {}, True),
        ({"limits.cpu": "2"}, {}, False),
        ({}, {"eth1": {"type": "nic"}}, False),
        ({"raw.lxc": RAW_LXC + "lxc.cap.drop = sys_time\n"}, {}, False),
    ],
)
def test_as_made(config: dict[str, str], devices: dict[str, Any], *, as_made: bool) -> None:
    """A profile to which something was added is not ours to delete."""
    ours = {"config": {profile.MARKER: "1", "raw.lxc": RAW_LXC} | config, "devices": devices}
    assert profile.is_ours(ours)
    assert profile.is_as_made(ours) is as_made


def test_foreign_profile() -> None:
    """A profile without our key is somebody else's, whatever it is called."""
    assert not profile.is_ours({"config": {"raw.lxc": RAW_LXC}})


def made_for(base_metadata: dict[str, Any]) -> dict[str, Any]:
    """The image's metadata for this base's."""
    return image.metadata(
        base_metadata, architecture="x86_64", owner="default/overlay", base="default/base"
    )


def unpack(content: bytes) -> dict[str, tarfile.TarInfo]:
    """The members of a tarball by name."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: member for member in archive.getmembers()}


def text_in(content: bytes, name: str) -> str:
    """The text of one member of a tarball."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile(name)
        assert member is not None
        return member.read().decode()


def test_identity_templates() -> None:
    """Containers on a base without templates have their own hostname, hosts and machine-id."""
    templates = made_for({"templates": None})["templates"]
    assert sorted(templates) == [
        "/etc/hostname",
        "/etc/hosts",
        "/etc/machine-id",
        "/var/lib/dbus/machine-id",
    ]
    assert templates["/etc/machine-id"]["when"] == ["create", "copy"]
    content = image.tarball(made_for({}), {})
    assert text_in(content, "templates/pycor-hooks-machine-id.tpl") == ""
    assert text_in(content, "templates/pycor-hooks-hostname.tpl") == "{{ container.name }}\n"
    assert "127.0.1.1\t{{ container.name }}\n" in text_in(
        content, "templates/pycor-hooks-hosts.tpl"
    )


def test_templates_of_the_base() -> None:
    """The base's own templates are taken over, ours fill the gaps, machine-id is always ours."""
    hostname = {"when": ["create"], "create_only": False, "template": "hn", "properties": None}
    machine_id = {"when": ["start"], "create_only": True, "template": "mi", "properties": {}}
    made = made_for({"templates": {"/etc/hostname": hostname, "/etc/machine-id": machine_id}})
    assert made["templates"]["/etc/hostname"] == {
        "when": ["create"],
        "create_only": False,
        "template": "hn",
    }
    assert made["templates"]["/etc/machine-id"]["create_only"] is False
    assert image.template_files(made) == {"hn"}
    content = image.tarball(made, {"hn": b"{{ instance.name }}"})
    assert text_in(content, "templates/hn") == "{{ instance.name }}"
    assert "templates/pycor-hooks-hostname.tpl" not in unpack(content)


def test_same_input_same_bytes() -> None:
    """The fingerprint changes with the content and with nothing else."""
    one = image.tarball(made_for({"properties": {"b": "1", "a": "2"}}), {})
    same = image.tarball(made_for({"properties": {"a": "2", "b": "1"}}), {})
    other = image.tarball(made_for({"properties": {"a": "3"}}), {})
    assert image.fingerprint(one) == image.fingerprint(same) != image.fingerprint(other)


def test_size_and_owner() -> None:
    """The image takes some 10 kB, and all in it belongs to root."""
    content = image.tarball(made_for({}), {})
    assert len(content) <= 10240
    members = unpack(content)
    assert members["rootfs"].isdir()
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}


def test_metadata_is_block_style() -> None:
    """Each key of metadata.yaml has a line of its own, as the pre-start hook reads it."""
    template = {"when": ["create"], "create_only": True, "template": "t"}
    made = made_for({"architecture": "aarch64", "templates": {"/etc/a b: c": template}})
    text = text_in(image.tarball(made, {"t": b""}), "metadata.yaml")
    assert yaml.safe_load(text) == made
    assert "architecture: aarch64\n" in text
    assert "{" not in text
    assert "    create_only: true\n" in text


def test_properties() -> None:
    """The image says whose it is, and keeps what the base's image said of itself."""
    made = made_for({"properties": {"os": "debian", "description": "Debian"}, "expiry_date": 9})
    assert made["properties"] == {
        "os": "debian",
        "description": "A container on default/base (pycor-hooks)",
        "pycor-hooks": "default/overlay",
    }
    assert "expiry_date" not in made
