# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of `stale`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pycor_hooks import stalerows
from pycor_hooks.commands import stale as command
from pycor_hooks.oldcode import Found, Runner
from pycor_hooks.plan import Base
from pycor_hooks.stale import Uncured
from pycor_hooks.staleness import Reason
from pycor_hooks.stalerows import Seen, Update
from tests.unit.test_status import LXD, recorded

if TYPE_CHECKING:
    import pytest

LIBC, NGINX, OWN = "/usr/lib/libc.so.6", "/usr/sbin/nginx", "/opt/own"
UPDATES = {
    LIBC: [Update(2, 0.0, 20), Update(4, 86400.0, 40)],
    NGINX: [Update(3, 3600.0, 30)],
}
BASE = Base(LXD, "default", "base")


def rows(*runners: Runner, uncured: tuple[Uncured, ...] = (), **changes: Any) -> list[Any]:
    """The rows of one container."""
    found = Found(recorded(**changes), runners, uncured)
    return stalerows.rows(Seen(BASE, [found], UPDATES))


def test_row_of_a_unit() -> None:
    """One for all processes of a unit, with all their old files, since the oldest update."""
    (row,) = rows(
        Runner(10, "nginx.service", "nginx", {LIBC: 40}, {}),
        Runner(11, "nginx.service", "worker", {NGINX: 30, OWN: 5}, {}),
    )
    assert row == {
        "daemon": LXD,
        "project": "default",
        "instance": "web1",
        "base": "base",
        "unit": "nginx.service",
        "pid": 10,
        "command": "nginx",
        "files": [OWN, LIBC, NGINX],
        "since": "1970-01-01T01:00:00Z",
        "generation": 3,
        "reason": None,
        "remedy": "run pycor-hooks restart web1",
    }
    assert tuple(row) == stalerows.KEYS


def test_what_the_container_replaced_itself() -> None:
    """Of a file that no update has taken away, it is not known since when it is old."""
    (row,) = rows(Runner(10, "own.service", "own", {OWN: 5, LIBC: 99}, {}))
    assert (row["since"], row["generation"]) == (None, None)


def test_processes_without_a_unit() -> None:
    """Each has a row, and needs a restart of the container."""
    found = rows(
        Runner(11, None, "sh", {LIBC: 20}, {}),
        Runner(10, None, "sh", {LIBC: 20}, {}),
        Runner(9, "a.service", "a", {LIBC: 20}, {}),
    )
    assert [(row["unit"], row["pid"], row["remedy"]) for row in found] == [
        ("a.service", 9, "run pycor-hooks restart web1"),
        (None, 10, "restart container web1"),
        (None, 11, "restart container web1"),
    ]


def test_code_that_is_not_cured() -> None:
    """A restart would find it again; the cure comes first."""
    (row,) = rows(Runner(10, "a.service", "a", {}, {LIBC: 20}))
    assert row["remedy"] == "run pycor-hooks remount web1, then pycor-hooks restart web1"


def test_row_of_a_path() -> None:
    """It has the same keys, the reason, and the first update that the container has missed."""
    (row,) = rows(uncured=(Uncured(LIBC, Reason.MOUNTED),), converged=2)
    assert row == {
        **dict.fromkeys(stalerows.KEYS),
        "daemon": LXD,
        "project": "default",
        "instance": "web1",
        "base": "base",
        "files": [LIBC],
        "since": "1970-01-02T00:00:00Z",
        "generation": 4,
        "reason": "mounted",
        "remedy": Reason.MOUNTED.remedy("web1"),
    }
    assert tuple(row) == stalerows.KEYS


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each unit with the number of its files, and one for each path that is stale."""
    uncured = (Uncured("/etc/a", Reason.MOUNTED), Uncured("/etc/b", Reason.MOUNTED))
    command.show(
        rows(Runner(10, "a.service", "a", {LIBC: 20, OWN: 5}, {}), uncured=uncured), "table"
    )
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines[:1]] == [["web1", "a.service", "10", "a", "2"]]
    assert [line.split()[4] for line in lines[1:]] == ["/etc/a", "/etc/b"]


def test_order() -> None:
    """By container, and in it units come before paths."""
    found = [
        Found(recorded(name=name), [Runner(1, "a.service", "a", {LIBC: 20}, {})], [paths])
        for name in ("web2", "web1")
        for paths in [Uncured("/", Reason.REPLACED)]
    ]
    told = stalerows.rows(Seen(BASE, found, {}))
    assert [(row["instance"], row["reason"]) for row in told] == [
        ("web1", None),
        ("web1", "replaced"),
        ("web2", None),
        ("web2", "replaced"),
    ]
