# SPDX-License-Identifier: GPL-3.0-or-later
"""The host boots anew: containers start by themselves, beside the watcher."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lab import live, sound
from lab.wait import until
from lab.watcher import Process

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally

FAULT = "host reboots: /run and all mounts gone, containers autostart"


def test_power(overlays: Overlays, tally: Tally, *, soak: bool) -> None:
    """Each container is up again, on one overlay, with what it wrote; the watcher follows."""
    daemon = overlays.daemon
    count, rounds = (30, 4) if soak else (5, 1)
    webs = [overlays.init(f"web{number}", "-c", "boot.autostart=true") for number in range(count)]
    overlays.client("start", *(web.name for web in webs))
    for number in range(rounds):
        for web in webs:
            web.exec("sh", "-c", f"echo {number} >>/root/written; sync")
        log = os.path.join(daemon.world.directory, f"boot{number}.log")
        with tally.injected(FAULT), ThreadPoolExecutor() as pool:
            daemon.lose_power()
            assert not live.mounts(overlays)
            booting = pool.submit(daemon.start)
            with Process(daemon.env, log) as watcher:
                booting.result()
                until(lambda: _all_run(webs), what="all are started", timeout_s=30 + count)
                watcher.wait_log("following its events")
                assert "WARNING" not in watcher.log()
        lines = [str(line) for line in range(number + 1)]
        tally.lost(
            FAULT,
            [*sound.settled(overlays), *sound.without((web, lines) for web in webs)],
        )


def _all_run(webs: list[Instance]) -> bool:
    return all(web.status == "Running" for web in webs)
