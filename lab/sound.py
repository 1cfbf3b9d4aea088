# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a daemon's overlay containers are sound, all of them at one moment.

Sound is: exactly one overlay for each that runs, and its init lives on that very one; none for
those that do not; nothing mounted, recorded or left in a volume that belongs to nobody.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from lab import live
from lab.wait import until
from pycor_hooks import instance, layer, mountinfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lab.client import Instance
    from lab.overlays import Overlays

OWN_LAYER = {"upper", "work", layer.PARENTS}


def complaints(overlays: Overlays) -> list[str]:
    """What is wrong now, a line each; ask while nothing starts or stops."""
    mounts = Counter(live.mounts(overlays))
    found = []
    expected = set()
    for container, row in _containers(overlays):
        if row["status"] == "Running":
            found += _wrong_when_running(container, row["state"]["pid"], mounts)
            expected |= {container.merged, container.record}
        elif row["status"] != "Stopped":
            found.append(f"{container.name} is {row['status']}")
        found += _left_in_volume(container)
    found += [f"mount of nobody: {target}" for target in sorted(mounts.keys() - expected)]
    return found + [f"state of nobody: {path}" for path in _states(overlays) - expected]


def settled(overlays: Overlays, *, timeout_s: float = 10) -> list[str]:
    """Wait until nothing is wrong, as what is under way may need; or return what still is."""
    try:
        until(lambda: not complaints(overlays), what="all is sound", timeout_s=timeout_s)
    except TimeoutError:
        return complaints(overlays)
    return []


def without(containers: Iterable[tuple[Instance, Sequence[str]]]) -> list[str]:
    """Which containers do not hold the lines that were written to /root/written in them."""
    return [
        f"{container.name}: wrote {list(lines)}, holds {found}"
        for container, lines in containers
        if (found := _written(container.upper)) != list(lines)
    ]


def _written(upper: str) -> list[str]:
    try:
        with open(os.path.join(upper, "root/written"), encoding="ascii") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def _containers(overlays: Overlays) -> Iterator[tuple[Instance, dict[str, Any]]]:
    """All overlay containers, with what the daemon says about them and their processes."""
    everywhere = {"recursion": "2", "all-projects": "true", "project": ""}
    for row in overlays.client.query("/1.0/instances", **everywhere):
        if "hooks/pre-start" in row["expanded_config"].get("raw.lxc", ""):
            yield overlays.client.in_project(row["project"]).instance(row["name"]), row


def _wrong_when_running(container: Instance, init: int, mounts: Counter[str]) -> list[str]:
    name = container.name
    if mounts[container.merged] != 1:
        return [f"{name} runs with {mounts[container.merged]} overlays"]
    try:
        recorded = live.of(container)
        root = _device_of_root(init)
    except OSError as error:
        return [f"{name}: {error}"]
    found = []
    if recorded.init != init:
        found.append(f"{name}: its init is {init}, recorded is {recorded.init}")
    if not instance.process_alive(recorded.monitor, recorded.monitor_start):
        found.append(f"{name}: its recorded monitor {recorded.monitor} is dead")
    if os.stat(container.merged).st_dev != root:
        found.append(f"{name}: its init lives on another overlay")
    strays = os.listdir(container.rootfs)
    return found + [f"{name}: not moved out of the bare rootfs: {stray}" for stray in strays]


def _device_of_root(process: int) -> int:
    """The file system that a process has as its root, as a device number."""
    root = [mount for mount in mountinfo.read(str(process)) if mount.target == "/"][-1]
    major, minor = map(int, root.device.split(":"))
    return os.makedev(major, minor)


def _left_in_volume(container: Instance) -> list[str]:
    """Half-made layers, and what else does not belong beside upper and work."""
    own = os.path.join(container.volume, "overlay")
    found = [f"{own}.new"] if os.path.lexists(f"{own}.new") else []
    if os.path.isdir(own):
        found += [f"{own}/{name}" for name in sorted(set(os.listdir(own)) - OWN_LAYER)]
    return [f"left in the volume: {path}" for path in found]


def _states(overlays: Overlays) -> set[str]:
    try:
        return {entry.path for entry in os.scandir(overlays.daemon.records)}
    except FileNotFoundError:
        return set()
