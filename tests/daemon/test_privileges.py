# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit's capabilities: with them all is done, and without any one of them something is not."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.watcher import Watcher
from pycor_hooks import share
from pycor_hooks.systemd import UNIT
from tests.daemon.test_update import SEEN_AFTER_S, of, publish, seen

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays

# A /proc that hides processes, from root too (proc(5)), in mounts that are otherwise the lab's.
HIDEPID = (
    *("unshare", "--mount", "--propagation=unchanged", "sh", "-c"),
    'mount --make-private /proc && mount -t proc -o hidepid=2,gid=65534 proc /proc && exec "$@"',
    "sh",
)


def granted() -> set[str]:
    """What the unit's CapabilityBoundingSet= has."""
    text = share.text_of(f"systemd/{UNIT}")
    (line,) = re.findall("^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    return set(line.split())


def confined(overlays: Overlays, capabilities: set[str]) -> Watcher:
    """The watcher with some capabilities, none to be gained, and a /proc that hides processes."""
    names = (f"+{name.removeprefix('CAP_').lower()}" for name in sorted(capabilities))
    privileges = ("setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(names)}")
    return Watcher(overlays.daemon, prefix=[*HIDEPID, *privileges])


def kill(container: Instance) -> None:
    """Kill its monitor, and with that its init: nobody takes its overlay down."""
    monitor = container.monitor
    assert monitor is not None
    os.kill(monitor.pid, signal.SIGKILL)


@pytest.mark.updates_base
def test_what_is_granted_is_enough(overlays: Overlays) -> None:
    """With exactly the unit's capabilities it refreshes, takes down, and asks the daemon."""
    own_ids = ("-c", "security.idmap.isolated=true")
    web1, web2 = overlays.launch("web1"), overlays.launch("web2", *own_ids)
    web3 = overlays.launch("web3", "-c", "security.privileged=true")
    with confined(overlays, granted()) as watching:
        refreshes = live.Refreshes([web1, web2, web3])
        publish(overlays.base, 1)
        refreshes.wait(timeout_s=SEEN_AFTER_S)
        assert [seen(each) for each in (web1, web2, web3)] == [of(1)] * 3
        kill(web2)
        watching.wait_log("web2: its monitor is gone; overlay taken down")
        assert live.mounts(overlays) == [web1.merged, web3.merged]
        overlays.client("rename", "base", "base2")
        watching.wait_log("correct raw.lxc of the profiles that name it: overlay\n")
        overlays.client("rename", "base2", "base")
        log = watching.log()
    assert "ERROR" not in log
    assert re.findall("WARNING (.*): renamed", log) == ["base"]


def refresh_nothing(overlays: Overlays, watcher: Watcher) -> None:
    """The first look at an overlay, which refreshes it, fails."""
    overlays.launch("web1")
    with watcher:
        watcher.wait_log("ERROR   web1: cannot be refreshed: ")


def leave_an_orphan(overlays: Overlays, watcher: Watcher) -> None:
    """The overlay of a container that was killed stays."""
    web1 = overlays.launch("web1")
    with watcher:
        kill(web1)
        watcher.wait_log("WARNING web1: overlay cannot be taken down: ")
    overlays.pycor_hooks("watch", "--once")


def take_the_living_for_dead(overlays: Overlays, watcher: Watcher) -> None:
    """The overlay of a privileged container that runs goes."""
    web1 = overlays.launch("web1", "-c", "security.privileged=true")
    with watcher:
        watcher.wait_log("INFO    web1: its monitor is gone; overlay taken down")
    assert web1.status == "Running"


WITHOUT = {
    "CAP_SYS_ADMIN": refresh_nothing,
    "CAP_DAC_READ_SEARCH": leave_an_orphan,
    "CAP_SYS_PTRACE": take_the_living_for_dead,
}


@pytest.mark.once
@pytest.mark.parametrize("capability", sorted(granted()))
def test_what_is_granted_is_needed(overlays: Overlays, capability: str) -> None:
    """Without any one of the unit's capabilities something of its work goes wrong."""
    WITHOUT[capability](overlays, confined(overlays, granted() - {capability}))
