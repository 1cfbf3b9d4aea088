# SPDX-License-Identifier: GPL-3.0-or-later
"""Following a daemon over a real websocket on a real unix socket."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tenacity import AsyncRetrying, RetryCallState, wait_fixed

from pycor_hooks import follow
from pycor_hooks.follow import BACKOFF, Follower
from pycor_hooks.sockets import is_listening
from tests.unit.fake_daemon import BadDaemon, FakeDaemon, babbling, frozen, listen, mute

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import AsyncIterator, Callable, Iterator

    from pycor_hooks.sockets import Daemon


@pytest.fixture
def directory() -> Iterator[str]:
    """A state directory whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="pycor-") as path:
        yield path


@pytest.fixture
def fake(directory: str) -> Iterator[FakeDaemon]:
    """A daemon that runs."""
    with FakeDaemon(directory) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(follow, "BACKOFF", wait_fixed(0.02))


class Listener:
    """What a follower reports."""

    def __init__(self) -> None:
        self.connects = 0
        self.messages: list[str | bytes] = []

    def connected(self, _: Daemon) -> None:
        """Count it."""
        self.connects += 1

    def heard(self, _: Daemon, message: str | bytes) -> None:
        """Keep it."""
        self.messages.append(message)


@asynccontextmanager
async def following(daemon: Daemon) -> AsyncIterator[Listener]:
    """Have a daemon followed."""
    listener = Listener()
    follower = Follower(daemon, connected=listener.connected, heard=listener.heard)
    task = asyncio.create_task(follower.run())
    try:
        yield listener
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for a condition, and let the event loop go on meanwhile."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it may depend on a thread, or on the kernel
            await asyncio.sleep(0.005)


def test_messages(fake: FakeDaemon) -> None:
    """Every message is handed on, in order, after the connection was announced once."""

    async def scenario() -> None:
        async with following(fake.daemon) as listener:
            await until(lambda: fake.followers)
            await until(lambda: listener.connects)
            for text in ("one", "two", "two"):
                fake.say(text)
            await until(lambda: len(listener.messages) == 3)
            assert (listener.connects, listener.messages) == (1, ["one", "two", "two"])

    asyncio.run(scenario())


def test_asks_for_all_projects(fake: FakeDaemon) -> None:
    """It asks for lifecycle events alone, of all projects."""

    async def scenario() -> None:
        async with following(fake.daemon):
            await until(lambda: fake.followers)

    asyncio.run(scenario())
    assert fake.paths == ["/1.0/events?type=lifecycle&all-projects=true"]


def test_dropped_connection(fake: FakeDaemon) -> None:
    """A connection that breaks is made again, and announced again."""

    async def scenario() -> None:
        async with following(fake.daemon) as listener:
            for _ in range(3):
                await until(lambda: fake.followers)
                before = listener.connects
                fake.drop()
                await until(lambda: listener.connects > before)  # noqa: B023 - awaited here
            assert listener.connects == 4

    asyncio.run(scenario())


def test_daemon_restarted(fake: FakeDaemon) -> None:
    """A daemon that goes away and comes back is followed again."""

    async def scenario() -> None:
        async with following(fake.daemon) as listener:
            await until(lambda: fake.followers)
            await asyncio.to_thread(fake.stop)
            await until(lambda: not fake.followers)
            fake.start()
            await until(lambda: listener.connects == 2)
            await until(lambda: fake.followers)
            fake.say("again")
            await until(lambda: listener.messages == ["again"])

    asyncio.run(scenario())


def test_daemon_not_ready(fake: FakeDaemon) -> None:
    """A daemon that answers 503 while it starts is asked again."""

    async def scenario() -> None:
        fake.refuse = True
        async with following(fake.daemon) as listener:
            await until(lambda: len(fake.paths) > 2)
            assert listener.connects == 0
            fake.refuse = False
            await until(lambda: listener.connects)

    asyncio.run(scenario())


