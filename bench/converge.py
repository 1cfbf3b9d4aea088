# SPDX-License-Identifier: GPL-3.0-or-later
"""A base with 2,000 changed files, 60 of them in use in each of 20 running containers.

Run as ``python -m bench.converge``, as root: a private LXD, a Debian with systemd, dbus, journald
and three services. Measured are how long each container is frozen, how long it takes after the
end of ``lxc stop base`` until all have converged, and what the watcher holds resident.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from typing import TYPE_CHECKING

from bench.figures import write
from bench.memory import resident_kib
from lab import debian, live, overlays
from lab.daemon import Daemon
from lab.overlays import Overlays
from lab.wait import until
from lab.watcher import Watcher
from lab.world import World
from pycor_hooks import instance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.client import Instance

CONTAINERS = 20
CHANGED = 2000
IN_USE = 60
SERVICES = 3
ROUNDS = 3

_FILES = "/usr/share/bench"
_OPEN_EACH = 4
_UNIT = "[Service]\nExecStart=/usr/bin/tail -f {files}\n[Install]\nWantedBy=multi-user.target\n"
# As a package manager does it: another file takes the name.
_REPLACE = 'for path; do cp -p "$path" "$path.dpkg-new"; mv -f "$path.dpkg-new" "$path"; done'
_CURED = re.compile(r"(\d+) paths cured; frozen (\d+) times, for at most (\d+) ms")


def prepare(base: Instance) -> None:
    """Give the base files to change, and services that hold some of them open."""
    base.start()
    base.wait_booted()
    base.exec("sh", "-ec", f"mkdir {_FILES}; cd {_FILES}; seq {CHANGED} | xargs touch")
    for service in range(SERVICES):
        numbers = range(service * _OPEN_EACH + 1, (service + 1) * _OPEN_EACH + 1)
        unit = _UNIT.format(files=" ".join(f"{_FILES}/{number}" for number in numbers))
        base.exec("tee", f"/etc/systemd/system/bench{service}.service", text=unit)
        base.exec("systemctl", "enable", f"bench{service}")
    base.stop()
    base.wait("Stopped")


def files_in_use(container: Instance, base: Instance) -> list[str]:
    """The files of the base that services of a container have mapped or open."""
    script = "cat /proc/[0-9]*/maps; readlink /proc/[0-9]*/fd/*"
    lines = container.run("sh", "-c", script).stdout.splitlines()
    words = {line.split(None, 5)[-1] for line in lines if line}
    return sorted(word for word in words if os.path.isfile(base.rootfs + word))[:IN_USE]


def update(base: Instance, paths: Sequence[str]) -> None:
    """Replace files in the base, which is stopped before and afterwards."""
    base.start()
    base.wait_booted()
    base.exec("sh", "-ec", _REPLACE, "sh", *paths)
    base.stop()


def generation(base: Instance) -> int | None:
    """The generation that the watcher has recorded."""
    what = instance.Instance(base.client.directory, "default", base.name)
    return instance.generation_of(what.daemon, what.key, instance.identity_of(what.rootfs()))


def one_round(
    base: Instance, containers: Sequence[Instance], watcher: Watcher
) -> dict[str, float]:
    """One update of the base, which all containers hold files of."""
    in_use = files_in_use(containers[0], base)
    others = [f"{_FILES}/{number}" for number in range(CHANGED, 0, -1)]
    paths = list(dict.fromkeys([*in_use, *others]))[:CHANGED]
    said = len(watcher.log())
    before = generation(base)
    update(base, paths)
    stopped = time.monotonic()
    until(lambda: generation(base) != before, what="there is a new generation")
    now = generation(base)
    live.wait_converged(containers, now)
    took = time.monotonic() - stopped
    cured = [tuple(map(int, found)) for found in _CURED.findall(watcher.log()[said:])]
    return {
        "changed": len(paths),
        "in_use": len(in_use),
        "cured_each": statistics.median(paths for paths, _, _ in cured),
        "containers_cured": len(cured),
        "freezes_each_max": max(freezes for _, freezes, _ in cured),
        "frozen_ms_median": statistics.median(ms for _, _, ms in cured),
        "frozen_ms_max": max(ms for _, _, ms in cured),
        "all_done_s": round(took, 2),
    }


def restart(containers: Sequence[Instance]) -> None:
    """Let each have the current files in use."""
    for container in containers:
        container.restart(force=True)
    for container in containers:
        container.wait_booted()


def main() -> None:
    """Measure."""
    with World() as world, Daemon(world, "lxd", "dir") as daemon:
        daemon.client("image", "import", debian.image(world), "--alias", "debian-image")
        base = overlays.make_base(daemon.client, "debian-image", "debian")
        prepare(base)
        of_base = Overlays(daemon, "debian")
        of_base.install()
        with Watcher(daemon) as watcher:
            containers = [of_base.launch(f"web{number}") for number in range(CONTAINERS)]
            for container in containers:
                container.wait_booted()
            until(lambda: generation(base), what="the base has a manifest")
            rounds = []
            for _ in range(ROUNDS):
                rounds.append(one_round(base, containers, watcher))
                print(rounds[-1])
                restart(containers)
            resident = resident_kib(watcher.pid)
    write("converge", {"containers": CONTAINERS, "rounds": rounds, "watcher_kib": resident})


if __name__ == "__main__":
    main()
