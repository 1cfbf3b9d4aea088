# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd hears, on a real datagram socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import notify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_mock import MockerFixture


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd listens, bound to a path or to an abstract name."""
    path = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path if request.param == "path" else f"\0{path}")
        listening.settimeout(5)
        yield listening


def test_notify(systemd: socket.socket) -> None:
    """A state reaches systemd as one datagram."""
    address = systemd.getsockname()
    shown = address if isinstance(address, str) else "@" + address[1:].decode()
    notify.notify("READY=1\nSTATUS=x", {"NOTIFY_SOCKET": shown})
    assert systemd.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_no_systemd(environ: dict[str, str], mocker: MockerFixture) -> None:
    """Where systemd is not listening on a unix socket, nothing is sent and nothing fails."""
    opened = mocker.spy(socket, "socket")
    notify.notify("READY=1", environ)
    assert not opened.called


def test_systemd_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A socket that nobody listens on any more is logged, and the service goes on."""
    notify.notify("READY=1", {"NOTIFY_SOCKET": f"{tmp_path}/gone"})
    assert "NOTIFY_SOCKET" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    """The watchdog is served twice as often as it asks, if it asks this very process."""
    assert notify.watchdog_interval(environ) == seconds