def test_half_open(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is frozen is noticed by its silence, and followed again when it can be."""
    monkeypatch.setattr(follow, "PING_INTERVAL", 0.05)
    monkeypatch.setattr(follow, "PING_TIMEOUT", 0.05)

    async def scenario(daemon: Daemon) -> None:
        async with following(daemon) as listener:
            await until(lambda: listener.connects >= 3)

    with BadDaemon(directory, frozen) as fake:
        asyncio.run(scenario(fake.daemon))


@pytest.mark.parametrize("behave", [mute, babbling])
def test_handshake_without_an_end(
    directory: str,
    monkeypatch: pytest.MonkeyPatch,
    behave: Callable[[socket.socket, threading.Event], None],
) -> None:
    """A daemon that accepts and says nothing, or does not come to the end, is tried again."""
    monkeypatch.setattr(follow, "OPEN_TIMEOUT", 0.05)

    async def scenario(fake: BadDaemon) -> None:
        async with following(fake.daemon) as listener:
            await until(lambda: fake.connections >= 3)
            assert listener.connects == 0

    with BadDaemon(directory, behave) as fake:
        asyncio.run(scenario(fake))


def test_message_without_an_end(fake: FakeDaemon) -> None:
    """A message that is too long costs the connection, which is made again, and no memory."""

    async def scenario() -> None:
        async with following(fake.daemon) as listener:
            await until(lambda: fake.followers)
            await asyncio.to_thread(fake.say, (follow.MAX_MESSAGE + 1) * "x")
            await until(lambda: listener.connects == 2)
            assert listener.messages == []

    asyncio.run(scenario())


def test_stopped_daemon_is_not_woken(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While only systemd listens on the API's socket, nobody connects to it."""
    looks = 0

    def counted(daemon: Daemon) -> bool:
        nonlocal looks
        looks += 1
        return is_listening(daemon)

    monkeypatch.setattr(follow, "is_listening", counted)
    fake = FakeDaemon(directory)

    async def scenario(systemd: socket.socket) -> None:
        async with following(fake.daemon) as listener:
            await until(lambda: looks > 5)
            with pytest.raises(BlockingIOError):
                systemd.accept()
            assert listener.connects == 0

    with listen(fake.daemon.socket) as systemd:
        systemd.setblocking(False)
        asyncio.run(scenario(systemd))


def test_logged_once_per_change(fake: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried, a state is logged when it is entered, and no more."""
    caplog.set_level(logging.INFO, "pycor_hooks.follow")

    async def scenario() -> None:
        async with following(fake.daemon) as listener:
            await until(lambda: listener.connects)
            fake.refuse = True
            await until(lambda: fake.followers)
            fake.drop()
            seen = len(fake.paths)
            await until(lambda: len(fake.paths) > seen + 5)
            await asyncio.to_thread(fake.stop)
            await until(lambda: "not running" in caplog.text)
            fake.refuse = False
            fake.start()
            await until(lambda: listener.connects == 2)

    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert all(text.startswith(f"{fake.daemon.directory}: ") for text in said)
    following_again = [text for text in said if "following" in text]
    assert len(following_again) == 2
    assert sum("HTTP 503" in text for text in said) == 1
    assert sum("not running" in text for text in said) == 1


def test_no_socket_at_all(directory: str) -> None:
    """Without any socket it waits for one."""
    fake = FakeDaemon(directory)

    async def scenario() -> None:
        async with following(fake.daemon) as listener:
            fake.start()
            await until(lambda: listener.connects)
        await asyncio.to_thread(fake.stop)

    assert not os.path.exists(fake.daemon.socket)
    asyncio.run(scenario())


def test_backoff() -> None:
    """Waits grow, with full jitter, to the three seconds that a daemon's restart may cost."""
    waits = {}
    for attempt in (1, 3, 50):
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        waits[attempt] = [BACKOFF(state) for _ in range(200)]
        assert all(0.1 <= wait <= 3.1 for wait in waits[attempt])
    assert max(waits[1]) <= 0.35
    assert min(waits[50]) < 1.5 < max(waits[50])


@pytest.mark.parametrize(("steady", "attempts"), [(0.0, [1, 1, 1]), (60.0, [1, 2, 3])])
def test_good_connection_forgives(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, steady: float, attempts: list[int]
) -> None:
    """After a connection that lasted, the waits begin anew; after short ones they grow."""
    seen: list[int] = []

    def backoff(state: RetryCallState) -> float:
        seen.append(state.attempt_number)
        return 0.01

    monkeypatch.setattr(follow, "BACKOFF", backoff)
    monkeypatch.setattr(follow, "STEADY", steady)

    async def scenario() -> None:
        async with following(fake.daemon):
            for _ in attempts:
                await until(lambda: fake.followers)
                before = len(seen)
                fake.drop()
                await until(lambda: len(seen) > before)  # noqa: B023 - awaited here

    asyncio.run(scenario())
    assert seen == attempts


def test_cancelled_at_once(fake: FakeDaemon) -> None:
    """Following ends within a fraction of a second, though the daemon does not say goodbye."""

    async def scenario() -> float:
        async with following(fake.daemon):
            await until(lambda: fake.followers)
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 0.8
