# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and mounts that are made to be shown: escapes for a terminal, decoys in a mount table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.daemon import POOL
from tests.faults.test_hostile_tree import from_both, restart

if TYPE_CHECKING:
    from lab.attacker import Attacker
    from lab.overlays import Overlays
    from lab.tally import Tally
    from lab.watcher import Watcher

# A line's end, red, a title for the window, and text that runs from right to left. In a project of
# such a name no container starts: the daemons' own hooks do not find it.
HOSTILE = "a\n\x1b[31m\x1b]0;x\x07\r\u202eb"
SHOWN = r"a\n\x1b[31m\x1b]0;x\x07\r\u202eb"


@pytest.mark.once
def test_a_name_for_the_terminal(overlays: Overlays, watcher: Watcher, tally: Tally) -> None:
    """The daemons let projects and profiles be called anything: all commands escape it."""
    client, base = overlays.client, overlays.base
    overlays.launch("web1")
    client("project", "create", HOSTILE, "-c", "features.images=false")
    words = ("--base", "default/base", "--name", "shared", "--prefix", overlays.prefix)
    said = [overlays.pycor_hooks("profile", "--project", HOSTILE, *words)]
    project = client.in_project(HOSTILE)
    project("profile", "copy", "shared", HOSTILE)
    project("profile", "device", "add", HOSTILE, "root", "disk", "path=/", f"pool={POOL}")
    project("init", "--profile", HOSTILE, "overlay", "web2")
    commands = [
        *(("status", f"{HOSTILE}/web1"), ("remount", "--base", HOSTILE)),
        *(("profile", "--project", HOSTILE), ("profile", "--name", HOSTILE)),
        ("doctor", f"{HOSTILE}/web2"),
        ("uninstall", "--prefix", overlays.prefix),
    ]
    with tally.injected("a name with escapes for the terminal", len(commands) + 1):
        said += [overlays.pycor_hooks(*command, check=False) for command in commands]
        for name in ("renamed", base.name):
            client("rename", "base" if name == "renamed" else "renamed", name)
        watcher.wait_log("renamed to renamed; correct raw.lxc")
        for text in (*(done.stdout + done.stderr for done in said), watcher.log()):
            assert all(line.isprintable() for line in text.split("\n")), text
        assert f"{SHOWN}/{SHOWN}" in watcher.log()
        assert f"{SHOWN}/web2" in said[-1].stderr


_DECOYS = """
mount("none", "/var/tmp", "tmpfs")
for number, place in enumerate(sys.argv[2:]):
    own = sys.argv[1] if number == 0 else f"/var/tmp/own{number}"
    for path in (place, "/var/tmp/lower", f"{own}/upper", f"{own}/work"):
        os.makedirs(path, exist_ok=True)
    layers = f"lowerdir=/var/tmp/lower,upperdir={own}/upper,workdir={own}/work,userxattr"
    mount("pycor-hooks", place, "overlay", 0, layers)
with contextlib.suppress(OSError):
    mount("none", "/", flags=0x4000 | 0x100000)  # shared, with whoever listens
"""


@pytest.mark.once
def test_decoys(overlays: Overlays, tally: Tally) -> None:
    """Mounts in a container's table that look like ours, and like another's, are nobody's."""
    bystander = overlays.launch("bystander")
    layer = os.path.dirname(bystander.upper)
    ghost = os.path.join(os.path.dirname(bystander.record), "ghost", "merged")
    shown = {}

    def attack(attacker: Attacker) -> None:
        own = attacker.container
        places = [ghost, bystander.merged, bystander.rootfs, own.merged, own.rootfs]
        with tally.injected("a decoy in the mount table", len(places)):
            attacker(_DECOYS, layer, *places)
            shown[own] = own.exec("cat", "/proc/self/mountinfo")
            assert f"upperdir={bystander.upper}," in shown[own]

    from_both(overlays, attack)
    for command in (("watch", "--once"), ("remount", "--all"), ("status", "--size")):
        assert overlays.pycor_hooks(*command).returncode == 0
    restart(bystander)
    assert live.mounts(overlays) == sorted(one.merged for one in (bystander, *shown))
    assert live.states(overlays).keys() == {"bystander", "plain", "privileged"}
    assert {own: own.exec("cat", "/proc/self/mountinfo") for own in shown} == shown
