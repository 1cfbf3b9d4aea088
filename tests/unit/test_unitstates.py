# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd says of units before and after a restart."""

from __future__ import annotations

import pytest

from pycor_hooks import unitstates
from pycor_hooks.unitstates import State

SHOWN = """\
Id=init.scope
ActiveState=active
SubState=running

NRestarts=2
Result=success
Id=nginx.service
ActiveState=active
SubState=running
RefuseManualStop=no

Result=exit-code
Id=auditd.service
ActiveState=failed
SubState=failed
RefuseManualStop=yes
"""
RUNS = State("active", "running", "success", "0", refuses_stop=False)


def test_parse() -> None:
    """Properties come in any order, and are missing where a unit has none."""
    assert unitstates.parse(SHOWN) == {
        "init.scope": State("active", "running", "", "", refuses_stop=False),
        "nginx.service": State("active", "running", "success", "2", refuses_stop=False),
        "auditd.service": State("failed", "failed", "exit-code", "", refuses_stop=True),
    }


@pytest.mark.parametrize("text", ["", "\n", "nothing\n", "Id=nginx.service\nActiveState=active\n"])
def test_half_an_answer(text: str) -> None:
    """Without systemd's own unit it is not the answer."""
    with pytest.raises(ValueError):  # noqa: PT011
        unitstates.parse(text)


@pytest.mark.parametrize(
    ("unit", "before", "after", "said"),
    [
        ("a.service", RUNS, RUNS, []),
        ("b.service", RUNS, RUNS._replace(active="failed", sub="failed", result="exit-code"),
         ["b.service is failed, failed, exit-code"]),
        ("b.service", RUNS._replace(active="failed"), RUNS._replace(active="failed"), []),
        ("b.service", RUNS, RUNS._replace(active="inactive", sub="dead"), []),
        ("a.service", RUNS, RUNS._replace(active="inactive", sub="dead"),
         ["a.service is inactive, dead"]),
        ("a.service", RUNS._replace(active="activating"), RUNS._replace(active="activating"), []),
        ("a.service", RUNS, RUNS._replace(active="activating", sub="auto-restart"),
         ["a.service is activating, auto-restart"]),
        ("a.service", RUNS, RUNS._replace(restarts="1"),
         ["a.service is active, running, after it had ended"]),
        ("a.service", RUNS._replace(restarts="3"), RUNS._replace(restarts="3"), []),
    ],
)  # fmt: skip
def test_troubles(unit: str, before: State, after: State, said: list[str]) -> None:
    """Any unit that failed since, and a restarted one that does not run as it did."""
    others = {"a.service": RUNS, "b.service": RUNS, "init.scope": RUNS}
    found = unitstates.troubles(others | {unit: before}, others | {unit: after}, ["a.service"])
    assert list(found) == said


def test_a_restarted_unit_that_is_gone() -> None:
    """What is not loaded any more does not run."""
    assert list(unitstates.troubles({"a.service": RUNS}, {}, ["a.service"])) == [
        "a.service is gone"
    ]
