# SPDX-License-Identifier: GPL-3.0-or-later
"""How long each hook takes in containers that real daemons start and stop, without changing it.

A profile puts lab/timed-hook before each hook: from the moment before the interpreter is loaded
until the hook has ended, on a machine that does other things as well.
"""

from __future__ import annotations

import os
from collections import defaultdict
from statistics import quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.overlays import Overlays

WRAPPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "timed-hook")
_HEADINGS = ("hook", "runs", "p50 ms", "p99 ms", "max ms")


class Stopwatch:
    """A profile whose hooks are timed, and what was measured.

    ``profile`` is its name: ``overlays.launch("web1", "-p", "default", "-p", profile)``.
    """

    profile = "timed"

    def __init__(self, overlays: Overlays) -> None:
        """Make the profile, a copy of the one that install made."""
        daemon = overlays.daemon
        self._path = os.path.join(daemon.world.directory, f"{daemon.kind}-hooks.times")
        given = overlays.client.query(f"/1.0/profiles/{overlays.image}")["config"]["raw.lxc"]
        hooks = f"= {overlays.prefix}/hooks/"
        timed = given.replace(hooks, f"= {WRAPPER} {self._path} {hooks[2:]}")
        overlays.client("profile", "create", self.profile)
        overlays.client("profile", "set", self.profile, "raw.lxc", "-", text=timed)

    def seconds(self) -> dict[str, list[float]]:
        """The durations of all runs that have ended, by the name of the hook."""
        found: dict[str, list[float]] = defaultdict(list)
        with open(self._path, encoding="utf-8") as lines:
            for line in lines:
                hook, began, ended = line.split()
                found[hook].append(float(ended) - float(began))
        return found


def table(rows: Iterable[tuple[str, list[float]]]) -> list[str]:
    """A line for each hook: how often it ran, the median, the 99th percentile, the longest.

    Args:
        rows: what to call a hook, and its durations in seconds, two or more.
    """
    cells: list[tuple[str, ...]] = [_HEADINGS]
    for name, seconds in rows:
        percentiles = quantiles(seconds, n=100, method="inclusive")
        figures = (percentiles[49], percentiles[98], max(seconds))
        cells.append((name, str(len(seconds)), *(f"{1000 * figure:.1f}" for figure in figures)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    ]
