# SPDX-License-Identifier: GPL-3.0-or-later
"""What users of the host, and of the daemon, can make the hooks and the watcher do."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.attacker import Attacker
from lab.tenant import PROJECT, tenant
from pycor_hooks import instance
from tests.faults.test_hostile_tree import NOBODY, reached_by_a_user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.client import Client
    from lab.overlays import Overlays
    from lab.tally import Tally

_LISTEN = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(bytes.fromhex(sys.argv[1]))
server.listen()
print(flush=True)
"""


def command_socket(overlays: Overlays) -> bytes:
    """The name on which liblxc listens while the base runs."""
    return instance.command_socket(f"{overlays.client.directory}/containers", overlays.base.name)


@contextlib.contextmanager
def impostor(address: bytes) -> Iterator[None]:
    """A user of the host who listens in the place of a monitor."""
    with subprocess.Popen(
        [sys.executable, "-c", _LISTEN + "sys.stdin.read()", address.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def test_an_impostor_of_the_base(overlays: Overlays, tally: Tally) -> None:
    """A user who listens on the base's socket holds no refresh off.

    Root of a container cannot even do that: the name is one of his own network namespace.
    """
    address = command_socket(overlays)
    with tally.injected("an impostor of the base's monitor"), impostor(address):
        attacker = Attacker(overlays.launch("web1"))
        attacker(_LISTEN, address.hex())
        assert "is running" not in attacker.container.log()
        assert live.status(overlays)[1]["web1"]["base_state"] == "stopped"
        assert "refreshed" in overlays.pycor_hooks("remount", "web1").stdout
    with tally.injected("a look at the records by a user of the host"):
        assert reached_by_a_user([attacker.container.record, overlays.daemon.records]) == ""


def test_settings_that_forge_lines(overlays: Overlays, tally: Tally, tmp_path: Path) -> None:
    """Whoever may set environment variables of a container chooses no file that root writes.

    Root listens in the place of the base's monitor, so that there is a line to write.
    """
    container = overlays.init("web1")
    marks = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    for number, mark in enumerate(marks):
        forged = f"{mark}lxc.log.file = {tmp_path}/forged{mark}lxc.idmap = b 0 0 4294967295{mark}"
        container.set(**{f"environment.FORGED{number}": f"x{forged}"})
    with (
        tally.injected("a setting that forges lines of LXC_CONFIG_FILE", len(marks)),
        socket.socket(socket.AF_UNIX) as monitor,
    ):
        monitor.bind(command_socket(overlays))
        monitor.listen()
        container.start()
        assert container.exec("stat", "-c", "%u", "/etc") == "0\n"
        assert list(tmp_path.iterdir()) == []
        assert "base base is running" in container.log()


# -- a client of the daemon, trusted with one restricted project


def raw_lxc(file: Path) -> str:
    """A hook that shows whether it ran, as whom, and where."""
    return f"lxc.hook.pre-start = /usr/bin/touch {file}"


@pytest.fixture
def stranger(overlays: Overlays) -> Iterator[Client]:
    """A client with a certificate for the restricted project ``tenant`` alone."""
    with tenant(overlays.daemon) as client:
        client("init", "busybox", "web1")
        yield client


def test_a_tenant_of_a_restricted_project(
    overlays: Overlays, stranger: Client, tally: Tally, tmp_path: Path
) -> None:
    """He can choose no base and use no hook, neither ours nor one of his own."""
    hook = raw_lxc(tmp_path / "ran")
    ours = overlays.client("profile", "get", overlays.image, "raw.lxc").stdout.strip()
    stranger("profile", "create", "mine")
    attempts = [
        *(("config", "set", "web1", f"raw.lxc={value}") for value in (hook, ours)),
        *(("init", "busybox", "web2", "-c", f"raw.lxc={value}") for value in (hook, ours)),
        *(("profile", "set", "mine", f"raw.lxc={value}") for value in (hook, ours)),
        ("launch", overlays.image, "web3"),
        ("copy", "base", "web4"),
        ("project", "set", PROJECT, "restricted.containers.lowlevel=allow"),
        ("config", "set", "web1", "security.privileged=true"),
        ("config", "device", "add", "web1", "host", "disk", "source=/", "path=/mnt"),
    ]
    for attempt in attempts:
        with tally.injected("a tenant who wants hooks or a base"):
            assert stranger(*attempt, check=False).returncode, attempt
    foreign = stranger.in_project("default")
    assert foreign("config", "show", "base", check=False).returncode
    assert foreign("config", "set", "base", "user.x=1", check=False).returncode
    stranger("start", "web1")
    assert not (tmp_path / "ran").exists()
    assert live.mounts(overlays) == []
    refused = overlays.pycor_hooks(
        "profile",
        "--base",
        "default/base",
        "--project",
        PROJECT,
        "--prefix",
        overlays.prefix,
        check=False,
    )
    assert "is restricted and does not allow raw.lxc" in refused.stderr


@pytest.mark.host_s_mounts
def test_what_makes_a_tenant_root_of_the_host(
    overlays: Overlays, stranger: Client, tally: Tally, tmp_path: Path
) -> None:
    """The setting that the hooks need in his project does; and on LXD 5.0.2 an import.

    Incus refuses a backup with raw.lxc in a restricted project. LXD takes it: there, whoever may
    import is root, with our hooks or without. When this fails, LXD has learned it: SECURITY.md
    has to say so.
    """
    imported = _backup_with_raw_lxc(overlays, tmp_path)
    with tally.injected("an imported raw.lxc in a restricted project"):
        done = stranger("import", imported, "web2", check=False)
        assert bool(done.returncode) is (overlays.daemon.kind == "incus")
        assert done.returncode == 0 or "raw.lxc" in done.stderr
    overlays.client("project", "set", PROJECT, "restricted.containers.lowlevel=allow")
    stranger("config", "set", "web1", f"raw.lxc={raw_lxc(tmp_path / 'ran')}")
    stranger("start", "web1")
    assert (tmp_path / "ran").stat().st_uid == 0


def _backup_with_raw_lxc(overlays: Overlays, directory: Path) -> str:
    """A backup as somebody tampered with it."""
    backup, tampered = directory / "backup.tar", directory / "tampered.tar"
    overlays.client("init", "busybox", "web2")
    overlays.client("export", "web2", str(backup), "--compression=none")
    with tarfile.open(backup) as old, tarfile.open(tampered, "w") as new:
        for member in old:
            content = old.extractfile(member) if member.isreg() else None
            if content and member.name.endswith(("/index.yaml", "/backup.yaml")):
                text = _with_raw_lxc(content.read().decode(), raw_lxc(directory / "imported"))
                member.size = len(text)
                content = io.BytesIO(text)
            new.addfile(member, content)
    return str(tampered)


def _with_raw_lxc(text: str, hook: str) -> bytes:
    """The description of an instance with a raw.lxc, and without what Incus lets nobody set."""
    added = re.sub(r"(?m)^( *)(expanded_)?config:$", rf"\g<0>\n\g<1>  raw.lxc: {hook}", text)
    return re.sub(r"\n *volatile\.[^\n]*(\n {6}[^\n]*)*", "", added).encode()
