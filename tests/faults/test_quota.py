# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that has used up the quota of its root disk (``size=`` on btrfs)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab import sound
from lab.churn import our_log
from lab.wait import until
from tests.daemon.converging import hold, replace, stopped, wait_converged

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally
    from lab.watcher import Watcher

POOL = "limited"
VERSION = "/usr/share/app/version"
_FILL = """
cat /dev/zero >/root/ballast; sync; cat /dev/zero >>/root/ballast; sync
for number in $(seq 1000); do mkdir "/root/$number" || exit 0; done
exit 1
"""


def fill(container: Instance) -> None:
    """Use up a container's quota, until there is no room for a directory either."""
    container.client("exec", "-T", container.name, "--", "sh", "-c", _FILL)


def uncured(overlays: Overlays, container: Instance) -> dict[str, str]:
    """Why paths of a container are stale, as `stale` tells."""
    done = overlays.pycor_hooks("stale", container.name, "--format=json", check=False)
    return {row["files"][0]: row["reason"] for row in json.loads(done.stdout) if row["reason"]}


def refused(container: Instance) -> str:
    """Start a container; what is said where that fails, by the daemon or by a hook; else ""."""
    done = container.client("start", container.name, check=False)
    return done.stderr + "\n".join(our_log(container)) if done.returncode else ""


@pytest.mark.host_s_mounts
@pytest.mark.updates_base
def test_a_quota(overlays: Overlays, watcher: Watcher, tally: Tally) -> None:
    """A cure says that there is no room, and so does a start; others go on; then all is well."""
    client, fault = overlays.client, "quota of the root disk used up"
    client("storage", "create", POOL, "btrfs", "size=512MiB")
    web1 = overlays.init("web1", "--storage", POOL, "--device", "root,size=20MiB")
    web1.start()
    web2 = overlays.launch("web2")
    web1.exec("sh", "-c", "echo own >/root/own")
    for web in (web1, web2):
        hold(web, VERSION)
    with tally.injected(fault):
        fill(web1)
        with stopped(overlays.base):
            replace(overlays.base, VERSION)
        watcher.wait_log("web1: 1 path stays stale (1 no-space)")
        wait_converged(overlays, web2)
        assert uncured(overlays, web1) == {VERSION: "no-space"}
        web1.stop(force=True)
        web1.wait("Stopped")
        said = refused(web1)
        assert not said or "quota exceeded" in said.lower() or "no space left at" in said
        tally.lost(fault, sound.settled(overlays))
        if not said:
            web1.stop(force=True)
            web1.wait("Stopped")
        client("config", "device", "set", "web1", "root", "size=100MiB")
        web1.start()
        assert web1.exec("cat", "/root/own") == "own\n"
        until(lambda: uncured(overlays, web1) == {}, what="it sees the base as it is")
        tally.lost(fault, sound.settled(overlays))
