# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the web server in each of some containers, one after the other.

They are sent to loopback from inside the network namespace of the container, by one process that
has a thread in each: nothing of it leaves a container.

Run as ``python -m lab.traffic INIT,… PATH…``, where INIT are the pids of inits and PATH what is
asked for in turn, until SIGTERM; prints a line for each request.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Self

from lab.supervisor import Supervised
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.client import Instance

PORT = 80
TIMEOUT_S = 30.0
"""Of one request; who sits at a browser has left by then."""
PAUSE_S = 0.02
"""Between two requests to one container."""

_libc = ctypes.CDLL(None, use_errno=True)


class Request(NamedTuple):
    """What became of one request.

    `init`: of the container. `path`: what was asked for. `began`: by the monotonic clock.
    `took`: seconds. `error`: what went wrong, "" where nothing did. `last`: line of the body.
    """

    init: int
    path: str
    began: float
    took: float
    error: str
    last: str


class Traffic:
    """Entered with ``with``: each container has answered then. Ends with the process gone."""

    def __init__(self, containers: Iterable[Instance], paths: Sequence[str], log: str) -> None:
        """Describe it.

        Args:
            containers: running ones, with a web server.
            paths: what is asked for, in turn.
            log: a path for the list of the requests.
        """
        self._names = {container.pid: container.name for container in containers}
        self._paths = paths
        self._log = log
        self._requests: list[Request] = []
        self._read = 0

    def __enter__(self) -> Self:
        with open(self._log, "wb"):
            pass  # an older list is of other containers
        inits = ",".join(map(str, self._names))
        command = [sys.executable, "-P", "-m", "lab.traffic", inits, *self._paths]
        self._process = Supervised(command, log=self._log, env=os.environ)
        try:
            self.wait_each()
        except BaseException:
            self._process.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.signal(signal.SIGTERM, timeout_s=TIMEOUT_S + 5)
        finally:
            self._process.end()

    def requests(self, *, since: float = 0, container: str = "") -> list[Request]:
        """What ended so far, of all that began at a moment or later, to one container or to all.

        Raises:
            ValueError: the process printed something else, as when it failed.
        """
        with open(self._log, "rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        self._requests += [Request(*json.loads(line)) for line in new.splitlines()]
        return [
            one
            for one in self._requests
            if one.began >= since and container in {"", self._names[one.init]}
        ]

    def wait_each(self) -> float:
        """Wait until each container has answered each path once more; the moment it began."""
        now, wanted = time.monotonic(), len(self._names) * len(self._paths)
        until(
            lambda: len({(one.init, one.path) for one in self.requests(since=now)}) == wanted,
            what="each container has answered",
            timeout_s=TIMEOUT_S + 5,
        )
        return now


def failures(requests: Iterable[Request]) -> Counter[str]:
    """How many requests failed with which error."""
    return Counter(one.error for one in requests if one.error)


def ask(path: str) -> tuple[str, str]:
    """One request, by a connection of its own; what went wrong, and the last line of the body."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), TIMEOUT_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError as error:
        return type(error).__name__, ""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.lower().split(b"\r\n")
    if not status.startswith(b"http/1.1 200 ") or b"content-length: %d" % len(body) not in fields:
        return f"{status.decode(errors='replace') or 'no answer'}, {len(body)} bytes", ""
    return "", (body.splitlines() or [b""])[-1].decode(errors="replace")


def _keep_asking(init: int, paths: Sequence[str], ended: threading.Event) -> None:
    """Move this thread into the container's network, and send requests until told to end."""
    descriptor = os.open(f"/proc/{init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.setns(descriptor, 0) == -1:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)
    while not ended.is_set():
        for path in paths:
            began = time.monotonic()
            error, last = ask(path)
            request = Request(init, path, began, time.monotonic() - began, error, last)
            os.write(1, json.dumps(request).encode() + b"\n")
            ended.wait(PAUSE_S)


def main(inits: str, *paths: str) -> None:
    """Send requests to the containers with these inits until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threads = [
        threading.Thread(target=_keep_asking, args=(int(init), paths, ended))
        for init in inits.split(",")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
