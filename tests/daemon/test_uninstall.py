# SPDX-License-Identifier: GPL-3.0-or-later
"""uninstall, on a real daemon."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.wait import until
from pycor_hooks import image, kernel, mountinfo, profile, record
from tests.daemon.holdings import names
from tests.daemon.test_install import everything

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.client import Client
    from lab.overlays import Overlays
    from lab.world import World

HIDDEN = "hidden-by-a-test"


@pytest.fixture
def private_host(world: World) -> Iterator[None]:
    """Hide what this host has of pycor-hooks: its unit, and the overlays of other daemons."""
    del world  # the mounts are made in its namespace
    _hide(record.RUN)
    _hide("/etc/systemd/system")
    yield
    for mount in reversed(mountinfo.read()):
        if mount.source == HIDDEN:
            kernel.umount(mount.target)


def _hide(path: str) -> None:
    if os.path.isdir(path):
        kernel.mount(HIDDEN, path, "tmpfs", 0)


@pytest.mark.usefixtures("private_host")
def test_uninstall_refuses(overlays: Overlays) -> None:
    """While containers use a profile or are live, they are named, and nothing is removed."""
    client, where = overlays.client, f"({overlays.daemon.directory})"
    web1 = overlays.launch("web1")
    before = everything(overlays)
    shared = ("-c", "features.profiles=false", "-c", "features.images=false")
    client("project", "create", "blue", *shared)
    web2 = client.in_project("blue").init("overlay", "web2")
    assert _refusal(overlays) == (
        f"pycor-hooks: not uninstalled: blue/web2 {where}, web1 {where} use a profile of "
        "pycor-hooks; take what you need out of these containers and delete them: without the"
        " hooks they have no system to boot\n"
    )
    web2.delete()
    client("profile", "remove", web1.name, "overlay")
    assert f"the overlays of web1 {where} are live; stop these" in _refusal(overlays)
    client("profile", "add", web1.name, "overlay")
    client("project", "delete", "blue")
    assert everything(overlays) == before


def _refusal(overlays: Overlays) -> str:
    done = overlays.pycor_hooks("uninstall", "--prefix", overlays.prefix, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.usefixtures("private_host", "reinstalled")
def test_uninstall(overlays: Overlays) -> None:
    """What was made goes, in all projects, and nothing else; what stays is said, with its undo."""
    client = overlays.client
    client("profile", "create", "foreign")
    busybox = client.query("/1.0/images/aliases/busybox")["target"]
    client("image", "alias", "create", "foreign", busybox)
    client("project", "create", "blue")
    words = ("--base", "default/base", "--project", "blue", "--prefix", overlays.prefix)
    overlays.pycor_hooks("profile", *words)
    ours = {kind: _ours(client, kind) for kind in ("profiles", "images")}
    others = {kind: names(client, kind) - ours[kind] for kind in ours}
    overlays.launch("web1").delete()
    until(lambda: not live.mounts(overlays), what="web1's overlay is gone")

    elsewhere = os.path.join(overlays.daemon.world.directory, "elsewhere")
    done = overlays.pycor_hooks("uninstall", "--prefix", elsewhere)
    assert HIDDEN not in {mount.source for mount in mountinfo.read() if mount.target == record.RUN}
    assert {kind: names(client, kind) for kind in others} == others
    assert names(client.in_project("blue"), "profiles") == {"default"}
    assert names(client.in_project("blue"), "images") == set()
    assert "profile overlay deleted\n" in done.stdout
    remedy = f"pycor-hooks uninstall --prefix {overlays.prefix}"
    assert f"note: hooks stay in {overlays.prefix}: {remedy}\n" in done.stderr
    assert os.path.exists(f"{overlays.prefix}/hooks/pre-start")

    undo = next(line for line in done.stderr.splitlines() if "base base stays protected" in line)
    client(*shlex.split(undo.partition("; to undo: ")[2])[1:])
    assert "security.protection.delete" not in client.query("/1.0/instances/base")["config"]

    _hide(record.RUN)  # again: it was removed
    done = overlays.pycor_hooks(*shlex.split(remedy)[1:])
    assert done.stdout == f"hooks removed from {overlays.prefix}\n"
    assert not os.path.exists(overlays.prefix)
    _hide(record.RUN)
    done = overlays.pycor_hooks(*shlex.split(remedy)[1:])
    assert done.stdout == "nothing of pycor-hooks is installed\n"


def _ours(client: Client, kind: str) -> set[str]:
    rows = client.query(f"/1.0/{kind}", recursion="1")
    keys = {"profiles": ("config", profile.MARKER), "images": ("properties", image.OWNER)}
    part, key = keys[kind]
    return {row.get("fingerprint") or row["name"] for row in rows if key in row[part]}
