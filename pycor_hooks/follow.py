# SPDX-License-Identifier: GPL-3.0-or-later
"""One daemon's lifecycle events, followed for ever: connect, listen, and again when it ends.

The daemon keeps no events for those who are away, so each new connection is announced:
whoever listens has to look at everything then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, cast

from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed, wait_random_exponential
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from pycor_hooks import pulse
from pycor_hooks.logs import about
from pycor_hooks.sockets import is_listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from pycor_hooks.sockets import Daemon

log = logging.getLogger(__name__)

EVENTS = "ws://localhost/1.0/events?type=lifecycle&all-projects=true"
# Full jitter, seconds. The cap keeps a restarted daemon from waiting for us longer than that;
# the floor lets a daemon that is going down close its socket before it is looked for again.
BACKOFF = wait_fixed(0.1) + wait_random_exponential(multiplier=0.25, max=3)
# A connection that lasted this long was a good one: the next failure is the first of its kind.
STEADY = 10.0
OPEN_TIMEOUT = 10.0
PING_INTERVAL = 10.0
PING_TIMEOUT = 10.0
# Bytes. An event has some hundred; that of an exec holds the whole command line. A longer one ends
# the connection, and the next one begins with a look at everything.
MAX_MESSAGE = 256 * 1024
# Messages in the connection's own queue, beyond which the daemon is read from no more.
MAX_QUEUE = 16


class NotRunningError(Exception):
    """No process of the daemon is there; connecting might start it."""


class LostError(Exception):
    """The connection has ended."""


class Connection(ClientConnection):
    """Knows when the daemon last sent anything: an event, a ping, the answer to one of ours."""

    heard_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Take what asyncio has read."""
        self.heard_at = time.time()
        super().data_received(data)


class Follower:
    """Follows one daemon, and says so in the log when that changes, once.

    Args:
        daemon: whom to follow.
        connected: called after each (re)connect, in the event loop.
        heard: called with each message, in the event loop; it does not block.
        changed: called when :meth:`show` gives another state than before.
    """

    def __init__(
        self,
        daemon: Daemon,
        *,
        connected: Callable[[Daemon], None],
        heard: Callable[[Daemon, str | bytes], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.daemon = daemon
        self._connected = connected
        self._heard = heard
        self._changed = changed
        self._connection: Connection | None = None
        self._state = pulse.Followed(daemon.directory, "", "not looked at yet", time.time(), 0.0)

    def show(self) -> pulse.Followed:
        """How it goes."""
        if self._connection:
            self._state = self._state._replace(heard_at=self._connection.heard_at)
        return self._state

    async def run(self) -> None:
        """Follow until cancelled."""
        retrying = AsyncRetrying(
            wait=BACKOFF,
            retry=retry_if_exception_type(
                (NotRunningError, LostError, OSError, WebSocketException)
            ),
            before_sleep=self._say_why_not,
        )
        async for attempt in retrying:
            with attempt:
                await self._listen(attempt.retry_state)

    async def _listen(self, state: RetryCallState) -> None:
        """Connect once and listen to the end.

        Raises:
            NotRunningError: nobody is there.
            OSError, WebSocketException: there is somebody, who does not talk to us.
            LostError: the connection was good, and has ended.
        """
        if not await asyncio.to_thread(is_listening, self.daemon):
            raise NotRunningError
        clock = asyncio.get_running_loop().time
        async with unix_connect(
            self.daemon.socket,
            EVENTS,
            compression=None,
            max_size=MAX_MESSAGE,
            max_queue=MAX_QUEUE,
            open_timeout=OPEN_TIMEOUT,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            close_timeout=0.2,
            create_connection=Connection,
        ) as connection:
            since = clock()
            self._connection = cast("Connection", connection)
            self._say(pulse.FOLLOWING, logging.INFO, "following its events")
            self._connected(self.daemon)
            with contextlib.suppress(ConnectionClosed):
                async for message in connection:
                    self._heard(self.daemon, message)
        if clock() - since > STEADY:
            state.attempt_number = 1
        raise LostError

    def _say_why_not(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, NotRunningError):
            self._say("stopped", logging.INFO, "not running; waiting for it to be started")
        elif isinstance(error, LostError):
            self._say("lost", logging.INFO, "the connection is lost; trying again")
        else:
            reason = f"{type(error).__name__}: {error}"
            self._say("failing", logging.WARNING, f"cannot follow its events, trying on: {reason}")

    def _say(self, state: str, level: int, text: str) -> None:
        if state != self._state.state:
            directory = self.daemon.directory
            self._state = self.show()._replace(state=state, reason=text, since=time.time())
            self._changed()
            log.log(level, "%s: %s", directory, text, extra=about(directory))
