# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks impact` on a real daemon, while the base is being upgraded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lab.wait import until
from pycor_hooks import procs

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays

APP = "/usr/share/app/version"
STATUS = "Package: app\nStatus: install ok installed\nVersion: %s\n"


def database(version: str) -> str:
    """A script that makes a dpkg database which knows one package."""
    text = STATUS.replace("\n", "\\n") % version
    return (
        "mkdir -p /var/lib/dpkg/info; echo /usr/share/app/version >/var/lib/dpkg/info/app.list;"
        f"printf '{text}' >/var/lib/dpkg/status"
    )


def hold(container: Instance) -> None:
    """Have a process of the container keep the file open."""
    script = f"exec 9<{APP}; setsid sleep 1000 <&9 >/dev/null 2>&1 & sleep 0"
    container.exec("sh", "-c", script)
    until(
        lambda: any(
            used.path == APP
            for pid in procs.of_containers([container.pid])[container.pid]
            for used in procs.used(pid)
        ),
        what="it has the file open",
    )


def told(overlays: Overlays) -> list[dict[str, Any]]:
    """The rows of packages."""
    done = overlays.pycor_hooks("impact", "--base", "base", "--format=json")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return [row for row in rows if row["package"]]


@pytest.mark.updates_base
def test_impact(overlays: Overlays) -> None:
    """While the base runs: which package has changed, and who in which container uses it."""
    overlays.base.start()
    overlays.base.exec("sh", "-ec", database("1"))
    overlays.base.stop()
    overlays.base.wait("Stopped")
    web1, web2 = overlays.launch("web1"), overlays.launch("web2")
    overlays.pycor_hooks("watch", "--once")
    hold(web1)
    overlays.base.start()
    assert told(overlays) == []
    overlays.base.exec("sh", "-ec", f"{database('2')}; echo 2 >{APP}.new; mv {APP}.new {APP}")
    (row,) = told(overlays)
    expected = {
        "daemon": overlays.daemon.directory,
        "base": "base",
        "package": "app",
        "version": "1",
        "new_version": "2",
        "changed": 1,
        "deleted": 0,
        "project": "default",
        "instance": "web1",
        "command": "sleep",
        "files": [APP],
    }
    assert {key: row[key] for key in expected} == expected
    packages, users = overlays.pycor_hooks("impact").stdout.split("\n\n")
    assert packages.splitlines()[1].split()[:4] == ["base", "app", "1", "2"]
    assert users.splitlines()[1].split() == ["web1", "-", str(row["pid"]), "sleep", "1", "app"]
    assert web2.name not in users
    done = overlays.pycor_hooks("impact", "--base", "other", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no container other in " in done.stderr


@pytest.mark.once
@pytest.mark.updates_base
def test_units(debian_overlays: Overlays) -> None:
    """On Debian: a library of libc6 that was replaced hits every unit that maps it."""
    overlays = debian_overlays
    web1 = overlays.launch("web1")
    web1.wait_booted()
    overlays.pycor_hooks("watch", "--once")
    overlays.base.start()
    overlays.base.exec(
        "sh", "-ec", "cd /usr/lib/*-linux-gnu; cp -p libc.so.6 libc.new; mv libc.new libc.so.6"
    )
    done = overlays.pycor_hooks("impact", "--base", overlays.base.name, "--format=json")
    rows = [row for row in json.loads(done.stdout) if row["package"] == "libc6"]
    assert {row["instance"] for row in rows} == {"web1"}
    (versions,) = {(row["version"], row["new_version"]) for row in rows}
    assert versions[0] == versions[1]
    assert versions[0] in web1.exec("dpkg-query", "-W", "-f", "${Version}", "libc6")
    units = {row["unit"] for row in rows}
    script = "grep -l /libc.so.6 /proc/[0-9]*/maps | cut -d/ -f3 | xargs -n1 ps -o unit= -p"
    assert {"init.scope", "dbus.service", "systemd-journald.service"} <= units
    assert units <= {*web1.run("sh", "-c", script).stdout.split()}
