# SPDX-License-Identifier: GPL-3.0-or-later
"""The live overlays of a private daemon, as cases ask about them: mounts, rows of ``status``."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from lab.wait import until
from pycor_hooks import mountinfo, record
from pycor_hooks.overlay import SOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.client import Instance
    from lab.overlays import Overlays


def mounts(overlays: Overlays) -> list[str]:
    """Where overlays of this daemon are mounted on the host, and what is staged for them."""
    records, instances = overlays.daemon.records + "/", overlays.daemon.directory + "/"
    return sorted(
        mount.target
        for mount in mountinfo.read()
        if mount.target.startswith(records)
        or (mount.source == SOURCE and mount.target.startswith(instances))
    )


def status(overlays: Overlays) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status of ``pycor-hooks status``, and its rows by the name of the container."""
    done = overlays.pycor_hooks("status", "--format=json", check=False)
    return done.returncode, {row["name"]: row for row in json.loads(done.stdout)}


def states(overlays: Overlays) -> dict[str, str]:
    """What ``pycor-hooks status`` calls each container's overlay."""
    return {name: row["state"] for name, row in status(overlays)[1].items()}


def of(container: Instance) -> record.Record:
    """What is recorded of a container's overlay."""
    return record.read(container.record)


def wait_converged(containers: Sequence[Instance], generation: int | None) -> None:
    """Wait until each container has converged with a generation of its base."""
    until(
        lambda: all(of(one).converged == generation for one in containers),
        what=f"all have converged with generation {generation}",
    )


class Refreshes:
    """Begun before the base stops: :meth:`wait` is done when each container was refreshed."""

    def __init__(self, containers: Sequence[Instance]) -> None:
        self._paths = [f"{container.record}/state" for container in containers]
        self._before = self._times()

    def _times(self) -> list[int]:
        return [os.stat(path).st_mtime_ns for path in self._paths]

    def missing(self) -> list[str]:
        """The state files of those that were not refreshed since."""
        rows = zip(self._paths, self._before, self._times(), strict=True)
        return [path for path, before, now in rows if now == before]

    def wait(self, *, timeout_s: float) -> float:
        """Wait until all were refreshed; the seconds that it took."""
        began = time.monotonic()
        until(
            lambda: not self.missing(),
            what=f"all {len(self._paths)} overlays are refreshed",
            timeout_s=timeout_s,
        )
        return time.monotonic() - began
