# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the watcher's log goes: standard error, or systemd's journal with fields to search by.

In the journal each entry says what it is about, so that `journalctl INSTANCE=web1` finds what was
done for one container, whatever the words (systemd.journal-fields(7); the protocol is on
https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from pycor_hooks.plan import Base, base_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pycor_hooks.record import Record

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "pycor-hooks"
MOST_INSTANCES = 500
"""In one entry: the journal drops one that has more than 1,024 fields."""

_FIELDS = "journal_fields"
# The levels of syslog(3), which the journal uses, too.
_LEVELS = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


def about(
    daemon: str, base: Base | None = None, overlays: Iterable[Record] = ()
) -> dict[str, Any]:
    """What a line of the log is about, to be given to the logger as `extra`.

    Args:
        daemon: the state directory.
        base: the base, if there is one.
        overlays: the live ones; the instances of the first 500 are named.
    """
    fields = [("DAEMON", daemon)]
    if base is not None:
        fields.append(("BASE", str(base)))
    some = itertools.islice(overlays, MOST_INSTANCES)
    return {_FIELDS: fields + [("INSTANCE", name_of(each)) for each in some]}


def about_overlay(overlay: Record) -> dict[str, Any]:
    """As :func:`about`, for one live overlay and its base."""
    base = base_of(overlay)
    return about(overlay.daemon, base, [overlay])


def set_up(*, debug: bool = False) -> None:
    """Send the log of this process where :func:`destination` says; `debug` adds that level."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, handlers=[destination(sys.stderr)]
    )
    for chatty in ("asyncio", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def destination(
    stream: TextIO, environ: Mapping[str, str] = os.environ, journal: str = SOCKET
) -> logging.Handler:
    """Choose the stream, or the journal where that is the same.

    Args:
        stream: standard error.
        environ: JOURNAL_STREAM is set by systemd, see systemd.exec(5).
        journal: the journal's socket.
    """
    handler = logging.StreamHandler(stream)
    if _is_journal(stream, environ.get("JOURNAL_STREAM", "")):
        handler.setFormatter(_LevelFormatter("%(message)s"))
        return JournalHandler(handler, journal)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    return handler


def _is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether this stream is the one that JOURNAL_STREAM speaks of; somebody may have moved it."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


class _LevelFormatter(logging.Formatter):
    """Each line begins with its level, as sd-daemon(3) has it."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_level(record)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JournalHandler(logging.Handler):
    """Sends to the journal, without ever waiting for it.

    Args:
        fallback: for what the journal does not take: it is gone, or has no room now.
        path: of its socket.
    """

    def __init__(self, fallback: logging.Handler, path: str = SOCKET) -> None:
        from logging_journald import JournaldTransport  # noqa: PLC0415 - only where it is used

        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._fallback = fallback
        # Not connected: the socket may be replaced by another of the same name.
        self._transport = JournaldTransport(path, connected=False)
        self._transport.socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        fields = [
            ("MESSAGE", self.format(record)),
            ("PRIORITY", str(_level(record))),
            ("SYSLOG_IDENTIFIER", IDENTIFIER),
            *getattr(record, _FIELDS, ()),
        ]
        try:
            # Bytes are sent with their length, so no newline in a name makes a field of its own.
            self._transport.send(
                [(name, text.encode(errors="backslashreplace")) for name, text in fields]
            )
        except OSError:
            self._fallback.handle(record)

    def close(self) -> None:
        """Close the socket."""
        self._transport.socket.close()
        super().close()


def _level(record: logging.LogRecord) -> int:
    return _LEVELS.get(record.levelno, 6)
