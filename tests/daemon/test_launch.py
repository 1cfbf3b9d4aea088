# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers on a base: they start, keep their writes apart, and are beings of their own."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lab import images
from lab.daemon import POOL
from lab.overlays import Overlays, make_base
from lab.wait import until

if TYPE_CHECKING:
    from lab.client import Instance

KINDS = {
    "unprivileged": (),
    "isolated": ("-c", "security.idmap.isolated=true"),
    "privileged": ("-c", "security.privileged=true"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_writes_stay_in_the_container(overlays: Overlays, kind: str) -> None:
    """What a container writes is neither in the base nor in the container beside it."""
    web1, web2 = (overlays.launch(name, *KINDS[kind]) for name in ("web1", "web2"))
    web1.exec("sh", "-c", "echo mine >/etc/mine; echo web1 >/etc/hostname; rm /etc/group")
    assert web1.exec("cat", "/etc/mine") == "mine\n"
    assert web2.run("ls", "/etc/mine").returncode
    assert web2.exec("cat", "/etc/hostname") == "web2\n"
    assert "root" in web2.exec("cat", "/etc/group")
    assert {"hostname", "mine", "group"} <= set(os.listdir(f"{web1.upper}/etc"))


@pytest.mark.parametrize("kind", KINDS)
def test_owners_setuid_capabilities_and_acls_are_the_base_s(overlays: Overlays, kind: str) -> None:
    """What an id map and a copy-up could harm comes through both unharmed."""
    web1 = overlays.launch("web1", *KINDS[kind])
    assert web1.exec(
        "stat", "-c", "%u:%g:%a", "/etc/shadow", "/home/user", f"/{images.SETUID}"
    ) == ("0:0:640\n1000:1000:755\n0:0:4755\n")
    web1.exec("ip", "link", "set", "lo", "up")
    as_root = f"su user -c '/{images.SETUID} -p -c \"read line </etc/shadow\"'"
    raw_socket = f"su user -c '/{images.CAPABLE} ping -c 1 -w 2 127.0.0.1'"
    acl_read = f"su user -c 'cat /{images.ACL_FILE}'"
    for _ in ("lower", "copied up"):
        assert web1.run("sh", "-c", as_root).returncode == 0
        assert web1.run("sh", "-c", raw_socket).returncode == 0
        assert web1.run("sh", "-c", acl_read).returncode == 0
        # a change of times copies a file up with all that belongs to it
        web1.exec("touch", f"/{images.SETUID}", f"/{images.CAPABLE}", f"/{images.ACL_FILE}")
    assert os.path.exists(f"{web1.upper}/{images.CAPABLE}")


def test_identity(debian_overlays: Overlays) -> None:
    """Three systemd containers side by side differ in hostname, machine-id and address."""
    network = ("-n", debian_overlays.daemon.network())
    names = ["web1", "web2", "web3"]
    with ThreadPoolExecutor() as pool:
        webs = list(pool.map(lambda name: debian_overlays.launch(name, *network), names))
    for web in webs:
        until(partial(_address, web), what=f"{web} has an address", timeout_s=60)
    commands = (["hostname"], ["cat", "/etc/machine-id"])
    seen = [[*(web.exec(*command).strip() for command in commands), _address(web)] for web in webs]
    assert [row[0] for row in seen] == names
    assert [len({row[column] for row in seen}) for column in range(3)] == [3, 3, 3]
    assert images.MACHINE_ID not in [row[1] for row in seen]
    assert [web.exec("grep", "-c", web.name, "/etc/hosts") for web in webs] == ["1\n"] * 3


def _address(web: Instance) -> str:
    found = json.loads(web.run("ip", "-j", "-4", "address", "show", "eth0").stdout or "[]")
    return " ".join(str(row["local"]) for link in found for row in link["addr_info"])


def test_twenty_at_once(overlays: Overlays) -> None:
    """Twenty containers that start at the same time have one overlay each, and stop as well."""
    names = [f"web{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        webs = list(pool.map(overlays.launch, names))
        rows = json.loads(overlays.pycor_hooks("status", "--format", "json").stdout)
        assert sorted(row["name"] for row in rows) == sorted(names)
        assert {row["state"] for row in rows} == {"mounted"}
        assert len({row["upperdir"] for row in rows}) == 20
        list(pool.map(lambda web: web.stop(force=True), webs))
    until(lambda: not _rows(overlays), what="all overlays are gone", timeout_s=10)


def _rows(overlays: Overlays) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(
        overlays.pycor_hooks("status", "--format", "json").stdout
    )
    return rows


def test_a_second_base_and_a_second_project(overlays: Overlays) -> None:
    """Each profile has its base; a project's containers may stand on a base of another project."""
    second = make_base(overlays.client, "busybox", "second")
    overlays.pycor_hooks("profile", "--base", "second", "--prefix", overlays.prefix)
    overlays.client("project", "create", "blue")
    blue = overlays.client.in_project("blue")
    blue("profile", "device", "add", "default", "root", "disk", "path=/", f"pool={POOL}")
    overlays.pycor_hooks(
        *("profile", "--base", "default/second", "--name", "shared"),
        *("--project", "blue", "--prefix", overlays.prefix),
    )
    own = make_base_in_blue(overlays)
    overlays.pycor_hooks(
        *("profile", "--base", "own", "--project", "blue", "--prefix", overlays.prefix)
    )
    for base in (second, own):
        with open(f"{base.rootfs}/etc/which", "w", encoding="ascii") as file:
            file.write(base.name)
    try:
        assert overlays.launch("web1").run("cat", "/etc/which").returncode
        on_second = overlays.client.launch("overlay-second", "web2")
        assert on_second.exec("cat", "/etc/which") == "second"
        assert blue.launch("shared", "web1").exec("cat", "/etc/which") == "second"
        assert blue.launch("overlay-own", "web2").exec("cat", "/etc/which") == "own"
        rows = {(row["project"], row["name"]): row["base"] for row in _rows(overlays)}
        assert rows == {
            ("default", "web1"): "base",
            ("default", "web2"): "second",
            ("blue", "web1"): "default/second",
            ("blue", "web2"): "own",
        }
    finally:
        for base in (second, own):
            base.set(**{"security.protection.delete": "false"})


def make_base_in_blue(overlays: Overlays) -> Instance:
    """A base in the project ``blue``, from an image copied into it."""
    blue = overlays.client.in_project("blue")
    path = os.path.join(overlays.daemon.world.directory, "blue.tar")
    images.busybox(path)
    blue("image", "import", path, "--alias", "busybox")
    os.unlink(path)
    return make_base(blue, "busybox", "own")
