# SPDX-License-Identifier: GPL-3.0-or-later
"""The real watcher on real overlays of made-up daemons: what it misses, holds and uses."""

from __future__ import annotations

import contextlib
import os
import time
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lab.liblxc import Container, make_base
from lab.wait import until
from pycor_hooks import generations, registry
from pycor_hooks.watcher import TICK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.processes import Usage
    from lab.watcher import Process
    from tests.unit.fake_daemon import FakeDaemon

CAUGHT_UP_S = 5.0
"""From the end of a connection until all is seen that it should have announced."""
IDLE_S = 2 * TICK
"""For how long its CPU time is taken: two ticks."""
IDLE_CPU = 0.1
"""Seconds of CPU that it may take in that time."""
GROWTH = 4096
"""KiB by which its memory may differ afterwards; each of its threads may have a heap."""
LIMIT = 35 * 1024
"""KiB that it may ever hold."""


@contextlib.contextmanager
def place() -> Iterator[str]:
    """A made-up daemon's directory, whose path leaves room for the names of sockets.

    What a watcher has kept of its bases is gone afterwards.
    """
    with TemporaryDirectory(prefix="pycor-") as path:
        os.chmod(path, 0o755)
        try:
            yield path
        finally:
            generations.remove(path)


class Overlays:
    """A base in a place, and containers that run on it until :meth:`end`."""

    def __init__(self, directory: str, *names: str) -> None:
        self._base = make_base(directory)
        self._containers = [Container(directory, name) for name in names]
        for container in self._containers:
            container.start()

    def end(self) -> None:
        """Stop them."""
        for container in self._containers:
            container.stop()
            container.end()

    def change_base(self) -> Change:
        """Change the base, which every container has looked at before.

        Where a refresh was under way, or the kernel has forgotten the looks, it tells nothing,
        and another change is made.
        """
        seen_in = [f"{container.merged}/usr/bin" for container in self._containers]
        for _ in range(10):
            change = Change(f"{self._base}/usr/bin/fresh{time.monotonic_ns()}", seen_in)
            if change.stale():
                return change
        raise AssertionError("the kernel shows every change by itself, so this tells nothing")


class Change:
    """A new file in the base."""

    def __init__(self, path: str, seen_in: list[str]) -> None:
        """Make it; ``seen_in`` are the directories of the containers in which it should be."""
        self._shown = [f"{directory}/{os.path.basename(path)}" for directory in seen_in]
        assert len(self.stale()) == len(seen_in)  # and the kernel keeps that in mind
        with open(path, "w") as file:
            file.write("fresh\n")

    def stale(self) -> list[str]:
        """Where it is not seen."""
        return [path for path in self._shown if not os.path.exists(path)]

    def missed(self, *, timeout_s: float = CAUGHT_UP_S) -> list[str]:
        """Where it is not seen after a while; returns as soon as it is everywhere."""
        with contextlib.suppress(TimeoutError):
            until(lambda: not self.stale(), what="the change is seen", timeout_s=timeout_s)
        return self.stale()


def cpu_s(watching: Process, seconds: float) -> float:
    """The CPU time that it takes in the next seconds."""
    before = watching.usage.cpu_s
    time.sleep(seconds)  # the time is what is measured
    return watching.usage.cpu_s - before


def wait_idle(watching: Process) -> Usage:
    """Wait until it has nothing to do; what it holds then."""
    until(lambda: not cpu_s(watching, 0.2), what="the watcher is idle")
    return watching.usage


def wait_converged(*directories: str) -> None:
    """Wait until the overlays of daemons have converged with bases that the watcher first sees.

    It waits for the disk then, and is not idle, though it takes no time.
    """
    until(
        lambda: all(one.converged for one in registry.records(list(directories))),
        what="all have converged",
    )


def assert_as_before(watching: Process, before: Usage) -> None:
    """It holds no more than it held, has never held much more, and is idle."""
    now = wait_idle(watching)
    assert now.resident - before.resident < GROWTH
    assert now.peak < LIMIT
    assert now.descriptors <= before.descriptors
    assert cpu_s(watching, IDLE_S) < IDLE_CPU


def wait_following(fake: FakeDaemon, times: int = 1) -> None:
    """Wait until a daemon is followed by a watcher which connects for the n-th time."""
    until(
        lambda: (fake.greeted, fake.followers) == (times, 1),
        what=f"it is followed, for the {times}. time",
        timeout_s=CAUGHT_UP_S,
    )
