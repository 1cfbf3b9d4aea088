# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults: injected one by one in a short form (make test), at length in a long one (make soak).

A case asks for ``tally`` and counts each fault that it injects; the table of all of them closes
the run, which fails where something was lost, leaked, or did not survive.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from lab import apart, hooktimes, starts
from lab.inhabited import Inhabited, InhabitedApart, make_inhabitable_base
from lab.mounts import own_mounts
from lab.tally import Tally
from pycor_hooks import kernel, mountinfo
from tests.daemons import (  # noqa: F401 - fixtures are found by their names here
    daemon,
    debian_installed,
    debian_overlays,
    installed,
    on_each_daemon,
    overlays,
    reinstalled,
    watcher,
    world,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

TALLY = pytest.StashKey[Tally]()
HOOK_TIMES = pytest.StashKey[dict[str, list[float]]]()


# Examples for each property; 15 properties, and no failing example is kept in the clone.
settings.register_profile("faults", max_examples=150, deadline=None, database=None)
settings.register_profile("soak", settings.get_profile("faults"), max_examples=8_000)


def pytest_configure(config: pytest.Config) -> None:
    """One table for the whole run; as many made-up inputs as there is time for."""
    config.stash[TALLY] = Tally()
    settings.load_profile("soak" if config.getoption("--soak") else "faults")
    config.stash[HOOK_TIMES] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case once for each daemon."""
    on_each_daemon(metafunc)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the table show what the fixtures found left behind."""
    report = yield
    if report.when == "teardown" and report.failed:
        item.config.stash[TALLY].leaked_afterwards()
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table, how long the hooks took, and how to repeat what was done at random."""
    lines = config.stash[TALLY].lines()
    times = config.stash[HOOK_TIMES]
    if times:
        lines += ["", *hooktimes.table(sorted(times.items()))]
    if lines:
        terminalreporter.section("faults")
        for line in (*lines, "", f"to repeat it: --seed={config.getoption('--seed')}"):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Where a case counts the faults that it injects."""
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config) -> bool:
    """Whether this is the long form."""
    return bool(pytestconfig.getoption("--soak"))


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """What everything random comes from, printed with the table."""
    return int(pytestconfig.getoption("--seed"))


@pytest.fixture(scope="session")
def hook_times(pytestconfig: pytest.Config) -> dict[str, list[float]]:
    """Where a case puts how long hooks took, in seconds, by what to call them."""
    return pytestconfig.stash[HOOK_TIMES]


@pytest.fixture(scope="module")
def own_run() -> Iterator[None]:
    """Mounts of the module's own, for cases without a daemon, and a /run that can be lost."""
    with own_mounts():
        yield


@pytest.fixture(params=["equal ids", "mapped ids", "apart"])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inhabited]:
    """A container that runs, without a daemon; all of it is gone in the end.

    ``apart``: with ids mapped, and its monitor in a mount namespace that its daemon alone has.
    """
    tmp_path.chmod(0o755)
    make_inhabitable_base(str(tmp_path))
    with ExitStack() as stack:
        if request.param == "apart":
            keeper = stack.enter_context(apart.namespace(str(tmp_path)))
            web: Inhabited = InhabitedApart(str(tmp_path), "web1", keeper)
        else:
            web = Inhabited(str(tmp_path), "web1")
        if request.param != "equal ids":
            web.idmap = starts.IDMAP
        web.start()
        yield web
        web.end()
        left = starts.left(web)
    for mount in reversed([m for m in mountinfo.read() if m.source == "pycor-hooks"]):
        kernel.umount(mount.target, kernel.MNT_DETACH)
    assert left == []
