# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command in a container through its daemon's exec API, within bounds.

What answers is the container's, whatever the command is called there: it may print without end,
or never end. So both have a limit, beyond which it is killed. The words are an argv; no shell
sees them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosedOK, WebSocketException

from pycor_hooks.host_errors import ExecFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pycor_hooks.client import Connection

MOST = 1024 * 1024  # bytes of output; systemctl has some 200 for a unit
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_COLORS": "0"}
_INPUT, _OUTPUT, _ERRORS, _CONTROL = "0", "1", "2", "control"


class Done(NamedTuple):
    """A command that has ended: its exit status, and what it wrote, as the container has it."""

    status: int
    output: str
    errors: str


def run(connection: Connection, name: str, words: Sequence[str], *, timeout: float) -> Done:
    """Run a command as root in a container, and wait for its end.

    Args:
        connection: in the project of the container.
        name: of it.
        words: command and arguments.
        timeout: seconds, after which it is killed.

    Raises:
        ExecFailed: there is no such command, or it did not end in time, or it said too much.
        DaemonRefused, Unreachable: the daemon says why not.
    """
    body = {
        "command": list(words),
        "environment": _ENVIRONMENT,
        "wait-for-websocket": True,
        "interactive": False,
        "cwd": "/",
    }

    def failed(reason: object) -> ExecFailed:
        return ExecFailed(words=" ".join(words[:2]), name=name, reason=reason)

    operation, begun = connection.begin("instances", name, "exec", json=body)
    url = f"ws://localhost/1.0/operations/{operation}/websocket?secret="
    urls = {stream: url + secret for stream, secret in begun["fds"].items()}
    try:
        output, errors = asyncio.run(_converse(connection.daemon.socket, urls, timeout))
        ended, problem = connection.end(operation, round(timeout))
    except TimeoutError as error:
        raise failed(f"it has not ended within {timeout:.0f} s") from error
    except (OSError, WebSocketException, _TooMuchError) as error:
        raise failed(error) from error
    if problem:
        raise failed(problem)
    return Done(int(ended["return"]), output, errors)


class _TooMuchError(Exception):
    """More came than anybody wants to read."""


async def _converse(path: str, urls: Mapping[str, str], limit: float) -> tuple[str, str]:
    """Give it no input, and take its output; when we hang up, the daemon kills it.

    Seen on LXD 5.0.2 and Incus 6.0.4.
    """
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(limit):
        streams: dict[str, ClientConnection] = {}
        for stream in (_CONTROL, _INPUT, _OUTPUT, _ERRORS):
            connecting = unix_connect(
                path, urls[stream], ping_interval=None, compression=None, close_timeout=1
            )
            streams[stream] = await stack.enter_async_context(connecting)
        await streams[_INPUT].send("")  # that was all
        output, errors = await asyncio.gather(_read(streams[_OUTPUT]), _read(streams[_ERRORS]))
    return output, errors


async def _read(stream: ClientConnection) -> str:
    """What comes until an empty text, or the end of the connection.

    Raises:
        _TooMuchError: it is more than MOST.
    """
    received = bytearray()
    with contextlib.suppress(ConnectionClosedOK):
        while message := await stream.recv():
            received += message.encode() if isinstance(message, str) else message
            if len(received) > MOST:
                raise _TooMuchError(f"it wrote more than {MOST} bytes")
    return received.decode(errors="backslashreplace")
