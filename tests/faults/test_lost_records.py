# SPDX-License-Identifier: GPL-3.0-or-later
"""Records lost under the live overlays of a real daemon, and what it does next with each."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lab import live, sound
from lab.wait import until
from tests.faults.test_lost import deleted, emptied, garbled, of_a_newer_version

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally
    from lab.watcher import Watcher

FAULT = "records lost under the live overlays of a daemon"
DAMAGES = (deleted, emptied, garbled, of_a_newer_version)


def cleaned(container: Instance) -> None:
    """All that is recorded of it is gone, which leaves the directory that is mounted on."""
    for entry in os.scandir(container.record):
        if entry.path != container.merged:
            shutil.rmtree(entry) if entry.is_dir() else os.unlink(entry)


def lose(webs: list[Instance]) -> None:
    """Lose the record of each in another way."""
    for web, damage in zip(webs, DAMAGES, strict=False):
        damage(f"{web.record}/state")
    cleaned(webs[-1])


def test_records_lost(overlays: Overlays, tally: Tally, watcher: Watcher) -> None:
    """The watcher finds the overlays again; without it a stop takes down, a start is clean."""
    with ThreadPoolExecutor(len(DAMAGES) + 1) as pool:
        webs = list(pool.map(overlays.launch, [f"web{n}" for n in range(len(DAMAGES) + 1)]))
        for web in webs:
            web.exec("sh", "-c", "echo own >/root/own")
        with tally.injected(FAULT, len(webs)):
            lose(webs)
            mounted = dict.fromkeys((web.name for web in webs), "mounted")
            until(lambda: live.states(overlays) == mounted, what="all are found again")
            tally.lost(FAULT, sound.settled(overlays))
        watcher.kill()
        with tally.injected(FAULT, len(webs)):
            lose(webs)
            list(pool.map(lambda web: web.restart(force=True), webs))
            assert [web.exec("cat", "/root/own") for web in webs] == ["own\n"] * len(webs)
            tally.lost(FAULT, sound.settled(overlays))
