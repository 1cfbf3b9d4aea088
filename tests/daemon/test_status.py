# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks status` on a real daemon: what it shows, in which form, with which exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import yaml

from lab import live
from lab.daemon import POOL
from lab.overlays import make_base
from lab.wait import until
from pycor_hooks import kernel

if TYPE_CHECKING:
    from lab.client import Client
    from lab.overlays import Overlays

KEYS = [
    *("daemon", "project", "name", "base", "base_state", "state", "pid", "merged", "lowerdirs"),
    *("upperdir", "upper_bytes", "started_at", "refreshed_at", "generation", "converged"),
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def _project(overlays: Overlays, name: str) -> Client:
    """A project whose containers stand on the default project's base."""
    overlays.client("project", "create", name)
    project = overlays.client.in_project(name)
    project("profile", "device", "add", "default", "root", "disk", "path=/", f"pool={POOL}")
    words = ("--base", "default/base", "--project", name, "--prefix", overlays.prefix)
    overlays.pycor_hooks("profile", *words)
    return project


def test_a_row(overlays: Overlays) -> None:
    """The keys are the contract's, in its order, and each says what is the case."""
    web1 = overlays.launch("web1")
    (row,) = json.loads(overlays.pycor_hooks("status", "--format", "json").stdout)
    assert list(row) == KEYS
    moments = [row.pop(key) for key in ("started_at", "refreshed_at")]
    assert row.pop("generation") == row.pop("converged")  # a number where a watcher has run
    assert row == {
        "daemon": overlays.daemon.directory,
        "project": "default",
        "name": "web1",
        "base": "base",
        "base_state": "stopped",
        "state": "mounted",
        "pid": web1.pid,
        "merged": web1.merged,
        "lowerdirs": row["lowerdirs"],
        "upperdir": web1.upper,
        "upper_bytes": None,
    }
    assert row["lowerdirs"][0] == overlays.base.rootfs
    assert all(os.path.isdir(path) for path in row["lowerdirs"])
    assert all(TIME.fullmatch(moment) for moment in moments)
    ages = [datetime.now(UTC) - datetime.fromisoformat(moment) for moment in moments]
    assert all(0 <= age.total_seconds() < 60 for age in ages)
    overlays.base.start()
    assert live.status(overlays)[1]["web1"]["base_state"] == "running"


def test_states(overlays: Overlays) -> None:
    """mounted, missing, orphaned, detached: each as it comes about, and 1 unless all are well."""
    second = make_base(overlays.client, "busybox", "second")
    overlays.pycor_hooks("profile", "--base", second.name, "--prefix", overlays.prefix)
    mounted, missing, orphaned = (overlays.launch(f"web{number}") for number in (1, 2, 3))
    detached = overlays.client.launch("overlay-second", "web4")
    assert live.status(overlays)[0] == 0

    kernel.umount(missing.merged, kernel.MNT_DETACH)
    monitor = orphaned.monitor
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGKILL)
    second.set(**{"security.protection.delete": "false"})
    second.delete()
    until(lambda: live.states(overlays)["web3"] == "orphaned", what="its init is gone as well")
    rows = live.status(overlays)[1]
    assert rows["web4"]["base_state"] == "missing"
    make_base(overlays.client, "busybox", second.name)
    code, rows = live.status(overlays)
    assert code == 1
    assert {row["name"]: (row["state"], row["base_state"]) for row in rows.values()} == {
        mounted.name: ("mounted", "stopped"),
        missing.name: ("missing", "stopped"),
        orphaned.name: ("orphaned", "stopped"),
        detached.name: ("detached", "stopped"),
    }
    codes = {
        name: overlays.pycor_hooks("status", name, check=False).returncode for name in sorted(rows)
    }
    assert codes == {"web1": 0, "web2": 1, "web3": 1, "web4": 1}

    # the way out that --help gives for each
    done = overlays.pycor_hooks("watch", "--once", check=False)
    assert done.returncode == 1  # for web2 alone
    reason = f"it is not mounted at {missing.merged} any more: restart container web2"
    for text in (
        "web3: its monitor is gone; overlay taken down\n",
        f"web2: cannot be refreshed: {reason}",
    ):
        assert text in done.stderr
    for container in (missing, detached):
        container.restart(force=True)
    code, rows = live.status(overlays)
    assert (code, set(live.states(overlays).values())) == (0, {"mounted"})
    assert set(rows) == {"web1", "web2", "web4"}


