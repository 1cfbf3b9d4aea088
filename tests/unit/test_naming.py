# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of profiles that name a base which is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pycor_hooks.naming import LostNames
from pycor_hooks.plan import Base, Look
from tests.unit.test_api import answering

if TYPE_CHECKING:
    from pycor_hooks.sockets import Daemon

PROJECTS = "/1.0/projects?recursion=1"
PROFILES = "/1.0/profiles?recursion=1&project=default"
DEFAULT = '{"metadata": [{"name": "default", "config": {}}]}'
HOOK = "lxc.hook.pre-start = /p/hooks/pre-start --base base"
NAMED = f'{{"metadata": [{{"name": "web", "config": {{"raw.lxc": "{HOOK}"}}}}]}}'


def say(daemon: Daemon, *, exists: tuple[bool, ...]) -> None:
    """Hear that the base was deleted, and look at it, as often as told."""
    base = Base(daemon.directory, "default", "base")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            names = LostNames(group)
            for each in exists:
                names.heard(daemon, Look(base, "deleted", name_is_gone=True))
                names.seen(base, exists=each)
                names.seen(base, exists=each)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("exists", "times"),
    [((False,), 1), ((False, False), 1), ((True,), 0), ((False, True, False), 2)],
)
def test_told_once(exists: tuple[bool, ...], times: int, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is heard it is told once, until the base was there again."""
    with answering({PROJECTS: DEFAULT, PROFILES: NAMED}) as daemon:
        say(daemon, exists=exists)
    line = "base: deleted; correct raw.lxc of the profiles that name it: web"
    assert [entry.getMessage() for entry in caplog.records] == [line] * times


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "not JSON",
        100_000 * "[",
        '{"metadata": 1}',
        '{"metadata": [1]}',
        '{"metadata": [{}]}',
        '{"metadata": [{"name": "default", "config": null}]}',
        '{"metadata": [{"name": "web", "config": [1]}]}',
        '{"metadata": [{"config": {"raw.lxc": "lxc.hook.stop = x --base base"}}]}',
        '{"metadata": [{"name": "web", "config": {"raw.lxc": 1}}]}',
    ],
)
@pytest.mark.parametrize("asked", [PROJECTS, PROFILES])
def test_malformed_answer(answer: str, asked: str, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that is none is said, and the watcher goes on."""
    with answering({PROJECTS: DEFAULT, PROFILES: NAMED} | {asked: answer}) as daemon:
        say(daemon, exists=(False,))
    (said,) = [entry.getMessage() for entry in caplog.records]
    assert said.startswith("base: deleted; ")
