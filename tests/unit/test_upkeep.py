# SPDX-License-Identifier: GPL-3.0-or-later
"""When containers that could not be converged are seen to again; the converge is made up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pycor_hooks import upkeep
from pycor_hooks.errors import StillHeld
from pycor_hooks.ledger import Update
from pycor_hooks.news import OverlayNews
from pycor_hooks.plan import Base, base_of
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

    from pycor_hooks.record import Record


def test_one_alarm_at_a_time(mocker: MockerFixture) -> None:
    """However often a base is looked at, one look later is under way; none once all is well."""
    held = StillHeld(path="/p", holder="a hook", remedy="wait")
    mocker.patch.object(upkeep, "_update", return_value=Update(1, None))
    converge = mocker.patch.object(upkeep, "_converge_there", side_effect=held)
    container = recorded(converged=1)

    async def overlays(_base: Base) -> list[Record]:
        return [container]

    async def scenario() -> list[int]:
        loop = asyncio.get_running_loop()
        later = mocker.spy(loop, "call_later")
        waiting = []
        async with asyncio.TaskGroup() as group:
            work = upkeep.Upkeep(group, overlays, OverlayNews())
            for _ in range(5):
                work.want(base_of(container))
                await work.done()
                waiting.append(sum(not alarm.cancelled() for alarm in later.spy_return_list))
            converge.side_effect = None
            converge.return_value = None
            work.want(base_of(container))
            await work.done()
            waiting.append(sum(not alarm.cancelled() for alarm in later.spy_return_list))
        return waiting

    assert asyncio.run(scenario()) == [1, 1, 1, 1, 1, 0]
