# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher's questions to a daemon, answered by a real HTTP server on a unix socket."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import api
from pycor_hooks.sockets import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROJECTS = """{"metadata": [
    {"name": "default", "config": {"features.profiles": "true"}},
    {"name": "a b", "config": {"features.profiles": "true"}},
    {"name": "borrows", "config": {"features.profiles": "false"}}
]}"""


@contextmanager
def answering(answers: Mapping[str, str | None]) -> Iterator[Daemon]:
    """Have a daemon that gives these answers to these paths; None: it never answers."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[self.path]
            if answer is None:
                done.wait(30)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    with TemporaryDirectory(prefix="pycor-") as directory:
        daemon = Daemon("lxd", directory)
        with UnixStreamServer(daemon.socket, Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield daemon
            done.set()
            server.shutdown()


def test_get() -> None:
    """An answer's metadata is what was asked for."""
    with answering({"/1.0/projects": '{"metadata": ["x"]}'}) as daemon:
        assert asyncio.run(api.get(daemon, "/1.0/projects")) == ["x"]


@pytest.mark.parametrize(
    "answer", ["", "[]", "not JSON", '{"type": "error", "error": "no", "metadata": null}']
)
def test_error(answer: str) -> None:
    """An error, or what no daemon says, is a ValueError."""
    with answering({"/": answer}) as daemon, pytest.raises(ValueError):  # noqa: PT011
        asyncio.run(api.get(daemon, "/"))


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that does not answer is given up."""
    monkeypatch.setattr(api, "TIMEOUT", 0.05)
    with answering({"/": None}) as daemon, pytest.raises(TimeoutError):
        asyncio.run(api.get(daemon, "/"))


def test_too_much() -> None:
    """An answer without an end is given up before it fills the memory."""
    long = '{"metadata": "' + 200_000 * "x" + '"}'
    with answering({"/": long}) as daemon, pytest.raises(ValueError, match="more than 100000"):
        asyncio.run(api.get(daemon, "/", most=100_000))


def test_nobody() -> None:
    """Where nobody listens, an OSError says so."""
    with pytest.raises(FileNotFoundError):
        asyncio.run(api.get(Daemon("lxd", "/nowhere"), "/"))


def test_profiles() -> None:
    """Profiles come with their project; one that borrows the default project's adds none."""
    listed = '{{"metadata": [{{"name": "{}"}}]}}'
    answers = {
        "/1.0/projects?recursion=1": PROJECTS,
        "/1.0/profiles?recursion=1&project=default": listed.format("one"),
        "/1.0/profiles?recursion=1&project=a%20b": listed.format("two"),
    }
    with answering(answers) as daemon:
        assert asyncio.run(api.profiles(daemon)) == [
            ("default", {"name": "one"}),
            ("a b", {"name": "two"}),
        ]
