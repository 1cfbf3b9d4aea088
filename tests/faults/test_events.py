# SPDX-License-Identifier: GPL-3.0-or-later
"""A flood of events: no change is missed after it, memory and CPU stay as they were.

The short form sends 10,000 events, the long one 100,000.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lab.mounts import own_mounts
from lab.wait import until
from lab.watcher import Process
from pycor_hooks import inbox
from pycor_hooks.events import ACTIONS
from pycor_hooks.follow import MAX_MESSAGE
from pycor_hooks.plan import Base
from tests.faults.watched import (
    Overlays,
    assert_as_before,
    place,
    wait_converged,
    wait_following,
    wait_idle,
)
from tests.kernel.test_watcher import running
from tests.unit.fake_daemon import FakeDaemon, lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.tally import Tally

pytestmark = pytest.mark.host_root

COMES_IN_S = 10.0
"""The time in which 100,000 events come; it may take no more of a processor for them."""
LINES = 100
"""Of its log, at most, for all floods together."""


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """Mounts of our own."""
    with own_mounts():
        yield


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    """A daemon that says what a case wants."""
    with place() as directory, FakeDaemon(directory) as daemon:
        yield daemon


@pytest.fixture
def overlays(fake: FakeDaemon) -> Iterator[Overlays]:
    """Two containers on a base of this daemon."""
    two = Overlays(fake.daemon.directory, "web1", "web2")
    yield two
    two.end()


@pytest.fixture
def watching(fake: FakeDaemon) -> Iterator[Process]:
    """The watcher, which follows this daemon."""
    directory = fake.daemon.directory
    with Process({"LXD_DIR": directory}, f"{directory}/watcher.log") as process:
        wait_following(fake)
        wait_converged(directory)
        yield process


def out_of_order(count: int) -> Iterator[str]:
    """All that can be said of the base, shuffled."""
    dice = random.Random(4)
    actions = sorted(ACTIONS)
    return (lifecycle(dice.choice(actions), old_name="base") for _ in range(count))


def twice(count: int) -> Iterator[str]:
    """Each event two times."""
    actions = itertools.cycle(sorted(ACTIONS))
    pairs = ((lifecycle(next(actions)),) * 2 for _ in range(count // 2))
    return itertools.chain.from_iterable(pairs)


def of_strangers(count: int) -> Iterator[str]:
    """Each of another instance, on which nothing stands."""
    return (lifecycle("instance-stopped", f"stranger{number}") for number in range(count))


def of_unknown_types(count: int) -> Iterator[str]:
    """Types and actions that a newer daemon may have."""
    kinds = (
        json.dumps({"type": "logging", "metadata": {"level": "info", "message": 500 * "x"}}),
        json.dumps({"type": "newest", "metadata": None}),
        lifecycle("instance-teleported"),
        lifecycle("storage-volume-created"),
    )
    return itertools.islice(itertools.cycle(kinds), count)


def malformed(count: int) -> Iterator[str | bytes]:
    """What is no event, each in its way."""
    sound = lifecycle("instance-stopped")
    kinds = (
        *("", "{", "null", "[1]", '"x"', "1e999", 5000 * "9", 10_000 * "[", b"\xff\xfe\x00"),
        *(sound[:-1], sound.replace("base", ""), sound.replace('"/1.0', '"http://[')),
        *(sound.replace("{}", "[1]"), sound.replace('"none"', "7")),
        *('{"type": "lifecycle"}', '{"type": "lifecycle", "metadata": {"action": []}}'),
        sound.replace("base", "\\ud800"),  # this one is: of an instance that cannot be
    )
    return itertools.islice(itertools.cycle(kinds), count)


FLOODS: dict[str, Callable[[int], Iterator[str | bytes]]] = {
    "events out of order": out_of_order,
    "events that come twice": twice,
    "events of strangers": of_strangers,
    "events of unknown types": of_unknown_types,
    "malformed events": malformed,
}


def test_flood(
    overlays: Overlays, fake: FakeDaemon, watching: Process, tally: Tally, *, soak: bool
) -> None:
    """A change in the middle of a flood is seen after a reconcile; all else is as it was."""
    directory = fake.daemon.directory
    count = (100_000 if soak else 10_000) // len(FLOODS)
    for messages in FLOODS.values():
        fake.flood(messages(inbox.LIMIT + 100))
    before = wait_idle(watching)
    for number, (fault, messages) in enumerate(FLOODS.items(), start=2):
        with tally.injected(fault, count), running(Base(directory, "default", "base")):
            fake.flood(messages(count // 2))
            change = overlays.change_base()
            fake.flood(messages(count - count // 2))
        fake.drop()  # as a daemon does with one who does not keep up
        wait_following(fake, number)
        tally.lost(fault, change.missed())
    assert_as_before(watching, before)
    assert watching.usage.cpu_s - before.cpu_s < COMES_IN_S * len(FLOODS) * count / 100_000
    log = watching.log()
    assert log.count("not a lifecycle event") == 1
    assert log.count("\n") < LINES


def test_long_messages(fake: FakeDaemon, watching: Process, tally: Tally, *, soak: bool) -> None:
    """Messages as long as they may be, and longer ones, do not fill the memory."""
    count = 2_000 if soak else 200
    before = wait_idle(watching)
    with tally.injected("messages of 256 KiB", count):
        fake.flood(itertools.repeat(MAX_MESSAGE * "x", count))
    for number in range(2, 4):
        with tally.injected("messages of 10 MiB"):
            with contextlib.suppress(OSError):  # it does not read to the end
                fake.flood([40 * MAX_MESSAGE * "x"])
            wait_following(fake, number)
    assert_as_before(watching, before)


def test_stop_in_a_flood(fake: FakeDaemon, watching: Process, tally: Tally) -> None:
    """SIGTERM ends it within a second, however much there is to read."""

    def flood() -> None:
        with contextlib.suppress(OSError):  # the connection ends
            fake.flood(itertools.cycle(twice(1_000)))

    flooding = threading.Thread(target=flood)
    with tally.injected("SIGTERM in a flood of events"):
        before = watching.usage.cpu_s
        flooding.start()
        until(lambda: watching.usage.cpu_s > before + 0.2, what="it is busy")
        began = time.monotonic()
        assert watching.end() == 0
        assert time.monotonic() - began < 1
    flooding.join()
