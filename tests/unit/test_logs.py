# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the log goes, on real sockets: a stream, or the journal with fields."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import logs
from pycor_hooks.logs import about, about_overlay
from pycor_hooks.plan import Base
from pycor_hooks.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LXD = "/var/lib/lxd"
BASE = Base(LXD, "web", "base")


def overlay(name: str, project: str = "default") -> Record:
    """A live overlay on that base."""
    return Record(
        daemon=LXD, project=project, name=name, base_project=BASE.project, base_name=BASE.name
    )


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger that is nobody else's."""
    logger = logging.getLogger("pycor_hooks.test")
    logger.setLevel(logging.INFO)
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


class Journal:
    """Its two sockets: `stream` is the other end of `stderr`, entries come as datagrams."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stream, other = socket.socketpair()
        self.stderr = other.makefile("w")
        other.close()
        self.stream.settimeout(5)
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind(path)
        self.datagrams.settimeout(5)
        status = os.fstat(self.stderr.fileno())
        self.environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    def close(self) -> None:
        """Close all of it."""
        for each in (self.stream, self.stderr, self.datagrams):
            each.close()

    def entry(self) -> list[tuple[str, str]]:
        """Receive one, as journald reads it: NAME, newline, length, value, newline."""
        data, fields = self.datagrams.recv(1 << 20), []
        while data:
            name, _, rest = data.partition(b"\n")
            length = int.from_bytes(rest[:8], "little")
            fields.append((name.decode(), rest[8 : 8 + length].decode()))
            assert rest[8 + length : 9 + length] == b"\n"
            data = rest[9 + length :]
        return fields


@contextmanager
def short_directory(tmp_path: Path) -> Iterator[str]:
    """A path that leaves room for the name of a socket, however long that of the test is."""
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield f"/proc/self/fd/{descriptor}"
    os.close(descriptor)


@pytest.fixture
def journal(tmp_path: Path, log: logging.Logger) -> Iterator[Journal]:
    """The journal, and the log that goes there."""
    with short_directory(tmp_path) as directory:
        listening = Journal(f"{directory}/socket")
        log.addHandler(logs.destination(listening.stderr, listening.environ, listening.path))
        yield listening
        listening.close()


@pytest.mark.parametrize("value", ["8:1", "", "nonsense"])
def test_stream(log: logging.Logger, value: str) -> None:
    """Without a journal, or with standard error moved away, a line has time and level."""
    with TemporaryFile("w+") as stderr:
        log.addHandler(logs.destination(stderr, {"JOURNAL_STREAM": value}))
        log.warning("web1: %s", "refused")
        stderr.seek(0)
        assert re.fullmatch(r"[-\d]+ [:,\d]+ WARNING web1: refused\n", stderr.read())


def test_level() -> None:
    """Debug is left out unless it is asked for."""
    for words, shown in (("", "INFO"), ("debug=True", "DEBUG")):
        code = f"import logging; from pycor_hooks import logs; logs.set_up({words});"
        code += "logging.getLogger('x').debug('DEBUG'); logging.getLogger('x').info('INFO')"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, stderr=subprocess.PIPE, text=True
        )
        assert shown in done.stderr.splitlines()[0]


def test_entry(log: logging.Logger, journal: Journal) -> None:
    """An entry has the message, its level, and what it is about."""
    log.error("web1: %s", "refused", extra=about_overlay(overlay("web1")))
    assert journal.entry() == [
        ("MESSAGE", "web1: refused"),
        ("PRIORITY", "3"),
        ("SYSLOG_IDENTIFIER", "pycor-hooks"),
        ("DAEMON", LXD),
        ("BASE", "web/base"),
        ("INSTANCE", "web1"),
    ]


def test_entry_about_many(log: logging.Logger, journal: Journal) -> None:
    """An entry about many overlays names each, up to what the journal takes."""
    some = [overlay("one"), overlay("two", "web")]
    log.info("refreshed", extra=about(LXD, BASE, some))
    assert journal.entry()[-2:] == [("INSTANCE", "one"), ("INSTANCE", "web/two")]
    log.info("refreshed", extra=about(LXD, BASE, [overlay("web")] * 2000))
    assert 500 < len(journal.entry()) < 1024


def test_entry_about_nothing(log: logging.Logger, journal: Journal) -> None:
    """What others log has no fields of ours."""
    log.info("hello")
    assert [name for name, _ in journal.entry()] == ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"]


def test_hostile_text(log: logging.Logger, journal: Journal) -> None:
    """No text makes a field of its own, or is lost because it is not UTF-8."""
    name = "x\nPRIORITY=0\n\udcff"
    log.warning("%s", name, extra=about(name))
    entry = journal.entry()
    assert entry[0] == ("MESSAGE", "x\nPRIORITY=0\n\\udcff")
    assert entry[-1] == ("DAEMON", "x\nPRIORITY=0\n\\udcff")
    assert dict(entry)["PRIORITY"] == "4"


def test_long_entry(log: logging.Logger, journal: Journal) -> None:
    """An entry that no datagram holds comes as a file, whole."""
    log.warning("x" * 1_000_000)
    _, ancillary, _, _ = journal.datagrams.recvmsg(1, 100)
    ((_, _, descriptor),) = ancillary
    with os.fdopen(int.from_bytes(descriptor, "little"), "rb") as file:
        file.seek(0)
        assert b"x" * 1_000_000 in file.read()


def test_full_journal(log: logging.Logger, journal: Journal) -> None:
    """Entries that the journal does not read in time go to the stream, and nobody waits."""
    for number in range(1000):
        log.warning("%d: two\nlines", number)
        journal.stderr.flush()
        journal.stream.setblocking(False)
        try:
            said = journal.stream.recv(1000)
        except BlockingIOError:
            continue
        assert said == f"<4>{number}: two\n<4>lines\n".encode()
        return
    pytest.fail("a thousand datagrams wait in the journal's socket")


def test_journal_gone(log: logging.Logger, journal: Journal) -> None:
    """When the journal's socket is gone the stream takes over; a new one is found by its name."""
    journal.datagrams.close()
    log.warning("lost?")
    journal.stderr.flush()
    assert journal.stream.recv(1000) == b"<4>lost?\n"
    os.unlink(journal.path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(journal.path)
        log.warning("again")
        assert b"again" in again.recv(1000)
