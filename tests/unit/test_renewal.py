# SPDX-License-Identifier: GPL-3.0-or-later
"""The restart of units, as far as it needs no container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pycor_hooks import renewal
from pycor_hooks.host_errors import BaseRuns, Unreachable
from pycor_hooks.instance import Instance
from pycor_hooks.restarting import Plan
from tests.unit.fake_daemon import listen
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    from pathlib import Path


PLAN = Plan(["app.service"], reexec=False, container=[], held=[])


def test_nothing_is_restarted_while_the_base_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit would start from a base that is being changed."""
    monkeypatch.setattr(Instance, "running", lambda _: True)
    with pytest.raises(BaseRuns, match="base base runs: stop it first"):
        renewal._Renewal(recorded()).run(PLAN, [])


def test_no_daemon_is_started(tmp_path: Path) -> None:
    """A socket that systemd holds for a daemon which is stopped is not connected to."""
    with listen(f"{tmp_path}/unix.socket") as socket:
        restart = renewal._Renewal(recorded(daemon=str(tmp_path)))
        with pytest.raises(Unreachable, match="it is not running"):
            restart.run(PLAN, [])
        socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            socket.accept()
