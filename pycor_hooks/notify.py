# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd is told: readiness, status, watchdog.

The protocol is a datagram on a unix socket, sd_notify(3); without systemd nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell systemd about this service.

    Args:
        state: lines of KEY=VALUE, such as "READY=1".
        environ: NOTIFY_SOCKET is where systemd listens, if it does.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagram:
        datagram.setblocking(False)
        try:
            datagram.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError as error:
            logging.getLogger(__name__).warning("NOTIFY_SOCKET %s: %s", address, error)


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to say WATCHDOG=1, in seconds: half of what the unit allows.

    None when systemd does not wait for it, sd_watchdog_enabled(3).
    """
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) else None
