# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of operations at random."""

from __future__ import annotations

from random import Random

from lab.churn import Operation, Plan


def _operations(seed: str) -> list[Operation]:
    plan = Plan(Random(seed), ["web1", "web2", "web3"])
    return [plan.next() for _ in range(300)]


def test_repeatable() -> None:
    """A seed always gives the same operations, and another one gives others."""
    assert _operations("1") == _operations("1") != _operations("2")


def test_everything_happens() -> None:
    """Each kind of operation comes up, and a name that was fought for is not used again."""
    operations = _operations("1")
    verbs = {operation.verb for operation in operations}
    assert verbs == {
        *("launch", "copy", "start", "write", "stop", "stop --force", "poweroff", "restart"),
        *("restart --force", "reboot", "delete", "delete --force", "clash"),
    }
    for position, operation in enumerate(operations):
        if operation.verb == "clash":
            later = operations[position + 1 :]
            assert operation.name not in {name for one in later for name in (one.name, *one.more)}
