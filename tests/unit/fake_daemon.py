# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon's two sockets, really listening: what it sends, or does instead, is up to the test."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection, unix_serve

from pycor_hooks.sockets import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from websockets.sync.server import Server


class FakeDaemon:
    """Started with ``with``, or :meth:`start` and :meth:`stop`, as often as wanted.

    ``refuse`` makes it answer 503, as a daemon does that has not finished starting; ``greeted``
    counts the followers that it ever had.
    """

    def __init__(self, directory: str) -> None:
        os.makedirs(f"{directory}/devlxd", exist_ok=True)
        self.daemon = Daemon(kind="lxd", directory=directory)
        self.paths: list[str] = []
        self.greeted = 0
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

    def say(self, text: str | bytes) -> None:
        """Send one message to everybody; bytes as a binary one."""
        for connection in self._connections:
            connection.send(text)

    def flood(self, texts: Iterable[str | bytes]) -> None:
        """Send messages to everybody, as many at once as a write takes, as fast as they are read.

        Raises:
            OSError: the connection was cut.
        """
        frames = map(_frame, texts)
        while batch := b"".join(itertools.islice(frames, 100)):
            for connection in self._connections:
                connection.socket.sendall(batch)

    def announce(self, action: str, name: str = "base", **context: Any) -> None:
        """Send one lifecycle event to everybody."""
        self.say(lifecycle(action, name, **context))

    def _screen(self, connection: ServerConnection, request: Any) -> Any:
        self.paths.append(request.path)
        return connection.respond(503, "starting") if self.refuse else None

    def _hold(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        self.greeted += 1
        with contextlib.suppress(ConnectionClosed):
            for _ in connection:
                pass
        self._connections.remove(connection)


def _frame(text: str | bytes) -> bytes:
    data, opcode = (
        (text, Opcode.BINARY) if isinstance(text, bytes) else (text.encode(), Opcode.TEXT)
    )
    return Frame(opcode, data).serialize(mask=False)


def lifecycle(action: str, name: str = "base", **context: Any) -> str:
    """An event as LXD sends it."""
    metadata = {"action": action, "source": f"/1.0/instances/{name}", "context": context}
    message = {"type": "lifecycle", "metadata": metadata, "location": "none"}
    return json.dumps(message | {"project": "default"})


class BadDaemon(FakeDaemon):
    """Does with each connection to its API what a test says; `connections` counts them.

    Args:
        directory: the state directory.
        behave: called with each connection in a thread of its own, and with an event that is
            set when the daemon stops; the connection is closed when it returns.
    """

    def __init__(
        self, directory: str, behave: Callable[[socket.socket, threading.Event], None]
    ) -> None:
        super().__init__(directory)
        self.connections = 0
        self._behave = behave
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listen for guests and for the API's clients."""
        self.listen_for_guests()
        self._api = listen(self.daemon.socket)
        self._start_thread(self._accept)

    def stop(self) -> None:
        """Go away."""
        super().stop()
        self._stopped.set()
        self._api.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._api.close()

    def _start_thread(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._api.accept()
            except OSError:  # shut down
                return
            self.connections += 1
            self._start_thread(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._behave(connection, self._stopped)


def mute(_: socket.socket, stopped: threading.Event) -> None:
    """Accept a connection, read nothing and say nothing."""
    stopped.wait()


def frozen(connection: socket.socket, stopped: threading.Event) -> None:
    """Shake hands as a websocket server does; then be frozen, as by SIGSTOP."""
    protocol = ServerProtocol()
    while not (requests := protocol.events_received()):
        protocol.receive_data(connection.recv(65536))
    protocol.send_response(protocol.accept(requests[0]))  # type: ignore[arg-type]
    for data in protocol.data_to_send():
        connection.sendall(data)
    stopped.wait()


def babbling(connection: socket.socket, stopped: threading.Event) -> None:
    """Answer the handshake with headers that have no end."""
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    while not stopped.is_set():
        connection.sendall(b"X-More: " + 1000 * b"x" + b"\r\n")


def listen(path: str) -> socket.socket:
    """Return a listening unix socket at ``path``, in place of a dead one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen()
    return listening
