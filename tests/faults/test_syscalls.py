# SPDX-License-Identifier: GPL-3.0-or-later
"""A hook killed at, or failed by, each of its system calls: the start works, or says why not.

The short form kills at each call that changes something, and fails each kind of call, at the
first and the last of it; the long form takes every call from a hook's own first line on, with
every fault.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lab import apart, processes, starts, steps, tree
from lab.apart import Apart
from lab.liblxc import Container, compiled_hooks, make_base
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lab.starts import Case
    from lab.steps import Step
    from lab.tally import Tally

pytestmark = [pytest.mark.host_root, pytest.mark.usefixtures("own_run")]

NEXTS = (starts.post_stop, starts.next_start, starts.watcher)
SIDE_BY_SIDE = os.cpu_count() or 1


@pytest.fixture(scope="module", autouse=True)
def traced() -> None:
    """Skip where strace cannot be had, or may not trace."""
    try:
        subprocess.run(["strace", "-D", "-qq", "-o", "/dev/null", "true"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no strace: {error}")


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of hooks that are installed, and compiled."""
    return compiled_hooks(str(tmp_path_factory.mktemp("prefix")))


@pytest.fixture
def keeper() -> Iterator[int]:
    """The process that keeps a mount namespace for a daemon."""
    with apart.namespace() as process:
        yield process


class Injection(NamedTuple):
    """A fault at one step of a hook, and what comes next where the hook does not succeed."""

    step: Step
    fault: str
    after: starts.After

    def __str__(self) -> str:
        return f"{self.fault} at {self.step}, then {self.after.__name__}"


def chosen(found: Sequence[Step], *, every: bool, apart: bool) -> list[Injection]:
    """Which faults are injected at which steps of one hook.

    Where it is apart, of errors only those of calls that it has no use for elsewhere.
    """
    if every:
        pairs = [(step, fault) for step in found for fault in (steps.KILL, *step.errors)]
    else:
        pairs = [(step, steps.KILL) for step in found if step.changes]
        failing = [step for step in found if not apart or step.call in steps.STEPS_OVER]
        for some in (failing, failing[::-1]):
            firsts = {step.call: step for step in reversed(some) if step.errors}
            turns = zip(firsts.values(), itertools.cycle(range(len(steps.ERRORS))), strict=False)
            pairs += [(step, step.errors[turn % len(step.errors)]) for step, turn in turns]
    return [Injection(*pair, after) for pair, after in zip(pairs, itertools.cycle(NEXTS))]


