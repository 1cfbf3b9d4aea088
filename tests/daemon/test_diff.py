# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks diff` on a real daemon: what it shows, finds for a stopped one, gives back."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from lab import images
from tests.daemon.test_update import publish

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays

# Copies that are no different, by whatever metadata a copy has to keep, and six differences.
SCRIPT = f"""
chmod 755 /{images.CAPABLE}; chmod u+s /{images.SETUID}
echo own >>/etc/passwd
mkdir -p /srv/own; echo file >/srv/own/file; ln -s file /srv/own/link
rm -r /usr/share/app/data; mkdir /usr/share/app/data; echo own >/usr/share/app/data/one
rm /etc/hostname
"""
EXPECTED = [
    ("D", "/etc/hostname", "file", 5),
    ("M", "/etc/passwd", "file", None),
    ("A", "/srv/own", "directory", None),
    ("A", "/srv/own/file", "file", 5),
    ("A", "/srv/own/link", "symlink", 4),
    ("M", "/usr/share/app/data/one", "file", 4),
    ("D", "/usr/share/app/data/two", "file", 4),
]
# What the daemon and the init of the image write at each start.
OF_A_START = ("/dev", "/etc/mtab", "/etc/resolv.conf", "/etc/hosts", "/etc/machine-id", "/run")


def told(overlays: Overlays, container: Instance, *words: str) -> list[tuple[Any, ...]]:
    """The rows, but for what every start writes."""
    done = overlays.pycor_hooks("diff", container.name, "--format=json", *words)
    rows = json.loads(done.stdout)
    assert all(list(row) == ["change", "path", "type", "size"] for row in rows)
    return [tuple(row.values()) for row in rows if not row["path"].startswith(OF_A_START)]


def test_running_and_stopped(overlays: Overlays) -> None:
    """The same is told of a container that runs, and of one whose base the daemon has to name."""
    web1 = overlays.launch("web1")
    plain = told(overlays, web1)
    web1.exec("sh", "-ec", SCRIPT)
    passwd = os.stat(f"{web1.upper}/etc/passwd").st_size
    wanted = sorted(
        {
            *((*row[:3], passwd if row[1] == "/etc/passwd" else row[3]) for row in EXPECTED),
            *(row for row in plain if row[1] not in {row[1] for row in EXPECTED}),
        },
        key=lambda row: row[1].split("/"),
    )
    assert told(overlays, web1) == wanted
    web1.stop()
    assert told(overlays, web1) == wanted
    assert told(overlays, web1, "/srv", "/etc/passwd") == [
        row for row in wanted if row[1].startswith(("/srv", "/etc/passwd"))
    ]
    table = overlays.pycor_hooks("diff", web1.name, "/srv").stdout.splitlines()
    assert [line.split() for line in table][1:] == [
        ["A", "/srv/own", "directory", "-"],
        ["A", "/srv/own/file", "file", "5B"],
        ["A", "/srv/own/link", "symlink", "4B"],
    ]

    overlays.client("profile", "remove", web1.name, "overlay")
    done = overlays.pycor_hooks("diff", web1.name, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "its profiles name no base: name the base that web1 was last" in done.stderr
    assert told(overlays, web1, "--base", "base") == wanted
    overlays.client("profile", "add", web1.name, "overlay")
    done = overlays.pycor_hooks("diff", "web9", check=False)
    assert "no container web9 with a layer of its own" in done.stderr


@pytest.mark.updates_base
def test_masking_and_drop(overlays: Overlays) -> None:
    """What keeps an update out is named, and once it is given back the update arrives."""
    web1, web2 = overlays.launch("web1"), overlays.launch("web2")
    for web in (web1, web2):
        web.exec("sh", "-ec", "echo mine >/usr/share/app/version; echo mine >/etc/passwd.own")
    publish(overlays.base, 1)
    overlays.pycor_hooks("remount", "--all")
    assert [web.exec("cat", "/usr/share/app/version") for web in (web1, web2)] == ["mine\n"] * 2
    done = overlays.pycor_hooks("diff", "web1", "--masking", "--format=json", check=False)
    (row,) = json.loads(done.stdout)
    assert (done.returncode, row["change"], row["path"]) == (1, "M", "/usr/share/app/version")
    assert row["reason"] == "it is a copy of a file that the base has replaced since"
    assert row["remedy"].endswith("or pycor-hooks diff web1 --drop /usr/share/app/version")

    web2.stop()
    for web in (web1, web2):
        words = ("diff", web.name, "--drop", "/usr/share/app/version")
        done = overlays.pycor_hooks(*words, check=False)
        assert done.returncode == 1
        assert done.stdout.splitlines()[1].split()[:2] == ["M", "/usr/share/app/version"]
        assert "nothing was dropped: this would be lost, and --yes drops it" in done.stderr
        assert overlays.pycor_hooks("diff", web.name, "--masking", check=False).returncode == 1
        overlays.pycor_hooks(*words, "--yes")
        assert overlays.pycor_hooks("diff", web.name, "--masking").stdout == ""
    assert web1.exec("cat", "/usr/share/app/version") == "1\n"
    assert web1.exec("cat", "/etc/passwd.own") == "mine\n"
    web2.start()
    assert web2.exec("cat", "/usr/share/app/version", "/etc/passwd.own") == "1\nmine\n"
    done = overlays.pycor_hooks("diff", "web1", "--drop", "/usr/share/app/version", check=False)
    assert "web1 has nothing of its own at /usr/share/app/version" in done.stderr
