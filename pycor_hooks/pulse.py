# SPDX-License-Identifier: GPL-3.0-or-later
r"""What a watcher shows of itself: RUN/.watch/PID, written at each tick and at each change.

For `doctor` alone; nothing depends on it. Several watchers have a file each. One that was killed
leaves its file behind, which counts for nothing: pid and start time in it tell that its writer
is gone, and the next watcher to start, or to end, removes it. No daemon's directory is called
`.watch`: :func:`pycor_hooks.record.escape` writes a dot at the beginning as `\x2e`.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import __version__, instance, record

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME = ".watch"

FOLLOWING = "following"


class Followed(NamedTuple):
    """One daemon as a watcher sees it.

    `directory` of the daemon; `state`: "following", else in a word why not, and `reason` in full;
    `since` when, and `heard_at` when the daemon last sent anything, pings and their answers
    included, in seconds since the epoch, 0 for never.
    """

    directory: str
    state: str
    reason: str
    since: float
    heard_at: float


class Pulse(NamedTuple):
    """One watcher: the process, its version, when it last ticked, and whom it follows."""

    pid: int
    start: int
    version: str
    ticked_at: float
    daemons: tuple[Followed, ...]


def show(daemons: Sequence[Followed], now: float) -> None:
    """Write what this process, a watcher, shows of itself.

    Raises:
        OSError: it cannot be written.
    """
    pid = os.getpid()
    pulse = Pulse(pid, instance.process_start(pid), __version__, now, tuple(daemons))
    home = f"{record.RUN}/{HOME}"
    for path in (record.RUN, home):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    fields = pulse._asdict() | {"daemons": [each._asdict() for each in daemons]}
    with open(f"{home}/{pid}.new", "w", encoding="ascii") as file:
        json.dump(fields, file)
    os.rename(f"{home}/{pid}.new", f"{home}/{pid}")


def hide() -> None:
    """Remove what this process shows, and what dead watchers left."""
    home = f"{record.RUN}/{HOME}"
    with contextlib.suppress(OSError):
        for name in os.listdir(home):
            text = name.removesuffix(".new")
            if not text.isdecimal():
                continue  # not a watcher's
            pid = int(text)
            if pid == os.getpid() or not instance.process_start(pid):
                os.unlink(f"{home}/{name}")
        os.rmdir(home)


def pulses() -> list[Pulse]:
    """The watchers that live now; a file that is not sound counts for none."""
    home = f"{record.RUN}/{HOME}"
    try:
        names = sorted(filter(str.isdecimal, os.listdir(home)))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            with open(f"{home}/{name}", encoding="ascii") as file:
                fields = json.load(file)
            daemons = tuple(Followed(**each) for each in fields.pop("daemons"))
            pulse = Pulse(**fields, daemons=daemons)
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            continue
        if instance.process_alive(pulse.pid, pulse.start):
            found.append(pulse)
    return found