class Subject:
    """A daemon of its own, and containers that faults are injected into, one after the other."""

    def __init__(self, case: Case, daemon: Path, hooks: str, tally: Tally, keeper: int) -> None:
        daemon.mkdir()
        daemon.chmod(0o755)
        self.case = case
        self._daemon = daemon
        self._base = make_base(daemon)
        self._before = tree.describe(self._base)
        self._hooks = hooks
        self._keeper = keeper
        self._tally = tally
        self._numbers = itertools.count()
        self._web: Container | None = None
        self.missed = 0

    def container(self) -> Container:
        """One to which the case's state can be given: a new one, where it has to be new."""
        if self._web is None or self.case.state is starts.new:
            self.end()
            self._web = self._new()
            self._web.idmap = starts.IDMAP
            self._web.hooks = self._hooks
        return self._web

    def _new(self) -> Container:
        name = f"web{next(self._numbers)}"
        if self.case.apart:
            return Apart(str(self._daemon), name, self._keeper)
        return Container(str(self._daemon), name)

    def end(self) -> None:
        """End its processes; the next one is new."""
        if self._web:
            self._web.end()
        self._web = None

    def changes(self) -> list[str]:
        """What is not as it was in the base."""
        return tree.changes(self._before, tree.describe(self._base))

    def record(self) -> list[Step]:
        """The steps of the hook when all is well, and not the first start after a boot."""
        web = self.container()
        starts.new(web)
        web.start()
        web.stop()
        web = self.container()
        self.case.state(web)
        path = f"{web.daemon}/{web.name}.strace"
        assert starts.run(web, self.case.hook, steps.record(path)) == 0, web.log()
        starts.go_on(web, self.case.hook)
        return steps.read(path, f"{web.hooks}/{self.case.hook}")

    def work(self, injections: Sequence[Injection]) -> list[str]:
        """Inject faults, one after the other; what was wrong, with which."""
        wrong = []
        for injection in injections:
            try:
                self.inject(injection)
            except (AssertionError, OSError) as error:
                wrong.append(f"{injection}: {error}")
                self.end()
        self.end()
        return wrong

    def inject(self, injection: Injection) -> None:
        """Inject one fault, and see what comes of it."""
        web, hook = self.container(), self.case.hook
        self.case.state(web)
        web.forget_log()
        trace = f"{web.daemon}/{web.name}.strace"
        status = starts.run(web, hook, injection.step.inject(injection.fault, trace))
        name = f"{injection.fault} at a system call of {hook}"
        with self._tally.injected(name):
            after = self._judge(web, injection, status)
            after(web, hook)
            nobody_looked = after is starts.next_start or (
                after is starts.post_stop and hook == "post-stop"
            )
            if not nobody_looked:
                self._tally.lost(name, starts.left(web))
            undone = (
                self.case.state is starts.cured
            )  # a stop leaves that to the next, if it has to
            if hook == "pre-start" or nobody_looked or undone:  # else the next fault's case does
                self._start_anew(web)
            self._tally.lost(name, starts.left(web) + starts.lost(web, own=self.case.wrote))
        self.missed += not steps.was_injected(trace)

    def _judge(self, web: Container, injection: Injection, status: int) -> starts.After:
        """Whether the hook ended as it may; what comes next."""
        if status == 0:
            return starts.go_on
        if injection.fault == steps.KILL:
            assert status == steps.KILLED, injection
            return injection.after
        assert status == 1, injection
        (line,) = web.log().splitlines()
        assert f" ERROR    pycor-hooks - {self.case.hook}: " in line, injection
        assert steps.names(line, injection.step, injection.fault), f"{injection}: {line}"
        return starts.post_stop if injection.after is starts.next_start else injection.after

    def _start_anew(self, web: Container) -> None:
        """The next start, as far as an overlay is mounted, and back."""
        assert web.pre_start() == 0, web.log()
        mounts = [mount.target for mount in web.overlays()] + web.mounts_elsewhere()
        assert sorted(mounts) == sorted([web.merged, web.rootfs])
        assert web.hook("post-stop") == 0, web.log()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """More cases in the long form, each as in the short one."""
    if "case" in metafunc.fixturenames:
        more = starts.MORE if metafunc.config.getoption("--soak") else []
        metafunc.parametrize("case", [*starts.CASES, *more], ids=str)


def test_a_fault_at_each_system_call(  # noqa: PLR0913, PLR0917 - a fixture each
    case: Case,
    hooks: str,
    tmp_path: Path,
    tally: Tally,
    keeper: int,
    soak: bool,  # noqa: FBT001 - a fixture
) -> None:
    """The hook succeeds, or names the error; the next start is clean; nothing is lost or left."""
    tmp_path.chmod(0o755)
    places = [tmp_path / str(number) for number in range(SIDE_BY_SIDE)]
    subjects = [Subject(case, place, hooks, tally, keeper) for place in places]
    found = subjects[0].record()
    injections = chosen(found, every=soak and case in starts.CASES, apart=case.apart)

    parts = [injections[turn::SIDE_BY_SIDE] for turn in range(SIDE_BY_SIDE)]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found_wrong = list(pool.map(Subject.work, subjects, parts))
    assert "\n".join(itertools.chain.from_iterable(found_wrong)) == ""
    until(lambda: not processes.in_our_mounts(), what="every process of the hooks has ended")
    assert [line for subject in subjects for line in subject.changes()] == []
    assert sum(subject.missed for subject in subjects) <= len(injections) // 20
