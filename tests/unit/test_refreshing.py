# SPDX-License-Identifier: GPL-3.0-or-later
"""How refreshes that take long share the cores; that they do take long is made up."""

from __future__ import annotations

from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import refreshing
from pycor_hooks.instance import Instance
from pycor_hooks.plan import Base
from pycor_hooks.refreshing import Failure
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_mock import MockerFixture

    from pycor_hooks.record import Record

BASE = Base("/d", "default", "base")


@pytest.fixture(autouse=True)
def _two_cores(mocker: MockerFixture) -> None:
    mocker.patch.object(refreshing, "CORES", 2)
    mocker.patch.object(refreshing, "LOOK_EVERY", 0.0)
    mocker.patch.object(Instance, "running", return_value=False)


def test_those_that_take_long_are_refreshed_side_by_side(mocker: MockerFixture) -> None:
    """After the first, two are under way at a time; each is done once, and each fault told."""
    records = [recorded(name=f"web{number}") for number in range(5)]
    meeting = Barrier(2)
    done: list[Record] = []

    def refresh(some: Iterable[Record]) -> list[Failure]:
        (one,) = some
        if one is not records[0]:
            meeting.wait(timeout=10)
        done.append(one)
        return [Failure(one, OSError())] if one is records[3] else []

    mocker.patch.object(refreshing, "refresh_records", refresh)
    failures = refreshing.refresh_while_stopped(BASE, records)
    assert failures is not None
    assert [failure.record for failure in failures] == [records[3]]
    assert sorted(one.name for one in done) == [one.name for one in records]


def test_a_base_that_starts_ends_it_on_all_cores(mocker: MockerFixture) -> None:
    """Once it is seen to run, nothing more is begun."""
    done: list[Record] = []

    def refresh(some: Iterable[Record]) -> list[Failure]:
        done.extend(some)
        return []

    mocker.patch.object(refreshing, "refresh_records", refresh)
    mocker.patch.object(Instance, "running", side_effect=lambda: len(done) >= 3)
    records = [recorded(name=f"web{number}") for number in range(100)]
    assert refreshing.refresh_while_stopped(BASE, records) is None
    assert len(done) in {3, 4}  # the other core may have looked just before
