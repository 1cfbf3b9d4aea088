# SPDX-License-Identifier: GPL-3.0-or-later
"""Monitors, inits and daemons that are killed: the next start is clean, and nothing is lost."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING

from lab import live, sound
from lab.client import ClientError
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally
    from lab.watcher import Watcher

TAKEN_DOWN_AFTER_S = 5.0
LOCKED_S = 30
"""That LXD keeps an instance locked whose monitor died between its two stop hooks."""
FOLLOWING_AFTER_S = 5.0
"""From the daemon's being ready until the watcher follows it again."""
MONITOR = "[lxc monitor] killed"
INIT = "init of a container killed"
BOTH = "[lxc monitor] and init killed"
DAEMON = "daemon killed while 20 containers start and stop"
RESTART = "daemon restarted while 20 containers start and stop"


def _write(containers: Sequence[Instance], line: str) -> None:
    """Write what must not get lost, at once in all of them."""
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(
            lambda web: web.run("sh", "-c", "cat >>/root/written; sync", text=f"{line}\n"),
            containers,
        ):
            done.check_returncode()


# -- monitors and inits


def test_monitors_and_inits(
    overlays: Overlays, watcher: Watcher, tally: Tally, seed: int, *, soak: bool
) -> None:
    """Either killed, or both in either order: taken down in 5 s, and what was written is there."""
    faults = [MONITOR, INIT, BOTH] * (4 if soak else 1)
    random = Random(f"{seed}:monitors")
    webs = [overlays.launch(f"web{number}") for number in range(len(faults))]
    lines = []
    for number in range(8 if soak else 1):
        lines.append(str(number))
        _write(webs, lines[-1])
        random.shuffle(faults)
        for web, fault in zip(webs, faults, strict=True):
            with tally.injected(fault):
                _kill(web, fault, random)
        until(
            lambda: not live.mounts(overlays) and not os.path.exists(overlays.daemon.records),
            what="all are taken down",
            timeout_s=TAKEN_DOWN_AFTER_S,
        )
        _until_stopped(overlays, webs)
        for web in webs:
            _start(web)
        left = [*sound.settled(overlays), *sound.without((web, lines) for web in webs)]
        for fault in set(faults):
            tally.lost(fault, left)
    assert "ERROR" not in watcher.log()


def _until_stopped(overlays: Overlays, webs: Sequence[Instance]) -> None:
    """Wait until the daemon calls them stopped, and restart it where it never would.

    Incus locks an instance in ``lxc.hook.stop`` and unlocks it after ``lxc.hook.post-stop``, with
    no time limit (internal/server/instance/operationlock); LXD's lock has one, see LOCKED_S. A
    monitor killed between the two leaves a container that Incus calls running until it restarts,
    and starts then, as it would after a reboot of the host.
    """
    try:
        for web in webs:
            web.wait("Stopped")
    except TimeoutError:
        if overlays.client.program != "incus":
            raise
        overlays.daemon.stop()
        overlays.daemon.start()
        for web in webs:
            _stop_again(web)


def _stop_again(web: Instance) -> None:
    config = web.client.query(f"/1.0/instances/{web.name}")["config"]
    if config.get("volatile.last_state.power") == "RUNNING":
        web.wait("Running")
        web.stop(force=True)
    web.wait("Stopped")


def _start(web: Instance) -> None:
    """Start it, once the daemon has done what it does after a stop: it calls it stopped before."""

    def is_started() -> bool:
        done = web.client("start", web.name, check=False)
        if done.returncode and 'is busy running a "stop" operation' not in done.stderr:
            raise ClientError(done)
        return not done.returncode

    until(is_started, what=f"{web.name} can be started", timeout_s=LOCKED_S + 10)


def _kill(web: Instance, fault: str, random: Random) -> None:
    recorded = live.of(web)
    pids = {MONITOR: [recorded.monitor], INIT: [recorded.init]}.get(fault)
    if pids is None:
        pids = random.sample([recorded.monitor, recorded.init], 2)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # the other one's death was enough
            assert fault == BOTH


# -- the daemon


def test_daemon(
    overlays: Overlays, watcher: Watcher, tally: Tally, seed: int, *, soak: bool
) -> None:
    """Killed or restarted in the midst of it: followed again within 5 s, and all can start."""
    random = Random(f"{seed}:daemon")
    webs = [overlays.init(f"web{number}") for number in range(20)]
    names = [web.name for web in webs]
    overlays.client("start", *names[:10])
    _write(webs[:10], "1")
    for number, fault in enumerate([DAEMON, RESTART] * (5 if soak else 1)):
        if number and not number % 2:
            overlays.client("stop", "--force", *random.sample(names, 10))
        with tally.injected(fault):
            _interrupt(overlays, webs, watcher, fault, after=random.randrange(15))
        tally.lost(fault, sound.settled(overlays, timeout_s=TAKEN_DOWN_AFTER_S))
        if number % 2:
            stopped = [web.name for web in webs if web.status == "Stopped"]
            if stopped:
                overlays.client("start", *stopped)
            lost = sound.without((web, ["1"] if web in webs[:10] else []) for web in webs)
            tally.lost(fault, [*sound.settled(overlays), *lost])


def _interrupt(
    overlays: Overlays, webs: Sequence[Instance], watcher: Watcher, fault: str, *, after: int
) -> None:
    """End the daemon while it stops each container that runs, and starts each other one.

    Args:
        overlays, webs, watcher, fault: as they say.
        after: how many of them are done by then.
    """
    daemon = overlays.daemon
    followed = watcher.log().count("following its events")
    verbs = [("stop", "--force") if web.status == "Running" else ("start",) for web in webs]
    with ThreadPoolExecutor(len(webs)) as pool:
        commands = [
            pool.submit(overlays.client, verb, web.name, *flags, check=False)
            for web, (verb, *flags) in zip(webs, verbs, strict=True)
        ]
        until(
            lambda: sum(command.done() for command in commands) >= after,
            what=f"{after} are done",
        )
        if fault == DAEMON:
            daemon.kill()
        else:
            daemon.stop()
    daemon.start()
    until(
        lambda: watcher.log().count("following its events") > followed,
        what="the daemon is followed again",
        timeout_s=FOLLOWING_AFTER_S,
    )
