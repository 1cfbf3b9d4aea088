# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon's two sockets, really listening: what it sends is up to the test."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, unix_serve

from pycor_hooks.sockets import Daemon

if TYPE_CHECKING:
    from websockets.sync.server import Server


class FakeDaemon:
    """Started with ``with``, or :meth:`start` and :meth:`stop`, as often as wanted.

    ``refuse`` makes it answer 503, as a daemon does that has not finished starting.
    """

    def __init__(self, directory: str) -> None:
        os.makedirs(f"{directory}/devlxd", exist_ok=True)
        self.daemon = Daemon(kind="lxd", directory=directory)
        self.paths: list[str] = []
        self.refuse = False
        self._connections: list[ServerConnection] = []
        self._guests: socket.socket | None = None
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen for guests and for the API's clients."""
        self.listen_for_guests()
        api = listen(self.daemon.socket)
        self._server = unix_serve(self._hold, sock=api, process_request=self._screen)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def listen_for_guests(self) -> None:
        """Do what only a daemon that really runs does."""
        self._guests = listen(f"{self.daemon.directory}/devlxd/sock")

    def stop(self) -> None:
        """Go away as a process does: both sockets are closed, their files stay."""
        if self._guests:
            self._guests.close()
        if self._server:
            self._server.shutdown()
        self.drop()

    def drop(self) -> None:
        """Cut every connection, without the closing handshake."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    @property
    def followers(self) -> int:
        """How many are connected now."""
        return len(self._connections)

    def say(self, text: str) -> None:
        """Send one message to everybody."""
        for connection in self._connections:
            connection.send(text)

    def announce(self, action: str, name: str = "base", **context: Any) -> None:
        """Send one lifecycle event to everybody."""
        metadata = {"action": action, "source": f"/1.0/instances/{name}", "context": context}
        message = {"type": "lifecycle", "metadata": metadata, "location": "none"}
        self.say(json.dumps(message | {"project": "default"}))

    def _screen(self, connection: ServerConnection, request: Any) -> Any:
        self.paths.append(request.path)
        return connection.respond(503, "starting") if self.refuse else None

    def _hold(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            for _ in connection:
                pass
        self._connections.remove(connection)


def listen(path: str) -> socket.socket:
    """Return a listening unix socket at ``path``, in place of a dead one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen()
    return listening
