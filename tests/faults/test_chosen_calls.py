# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks killed at, or failed by, some of their system calls on a real daemon.

Which ones is drawn from those that change something; a container for each, all at once. The
short form leaves out what LXD takes 30 s to call a failed start.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from lab import before_hooks, sound, starts, steps
from lab.churn import our_log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.steps import Step
    from lab.tally import Tally

SOAKED = 30
SHORT = 4
UP, DOWN = ("pre-start", "start-host"), ("stop", "post-stop")
FAILED = "Script exited with status 1"  # as liblxc says of a hook
FAULTS = (steps.KILL, *steps.ERRORS)


class Injection(NamedTuple):
    """A fault at one step of a hook."""

    hook: str
    step: Step
    fault: str

    def __str__(self) -> str:
        return f"{self.fault} at {self.step} of {self.hook}"


def recorded(overlays: Overlays, place: Path) -> dict[str, list[Step]]:
    """The steps of each hook that change something, of a start that is not the first.

    Where stop has done all that was to be done, those of post-stop change nothing.
    """
    web = overlays.launch("recorded")
    web.stop(force=True)
    traces = {hook: f"{place}/{hook}" for hook in starts.ORDER}
    before_hooks.put(overlays, web, {hook: steps.record(traces[hook]) for hook in traces})
    web.start()
    web.stop(force=True)
    found = {}
    for hook, path in traces.items():
        its = [step for step in steps.read(path, f"{overlays.prefix}/hooks/{hook}") if step.errors]
        found[hook] = [step for step in its if step.changes] or its
    web.delete()
    return found


def chosen(
    found: dict[str, list[Step]], hooks: Sequence[str], random: Random, count: int
) -> list[Injection]:
    """Faults in turn, at steps that are drawn, of one hook after the other."""
    turns = zip(itertools.cycle(hooks), range(count), strict=False)
    return [
        Injection(hook, random.choice(found[hook]), FAULTS[turn // len(hooks) % len(FAULTS)])
        for hook, turn in turns
    ]


class Subject:
    """A container that one fault is injected into."""

    def __init__(self, overlays: Overlays, name: str, injection: Injection, place: Path) -> None:
        self._overlays = overlays
        self._injection = injection
        self._trace = f"{place}/{name}"
        self.web: Instance = overlays.init(name)

    def work(self) -> list[str]:
        """Inject it; what is wrong then."""
        web, hook = self.web, self._injection.hook
        web.start()
        web.exec("sh", "-c", "echo own >/root/own; sync")
        web.stop(force=True)
        command = self._injection.step.inject(self._injection.fault, self._trace)
        before_hooks.put(self._overlays, web, {hook: command})
        started = web.client("start", web.name, check=False).returncode == 0
        wrong = [] if started or hook in UP else ["it did not start, although nothing was wrong"]
        if started:
            web.client("stop", "--force", web.name, check=False)
        web.wait("Stopped")
        wrong += self._silent(started=started)
        before_hooks.remove(web)
        web.start()
        if web.run("cat", "/root/own").stdout != "own\n":
            wrong.append("what it had written is lost")
        return [f"{self._injection}: {text}" for text in wrong]

    def _silent(self, *, started: bool) -> list[str]:
        """What is wrong where a hook that failed has not named the error."""
        hook, step, fault = self._injection
        lines = [line for line in our_log(self.web) if f" ERROR    pycor-hooks - {hook}: " in line]
        if fault == steps.KILL or any(steps.names(line, step, fault) for line in lines):
            return []
        if started and not lines and FAILED not in self.web.log():
            return []  # it could do without that call
        return ["\n".join(["no line names it:", *lines])]

    def was_injected(self) -> bool:
        """Whether its hook came to that call."""
        return os.path.exists(self._trace) and steps.was_injected(self._trace)


def test_faults_at_chosen_calls(
    overlays: Overlays,
    tally: Tally,
    tmp_path: Path,
    seed: int,
    soak: bool,  # noqa: FBT001 - a fixture
) -> None:
    """A start works, or names the error; the next one is clean; nothing is lost or left."""
    subprocess.run(["strace", "-V"], check=True, capture_output=True)
    hooks = DOWN if overlays.daemon.kind == "lxd" and not soak else (*UP, *DOWN)
    random, count = Random(f"{seed}:calls"), SOAKED if soak else SHORT
    injections = chosen(recorded(overlays, tmp_path), hooks, random, count)
    subjects = [
        Subject(overlays, f"web{number}", injection, tmp_path)
        for number, injection in enumerate(injections)
    ]
    with ThreadPoolExecutor(count) as pool:
        what = f"chosen system calls of hooks failed on {overlays.daemon.kind}"
        with tally.injected(what, count):
            wrong = list(itertools.chain.from_iterable(pool.map(Subject.work, subjects)))
        tally.lost(what, [*wrong, *sound.settled(overlays)])
        list(pool.map(lambda subject: subject.web.stop(force=True), subjects))
        tally.lost(what, sound.settled(overlays))
    assert sum(map(Subject.was_injected, subjects)) >= count * 0.9
