# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a watcher runs, follows each daemon, and has heard of it lately. Judges are pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycor_hooks import __version__, pulse
from pycor_hooks.doctor.check import FAIL, OK, WARN, Check, count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pycor_hooks.doctor.inventory import House
    from pycor_hooks.pulse import Followed, Pulse

NAME = "watcher"
STUCK = 30.0
"""Seconds without a tick, which comes every two, after which a watcher is stuck."""
SILENT = 45.0
"""Seconds without a word of a daemon, which answers a ping every ten and pings as often."""
PATIENCE = 15.0
"""Seconds for which a daemon that has just been started may not be followed yet."""
_START = "systemctl start pycor-hooks-watch, or see to it that pycor-hooks watch always runs"
_RESTART = "systemctl restart pycor-hooks-watch; look at its log for the reason"


def check(houses: Sequence[House], now: float) -> Iterator[Check]:
    """Look at the watchers, and at each daemon through their eyes.

    Args:
        houses: the daemons to look at.
        now: seconds since the epoch.
    """
    watchers = pulse.pulses()
    for watcher in watchers:
        yield from judge_process(watcher, now)
    for house in houses:
        live = len(house.records)
        answers = house.trouble is None
        followed = [
            one
            for watcher in watchers
            for one in watcher.daemons
            if one.directory == house.daemon.directory and not is_stuck(watcher, now)
        ]
        yield judge_daemon(house.daemon.directory, followed, now, live=live, answers=answers)


def is_stuck(watcher: Pulse, now: float) -> bool:
    """Whether it has not ticked for long."""
    return now - watcher.ticked_at > STUCK


def judge_process(watcher: Pulse, now: float) -> Iterator[Check]:
    """What is wrong with the process of a watcher, if anything is."""
    subject = f"process {watcher.pid}"
    if is_stuck(watcher, now):
        cause = f"it has done nothing for {now - watcher.ticked_at:.0f} s"
        yield Check(NAME, subject, FAIL, cause, _RESTART)
    if watcher.version != __version__:
        cause = f"it is version {watcher.version}, this command is {__version__}"
        yield Check(NAME, subject, WARN, cause, "systemctl restart pycor-hooks-watch")


def judge_daemon(
    directory: str, followed: Sequence[Followed], now: float, *, live: int, answers: bool
) -> Check:
    """Whether a daemon is followed.

    Args:
        directory: the daemon's.
        followed: what the watchers that work say of it.
        now: seconds since the epoch.
        live: how many overlays of its containers there are.
        answers: whether it runs.
    """
    if not followed:
        state = FAIL if live else WARN
        some = count(live, "live overlay")
        cause = f"no watcher follows it: {some} would not be refreshed when a base stops"
        return Check(NAME, directory, state, cause, _START)
    best = max(followed, key=lambda one: (one.state == pulse.FOLLOWING, one.heard_at))
    if best.state != pulse.FOLLOWING:
        if not answers:
            return Check(NAME, directory, OK, f"waited for: {best.reason}")
        cause = f"it is not followed, for {now - best.since:.0f} s: {best.reason}"
        state = FAIL if now - best.since > PATIENCE else WARN
        return Check(NAME, directory, state, cause, _RESTART)
    silence = now - best.heard_at
    if silence > SILENT:
        cause = f"it is followed, and has said nothing for {silence:.0f} s, not even to a ping"
        return Check(NAME, directory, FAIL, cause, _RESTART)
    return Check(NAME, directory, OK, f"followed, last heard of {max(0.0, silence):.0f} s ago")
