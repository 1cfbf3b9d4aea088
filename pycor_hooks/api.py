# SPDX-License-Identifier: GPL-3.0-or-later
"""The few questions that the watcher asks a daemon's API, without blocking its event loop.

The commands use pylxd; the watcher does not load it (11 MB), and asks only when a base was
renamed or deleted, or has changed under a container.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from pycor_hooks.sockets import Daemon

TIMEOUT = 10.0
MAX_ANSWER = 8 * 1024 * 1024  # bytes; a profile has about 1,000
NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What it takes to read an answer that is not shaped as the API says."""


async def get(
    daemon: Daemon, path: str, *, most: int = MAX_ANSWER, within: float = TIMEOUT
) -> Any:
    """Ask one question.

    In HTTP/1.0 the answer is whole when the daemon closes the connection, and no chunks have
    to be put together.

    Args:
        daemon: whom to ask; it is running.
        path: such as "/1.0/projects".
        most: bytes that are read of an answer, at most.
        within: seconds that it may take.

    Returns:
        The answer's metadata.

    Raises:
        OSError: nobody answers, or not in time (TimeoutError).
        ValueError: the answer is an error, or not one of this API, or is too long.
    """
    try:
        async with asyncio.timeout(within):
            answer = await _ask(daemon, path, most)
    except TimeoutError:
        raise TimeoutError(f"no answer within {within:g} s") from None
    message = json.loads(answer.partition(b"\r\n\r\n")[2])
    if not isinstance(message, dict) or message.get("metadata") is None:
        raise ValueError(message)
    return message["metadata"]


async def _ask(daemon: Daemon, path: str, most: int) -> bytes:
    reader, writer = await asyncio.open_unix_connection(daemon.socket)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return await _read_all(reader, most)
    finally:
        writer.close()


async def _read_all(reader: asyncio.StreamReader, most: int) -> bytes:
    answer = bytearray()
    while part := await reader.read(65536):
        answer += part
        if len(answer) > most:
            raise ValueError(f"an answer of more than {most} bytes")
    return bytes(answer)


async def profiles(daemon: Daemon) -> list[tuple[str, dict[str, Any]]]:
    """Return all profiles of a daemon, each with the name of its project.

    Raises:
        OSError, ValueError: as :func:`get` does.
    """
    found = []
    for project in await get(daemon, "/1.0/projects?recursion=1"):
        name = project["name"]
        # A project without profiles of its own (features.profiles=false) shows the default one's.
        if name == "default" or project["config"].get("features.profiles") == "true":
            listed = await get(daemon, f"/1.0/profiles?recursion=1&project={quote(name)}")
            found += [(name, profile) for profile in listed]
    return found
