# SPDX-License-Identifier: GPL-3.0-or-later
"""Dozens of containers, 8 clients at once, operations at random: nothing is lost or leaked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING

import pytest

from lab import sound
from lab.churn import Churner, Plan
from lab.hooktimes import Stopwatch

if TYPE_CHECKING:
    from lab.overlays import Overlays
    from lab.tally import Tally

FAULT = "8 clients start, stop, reboot, copy, delete at random"
CLIENTS = 8


@pytest.mark.usefixtures("watcher")
def test_churn(
    overlays: Overlays, tally: Tally, seed: int, hook_times: dict[str, list[float]], *, soak: bool
) -> None:
    """One overlay per running container at every pause, none besides, and what was written."""
    containers, pauses, operations = (50, 25, 10) if soak else (16, 4, 3)
    stopwatch = Stopwatch(overlays)
    names = [f"web{number}" for number in range(containers)]
    churners = [
        Churner(
            overlays,
            Plan(Random(f"{seed}:{number}"), names[number::CLIENTS]),
            ("-p", "default", "-p", stopwatch.profile),
        )
        for number in range(CLIENTS)
    ]
    for _ in range(pauses):
        with (
            tally.injected(FAULT, times=operations * CLIENTS),
            ThreadPoolExecutor(CLIENTS) as pool,
        ):
            list(pool.map(lambda churner: churner.work(operations), churners))
        written = [
            (overlays.client.instance(name), lines)
            for churner in churners
            for name, lines in churner.written.items()
        ]
        tally.lost(FAULT, [*sound.settled(overlays), *sound.without(written)])
    for hook, seconds in stopwatch.seconds().items():
        hook_times.setdefault(f"{overlays.daemon.kind}, {hook}", []).extend(seconds)
