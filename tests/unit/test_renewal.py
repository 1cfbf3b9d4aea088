# SPDX-License-Identifier: GPL-3.0-or-later
"""The restart of units, as far as it needs no container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pycor_hooks import renewal
from pycor_hooks.host_errors import Unreachable
from pycor_hooks.restarting import Plan
from tests.unit.fake_daemon import listen
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    from pathlib import Path


def test_no_daemon_is_started(tmp_path: Path) -> None:
    """A socket that systemd holds for a daemon which is stopped is not connected to."""
    with listen(f"{tmp_path}/unix.socket") as socket:
        restart = renewal._Renewal(recorded(daemon=str(tmp_path)))
        with pytest.raises(Unreachable, match="it is not running"):
            restart.run(Plan(["app.service"], reexec=False, container=[], held=[]), [])
        socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            socket.accept()
