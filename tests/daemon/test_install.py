# SPDX-License-Identifier: GPL-3.0-or-later
"""install, upgrade, downgrade, uninstall, on a real daemon."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lab import live, tree
from lab.overlays import Overlays
from lab.wait import until
from pycor_hooks import image, kernel, mountinfo, profile, record, share
from pycor_hooks.tree import current, versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.client import Client, Instance
    from lab.world import World

HIDDEN = "hidden-by-a-test"
NOTHING = "everything is installed already; nothing changed\n"


@pytest.fixture
def reinstalled(overlays: Overlays) -> Iterator[None]:
    """Let the case install and uninstall as it likes: in the end all is as it was."""
    bases = [base for base in ("base", "debian") if base in _names(overlays.client, "instances")]
    yield
    for base in bases:
        Overlays(overlays.daemon, base).install()


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


def _install(overlays: Overlays, package: str = "") -> str:
    """What install says; of the code in ``package``, or of this clone."""
    words = ["install", "--no-systemd", "--prefix", overlays.prefix]
    if not package:
        return overlays.pycor_hooks(*words).stdout
    code = "from pycor_hooks.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        env={**overlays.daemon.env, "PYTHONPATH": package},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


def _version(directory: Path, number: str) -> str:
    """The code of this clone as another version of it."""
    package = directory / number
    for part in ("pycor_hooks", "hooks", "lxd-profiles", "systemd"):
        source = share.PACKAGE if part == "pycor_hooks" else share.path_of(part)
        shutil.copytree(source, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    init = package / "pycor_hooks" / "__init__.py"
    init.write_text(init.read_text() + f'\n__version__ = "{number}"\n')
    return str(package)


def _names(client: Client, kind: str) -> set[str]:
    rows = client.query(f"/1.0/{kind}", recursion="1")
    return {row.get("fingerprint") or row["name"] for row in rows}


def _everything(overlays: Overlays) -> list[Any]:
    """All that install makes, to the byte, and all else that the daemon holds."""
    kinds = ("profiles", "images", "images/aliases", "storage-pools", "projects", "networks")
    held = [overlays.client.query(f"/1.0/{kind}", recursion="1") for kind in kinds]
    return [tree.describe(overlays.prefix), *held, overlays.client.query("/1.0/instances/base")]


def test_install_twice(overlays: Overlays) -> None:
    """Run again, install says that nothing changed, and hooks, profile and image are the same."""
    before = _everything(overlays)
    assert _install(overlays) == NOTHING
    again = overlays.pycor_hooks("install", "--no-systemd", "--prefix", overlays.prefix + "/")
    assert (again.stdout, again.stderr) == (NOTHING, "")
    assert _everything(overlays) == before


@pytest.mark.usefixtures("reinstalled")
def test_upgrade_and_downgrade(overlays: Overlays, tmp_path: Path) -> None:
    """No start and no stop fails while install goes two versions up and back again."""
    packages = [_version(tmp_path, number) for number in ("98.0", "99.0")]
    first = current(overlays.prefix)
    assert first is not None
    old = overlays.launch("web0")
    webs = [overlays.init(name) for name in ("web1", "web2")]
    rounds = dict.fromkeys((web.name for web in webs), 0)
    ended = threading.Event()

    def start_and_stop(web: Instance) -> None:
        while not ended.is_set():
            web.start()
            web.exec("true")
            web.stop(force=True)
            web.wait("Stopped")
            rounds[web.name] += 1

    seen = [first]
    with ThreadPoolExecutor() as pool:
        loops = [pool.submit(start_and_stop, web) for web in webs]
        try:
            for package in (*packages, ""):
                now = seen[-1]
                assert f", after {now}\n" in _install(overlays, package)
                seen.append(str(current(overlays.prefix)))
                assert {now, seen[-1]} <= set(versions(overlays.prefix))
                goal = {name: number + 1 for name, number in rounds.items()}
                until(
                    partial(_reached, rounds, goal, loops),
                    what="each has started and stopped meanwhile",
                )
        finally:
            ended.set()
        for loop in loops:
            loop.result()
    assert [name.partition("-")[0] for name in seen[1:-1]] == ["98.0", "99.0"]
    assert seen[-1] == first
    old.stop()  # the version that started it was away for a while
    until(lambda: not live.mounts(overlays), what="all overlays are gone")
    assert not [web for web in (old, *webs) if " pycor-hooks - " in web.log()]


def _reached(rounds: dict[str, int], goal: dict[str, int], loops: list[Any]) -> bool:
    return any(loop.done() for loop in loops) or all(rounds[web] >= goal[web] for web in goal)


@pytest.mark.usefixtures("private_host")
def test_uninstall_refuses(overlays: Overlays) -> None:
    """While containers use a profile or are live, they are named, and nothing is removed."""
    client, where = overlays.client, f"({overlays.daemon.directory})"
    web1 = overlays.launch("web1")
    before = _everything(overlays)
    shared = ("-c", "features.profiles=false", "-c", "features.images=false")
    client("project", "create", "blue", *shared)
    web2 = client.in_project("blue").init("overlay", "web2")
    assert _refusal(overlays) == (
        f"pycor-hooks: not uninstalled: blue/web2 {where}, web1 {where} use a profile of "
        "pycor-hooks; delete these containers, or take the profile off them\n"
    )
    web2.delete()
    client("profile", "remove", web1.name, "overlay")
    assert f"the overlays of web1 {where} are live; stop these" in _refusal(overlays)
    client("profile", "add", web1.name, "overlay")
    client("project", "delete", "blue")
    assert _everything(overlays) == before


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
    others = {kind: _names(client, kind) - ours[kind] for kind in ours}
    overlays.launch("web1").delete()
    until(lambda: not live.mounts(overlays), what="web1's overlay is gone")

    elsewhere = os.path.join(overlays.daemon.world.directory, "elsewhere")
    done = overlays.pycor_hooks("uninstall", "--prefix", elsewhere)
    assert HIDDEN not in {mount.source for mount in mountinfo.read() if mount.target == record.RUN}
    assert {kind: _names(client, kind) for kind in others} == others
    assert _names(client.in_project("blue"), "profiles") == {"default"}
    assert _names(client.in_project("blue"), "images") == set()
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
