# SPDX-License-Identifier: GPL-3.0-or-later
"""Running containers after an update of their base: cured while they run, or reported."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.wait import until
from pycor_hooks import mountinfo, stale
from pycor_hooks.staleness import Reason
from tests.daemon.converging import (
    generation,
    hold,
    holding,
    inode,
    mapped,
    replace,
    stopped,
    tasks,
    wait_converged,
)

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.watcher import Watcher

VERSION = "/usr/share/app/version"
DATA = "/usr/share/app/data/one"


def runs_old_code(container: Instance) -> set[int]:
    """The processes that have a file mapped which is gone, by their pid on the host."""
    deleted = (
        task
        for task, paths in mapped(container).items()
        for path in paths
        if path.endswith(" (deleted)")
    )
    return set(deleted)


@pytest.mark.updates_base
def test_systemd_and_libc_in_use(debian_overlays: Overlays, watcher: Watcher) -> None:
    """All that systemd, dbus and journald have mapped is replaced under them, and cured.

    New lookups give the new files; old processes have old ones, and say so; PID 1 moves to the
    new code without a restart of the container, which has nothing of it in its upper later on.
    """
    base, web1 = debian_overlays.base, debian_overlays.launch("web1")
    web1.wait_booted()
    hold(web1, "/usr/bin/yes")
    files = {path for paths in mapped(web1).values() for path in paths}
    files = {path for path in files if os.path.isfile(base.rootfs + path)}
    assert len(files) > 30
    assert runs_old_code(web1) == set()
    wait_converged(debian_overlays, web1)
    with stopped(base):
        replace(base, *files)
        base.exec("rm", "/usr/bin/yes")
    wait_converged(debian_overlays, web1)

    for path in files:
        assert inode(web1, path) == os.stat(base.rootfs + path).st_ino, path
    assert not os.path.exists(f"{web1.merged}/usr/bin/yes")
    assert "/usr/bin/yes (deleted)" in holding(web1)
    assert web1.pid in runs_old_code(web1)
    web1.exec("systemctl", "daemon-reexec")
    until(lambda: web1.pid not in runs_old_code(web1), what="systemd is the new one")
    web1.wait_booted()
    assert re.search(r"web1: [3-9]\d paths cured; frozen [1-3] times", watcher.log())

    web1.restart()
    web1.wait_booted()
    web1.stop()
    web1.wait("Stopped")
    assert not os.path.exists(f"{web1.upper}/usr")
    assert sorted(os.listdir(os.path.dirname(web1.upper))) == ["upper", "work"]


@pytest.mark.updates_base
def test_what_the_operator_and_the_container_did(overlays: Overlays, watcher: Watcher) -> None:
    """A paused container converges, and stays paused; what a container has of its own stays."""
    del watcher
    paused, own = overlays.launch("paused"), overlays.launch("own")
    for container in (paused, own):
        hold(container, VERSION)
        hold(container, DATA)
    own.exec("sh", "-c", f"echo own >{VERSION}; rm -r {os.path.dirname(DATA)}")
    wait_converged(overlays, paused, own)
    overlays.client("pause", "paused")
    with stopped(overlays.base):
        replace(overlays.base, VERSION, DATA)
    wait_converged(overlays, paused, own)
    assert paused.status == "Frozen"
    with open(own.merged + VERSION) as file:
        assert file.read() == "own\n"
    assert not os.path.exists(own.merged + DATA)
    overlays.client("start" if overlays.client.program == "lxc" else "resume", "paused")
    assert inode(paused, VERSION) == os.stat(overlays.base.rootfs + VERSION).st_ino


@pytest.mark.updates_base
def test_what_cannot_be_cured(overlays: Overlays, watcher: Watcher) -> None:
    """A mount point in some namespace of it, and a directory that it works in, are reported.

    What can be cured beside them is; and when they are free, ``remount`` does the rest.
    """
    web1 = overlays.launch("web1")
    hold(web1, DATA)
    service = f"mount --bind /etc/hostname {VERSION}; exec sleep 1000"
    web1.exec("sh", "-c", f"unshare -m sh -c '{service}' >/dev/null 2>&1 </dev/null &")
    web1.exec("sh", "-c", "cd /srv/acl-directory; sleep 1000 >/dev/null 2>&1 </dev/null &")
    until(lambda: web1.run("ps").stdout.count(" sleep 1000\n") == 3, what="they run")
    wait_converged(overlays, web1)
    with stopped(overlays.base):
        replace(overlays.base, VERSION, DATA)
        anew = "cd /srv; rm -r acl-directory; mkdir acl-directory; touch acl-directory/new"
        overlays.base.exec("sh", "-c", anew)
    watcher.wait_log("web1: 1 paths cured")
    until(lambda: stale.read(live.of(web1)), what="the rest is reported")
    found = stale.read(live.of(web1))
    assert found is not None
    assert dict(found.paths) == {
        VERSION: Reason.MOUNTED,
        "/srv/acl-directory": Reason.DIRECTORY,
        "/srv/acl-directory/new": Reason.BELOW,
    }
    assert found.generation == generation(overlays)
    assert live.of(web1).converged == found.generation - 1
    watcher.wait_log("web1: 3 paths stay stale (")
    mounted = {mount.target for task in tasks(web1) for mount in mountinfo.read(str(task))}
    assert VERSION in mounted

    remount = overlays.pycor_hooks("remount", "web1", check=False)
    assert (remount.returncode, "stale" in remount.stdout) == (1, True)
    web1.exec("killall", "sleep")
    assert overlays.pycor_hooks("remount", "web1").returncode == 0
    assert stale.read(live.of(web1)) is None
    assert os.listdir(f"{web1.merged}/srv/acl-directory") == ["new"]
    assert live.of(web1).converged == generation(overlays)
