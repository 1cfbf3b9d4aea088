# SPDX-License-Identifier: GPL-3.0-or-later
"""Which units may be restarted blindly, and what is planned for a container."""

from __future__ import annotations

import pytest

from pycor_hooks import restarting
from pycor_hooks.oldcode import Found, Runner
from pycor_hooks.restarting import Plan, Way
from tests.unit.test_status import recorded

OLD = {"/usr/lib/libc.so.6": 7}


def runner(unit: str | None, pid: int = 100, *, held: bool = False) -> Runner:
    """A process of a unit whose libc is gone, or still found."""
    return Runner(pid, unit, "tool", {} if held else OLD, OLD if held else {})


@pytest.mark.parametrize(
    ("unit", "way"),
    [
        ("nginx.service", Way.RESTART),
        ("ssh.service", Way.RESTART),
        ("systemd-journald.service", Way.RESTART),
        ("cron.service", Way.RESTART),
        ("my-dbus.service", Way.RESTART),
        ("init.scope", Way.REEXEC),
        ("dbus.service", Way.CONTAINER),
        ("dbus-broker.service", Way.CONTAINER),
        ("systemd-logind.service", Way.CONTAINER),
        ("getty@tty1.service", Way.CONTAINER),
        ("serial-getty@ttyS0.service", Way.CONTAINER),
        ("console-getty.service", Way.CONTAINER),
        ("container-getty@1.service", Way.CONTAINER),
        ("user@1000.service", Way.CONTAINER),
        ("networking.service", Way.CONTAINER),
        ("docker.service", Way.CONTAINER),
        ("apt-daily.service", Way.CONTAINER),
        ("cron-root-1.service", Way.CONTAINER),
        ("session-3.scope", Way.CONTAINER),
        ("data.mount", Way.CONTAINER),
        (None, Way.CONTAINER),
    ],
)
def test_way(unit: str | None, way: Way) -> None:
    """Services are restarted, but for those that take sessions or the network along."""
    assert restarting.way(runner(unit)) is way


def test_what_would_find_the_old_code_again() -> None:
    """A restart is for nothing where a lookup still gives the old file."""
    assert restarting.way(runner("nginx.service", held=True)) is Way.NONE
    assert restarting.way(runner("init.scope", held=True)) is Way.NONE


def test_plan() -> None:
    """Each unit is in one list; one with any process that a restart helps is restarted."""
    runners = [
        runner("init.scope", 1),
        runner("nginx.service", held=True),
        runner("nginx.service"),
        runner("dbus.service"),
        runner("ssh.service"),
        runner("cron.service", held=True),
        runner(None, 77),
    ]
    assert restarting.plan(Found(recorded(), runners, [])) == Plan(
        units=["nginx.service", "ssh.service"],
        reexec=True,
        container=["dbus.service", "tool (77)"],
        held=["cron.service"],
    )