@pytest.mark.host_s_mounts
def test_without_the_daemon(overlays: Overlays) -> None:
    """The daemon may be down: the rows are the same."""
    overlays.launch("web1")
    before = live.status(overlays)
    overlays.daemon.stop()
    try:
        assert live.status(overlays) == before
    finally:
        overlays.daemon.start()


def test_size(overlays: Overlays) -> None:
    """--size is what du says of the container's own layer; without it nobody counts."""
    web1 = overlays.launch("web1")
    script = "cd /srv; head -c 300000 /dev/urandom >big; ln big name; rm -r /usr/share/app; sync"
    web1.exec("sh", "-c", script)
    (row,) = json.loads(overlays.pycor_hooks("status", "--size", "--format=json").stdout)
    counted = subprocess.run(
        ["du", "-sx", "--block-size=1", web1.upper], capture_output=True, check=True, text=True
    )
    assert row["upper_bytes"] == int(counted.stdout.split()[0]) > 300_000
    (line,) = overlays.pycor_hooks("status", "--size").stdout.splitlines()[1:]
    assert re.search(r" \d+kB ", line)


def test_projects_and_formats(overlays: Overlays) -> None:
    """Names of other projects, odd ones too, come through every format, and choose rows."""
    odd = "a,b=1[red]+é"
    webs = [_project(overlays, name).launch("overlay", "web1") for name in ("blue", odd)]
    webs.append(overlays.launch("web2"))
    texts = {
        style: overlays.pycor_hooks("status", f"--format={style}").stdout
        for style in ("json", "csv", "yaml", "table")
    }
    rows = json.loads(texts["json"])
    names = {(row["project"], row["name"]): row["base"] for row in rows}
    assert names == {
        ("blue", "web1"): "default/base",
        (odd, "web1"): "default/base",
        ("default", "web2"): "base",
    }
    assert yaml.safe_load(texts["yaml"]) == rows
    wanted = [{key: _in_csv(value) for key, value in row.items()} for row in rows]
    assert list(csv.DictReader(io.StringIO(texts["csv"]))) == wanted
    shown = [line.split()[0] for line in texts["table"].splitlines()]
    assert sorted(shown) == sorted(["NAME", f"{odd}/web1", "blue/web1", "web2"])

    chosen = overlays.pycor_hooks("status", f"{odd}/web1", "web2").stdout.splitlines()
    assert [line.split()[0] for line in chosen[1:]] == [f"{odd}/web1", "web2"]
    assert webs[1].exec("cat", "/etc/hostname") == "web1\n"
    unknown = overlays.pycor_hooks("status", "web1", check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no live overlay of web1: names are NAME or PROJECT/NAME" in unknown.stderr


def _in_csv(value: object) -> str:
    if value is None:
        return ""
    return ":".join(value) if isinstance(value, list) else str(value)


def test_hostile_names(overlays: Overlays) -> None:
    """What a terminal would obey is shown escaped, in the table and in CSV."""
    web1 = overlays.launch("web1")
    hostile = f"{overlays.daemon.records}/\x1b[2J\x1b]0;x\x07_web2"
    os.makedirs(f"{hostile}/merged")
    lower = f"lowerdir={web1.rootfs}:{overlays.base.rootfs}"
    kernel.mount("pycor-hooks", f"{hostile}/merged", "overlay", 0, lower)
    try:
        for words in ((), ("--format=csv",)):
            done = overlays.pycor_hooks("status", *words, check=False)
            assert done.returncode == 1
            assert "\x1b" not in done.stdout
            assert r"\x1b[2J\x1b]0;x\x07" in done.stdout
            assert "orphaned" in done.stdout
        (row,) = (row for row in live.status(overlays)[1].values() if row["name"] == "web2")
        assert row["project"] == "\x1b[2J\x1b]0;x\x07"
    finally:
        kernel.umount(f"{hostile}/merged")
        os.rmdir(f"{hostile}/merged")
        os.rmdir(hostile)
