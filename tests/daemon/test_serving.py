# SPDX-License-Identifier: GPL-3.0-or-later
"""A distribution's upgrade of a base, under containers that serve all the while."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lab import debian, rebuilt, serving, traffic
from lab.overlays import Overlays
from lab.wait import until
from pycor_hooks import procs
from tests.daemon.converging import stopped, wait_converged

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.traffic import Traffic
    from lab.watcher import Watcher

CONTAINERS = 10
FROZEN_MS = 500
RESTARTED = {
    *("init.scope", "nginx.service", "ssh.service", "systemd-journald.service"),
    *("systemd-networkd.service", "systemd-udevd.service"),
}
NOT_BLINDLY = {"dbus.service", "systemd-logind.service"}
UPGRADED = RESTARTED | NOT_BLINDLY
"""Who runs what the packages hold. What runs beside, such as the console's getty, does not."""


class Served(NamedTuple):
    """A base, containers on it that serve pages, and traffic to them, which has to be begun."""

    overlays: Overlays
    containers: list[Instance]
    asking: Traffic


@pytest.fixture
def served(overlays: Overlays, watcher: Watcher) -> Served:
    """The containers have converged with their base."""
    del watcher
    daemon = overlays.daemon
    image = debian.image(daemon.world, debian.serving())
    base = serving.make_base(daemon, image, "serving")
    on_it = Overlays(daemon, base.name)
    on_it.install()

    def launch(number: int) -> Instance:
        container = on_it.launch(f"web{number}")
        container.wait_booted()
        serving.set_up(container)
        return container

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        containers = list(pool.map(launch, range(CONTAINERS)))
    wait_converged(on_it, *containers)
    log = os.path.join(daemon.world.directory, f"{daemon.kind}-traffic.log")
    return Served(on_it, containers, traffic.Traffic(containers, serving.PAGES, log))


def own_files(container: Instance) -> set[str]:
    """What is in the upper of a container, directories aside; logs and state come and go."""
    return {
        os.path.join(parent, name).removeprefix(container.upper)
        for parent, _, names in os.walk(container.upper)
        for name in names
        if not parent.startswith((f"{container.upper}/var/log/", f"{container.upper}/var/lib/"))
    }


def assert_new(base: Instance, container: Instance, paths: list[str]) -> None:
    """Each path, and what a new process runs, is the base's file; nothing is left in upper."""
    root = f"/proc/{container.pid}/root"
    for path in paths:
        assert os.lstat(root + path).st_ino == os.lstat(base.rootfs + path).st_ino, path
    command = ("systemd-run", "--quiet", "--unit=fresh", "dbus-monitor", "--system")
    container.exec(*command)
    fresh = until(lambda: processes(container, "fresh.service"), what="it runs")
    until(lambda: procs.command(fresh[0]) == "dbus-monitor", what="it is that program")
    assert "fresh.service" not in with_old_code(base, container)
    container.exec("systemctl", "stop", "fresh.service")


def assert_cured_in_time(watcher: Watcher, names: list[str]) -> None:
    """Each was cured, and frozen for no longer than is allowed."""
    found = re.findall(
        r"(\w+): \d+ paths cured; frozen \d+ times, for at most (\d+)", watcher.log()
    )
    assert sorted({name for name, _ in found}) == sorted(names)
    assert max(int(milliseconds) for _, milliseconds in found) <= FROZEN_MS


def processes(container: Instance, unit: str) -> list[int]:
    """The processes of a unit of a container."""
    return [pid for its, pid in serving.running(container) if its == unit]


def with_old_code(base: Instance, container: Instance) -> set[str | None]:
    """The units with code mapped that is not what the base has by that name."""
    found = set()
    for unit, pid in serving.running(container):
        for used in procs.code(pid):
            path = base.rootfs + used.path
            if not os.path.exists(path) or os.stat(path).st_ino != used.ino:
                found.add(unit)
    return found


def stale_units(overlays: Overlays, *names: str) -> dict[str, set[str]]:
    """What ``stale`` names in each container."""
    done = overlays.pycor_hooks("stale", *names, "--format=json", check=False)
    found: dict[str, set[str]] = {}
    for row in json.loads(done.stdout):
        assert row["reason"] is None
        found.setdefault(row["instance"], set()).add(row["unit"])
    assert done.returncode == int(bool(found)), done.stderr
    return found


def by_needrestart(container: Instance) -> set[str]:
    """What needrestart inside a container names."""
    printed = container.exec("needrestart", "-b", "-l")
    found = re.findall("^NEEDRESTART-SVC: (.+)$", printed, re.MULTILINE)
    return {name.replace("systemd-manager", "init.scope") for name in found}


def assert_runs_new(base: Instance, container: Instance) -> None:
    """Nginx and systemd of a container are the upgraded files, to the byte."""
    for unit, path in (
        ("nginx.service", "/usr/sbin/nginx"),
        ("init.scope", "/lib/systemd/systemd"),
    ):
        with open(base.rootfs + path, "rb") as file:
            new = file.read()
        assert new.endswith(rebuilt.MARK)
        pids = processes(container, unit)
        assert pids
        for pid in pids:
            with open(f"/proc/{pid}/exe", "rb") as file:
                assert file.read() == new
            assert os.stat(f"/proc/{pid}/exe").st_ino == os.stat(base.rootfs + path).st_ino


@pytest.mark.acceptance
def test_upgrade_under_traffic(served: Served, watcher: Watcher) -> None:
    """Systemd, dbus, ssh and nginx are upgraded by apt in the base; no request fails.

    `stale` names who runs old code, as needrestart does inside; `restart` brings all to the new
    code that may be restarted blindly, nginx in the way that the base has for it, and a restart
    of the containers the rest.
    """
    overlays, asking = served.overlays, served.asking
    base, containers = overlays.base, served.containers
    names = [container.name for container in containers]
    before = {container.name: own_files(container) for container in containers}
    assert stale_units(overlays) == {}
    with asking:
        with stopped(base):
            assert "Upgrading binary: nginx" in serving.upgrade(base)
        wait_converged(overlays, *containers)
        now = asking.wait_each()
        assert traffic.failures(asking.requests()) == {}
        pages = {one.last for one in asking.requests(since=now) if one.path == serving.PAGES[1]}
        assert pages == {rebuilt.MARK.decode().strip()}
        assert_cured_in_time(watcher, names)
        paths = serving.packaged(base)
        for container in containers:
            assert_new(base, container, paths)
            assert own_files(container) == before[container.name]
            assert with_old_code(base, container) == UPGRADED
        assert stale_units(overlays) == dict.fromkeys(names, UPGRADED)
        for container in containers[:2]:
            assert by_needrestart(container) == UPGRADED

        done = overlays.pycor_hooks("restart", "--serial=4", check=False, timeout_s=300)
        for name in names:
            assert f"{name}: restarted nginx.service by {serving.RESTART}" in done.stdout
        for container in containers:
            assert_runs_new(base, container)
        assert stale_units(overlays) == dict.fromkeys(names, NOT_BLINDLY)
        asking.wait_each()
        assert traffic.failures(asking.requests()) == {}

    overlays.client("restart", *names)
    assert stale_units(overlays) == {}
    for container in containers:
        assert not os.path.exists(f"{container.upper}/usr")
