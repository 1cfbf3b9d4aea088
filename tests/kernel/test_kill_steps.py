# SPDX-License-Identifier: GPL-3.0-or-later
"""A hook killed between each two of its steps: whatever comes next finds nothing in its way."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab import steps, tree
from lab.liblxc import Container, Monitor
from pycor_hooks import kernel, mountinfo, registry, takedown
from tests.kernel.test_hooks import read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.steps import Step

pytestmark = pytest.mark.host_root

HOST_ROOT = 100000
IDMAP = tuple(f"{kind} 0 {HOST_ROOT} 65536" for kind in "ug")
OWN = "written by the container\n"


@pytest.fixture(scope="module", autouse=True)
def traced() -> None:
    """Skip where strace cannot be had, or may not trace."""
    try:
        subprocess.run(["strace", "-D", "-qq", "-o", "/dev/null", "true"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no strace: {error}")


@pytest.fixture
def make(daemon: Path, base: str) -> Iterator[Callable[[], Container]]:
    """Makes one container after another on the base, which stays as it is."""
    before = tree.describe(base)
    made: list[Container] = []

    def one_more() -> Container:
        container = Container(str(daemon), f"web{len(made)}")
        container.idmap = IDMAP
        made.append(container)
        return container

    yield one_more
    for container in made:
        container.end()
    assert tree.changes(before, tree.describe(base)) == []


# -- what a container is like when its hook is killed


def new(web: Container) -> None:
    """It was never started, and templates lie in its bare rootfs."""
    os.makedirs(f"{web.rootfs}/etc/new.d")
    os.chmod(f"{web.rootfs}/etc/new.d", 0o2750)
    write(f"{web.rootfs}/etc/hostname", "web\n")
    os.symlink("hostname", f"{web.rootfs}/etc/new.d/link")


def left_behind(web: Container) -> None:
    """An earlier start of it was killed before start-host, after it had run for a while."""
    started(web)
    web.stop()
    assert web.pre_start() == 0
    web.kill_monitor()


def bound(web: Container) -> None:
    """Its pre-start has run."""
    new(web)
    assert web.pre_start() == 0
    web.init = subprocess.Popen(["/bin/sleep", "infinity"])


def started(web: Container) -> None:
    """It runs, and has written something."""
    new(web)
    web.start()
    kernel.set_fs_ids(HOST_ROOT, HOST_ROOT)
    try:
        write(f"{web.merged}/etc/own", OWN)
    finally:
        kernel.set_fs_ids(0, 0)


def ended(web: Container) -> None:
    """It has run, and its init is dead."""
    started(web)
    web.kill_init()


CASES: list[tuple[str, Callable[[Container], None]]] = [
    ("pre-start", new),
    ("pre-start", left_behind),
    ("start-host", bound),
    ("stop", ended),
    ("post-stop", ended),
]


# -- what comes after the kill


def next_start(web: Container) -> None:
    """Nothing, as when the monitor was killed too; then an operator starts it."""
    end(web)


def post_stop(web: Container) -> None:
    """What liblxc does after a hook that failed."""
    web.kill_init()
    assert web.hook("post-stop") == 0


def watcher(web: Container) -> None:
    """The monitor was killed too, and the watcher looks."""
    end(web)
    for record in registry.records():
        takedown.orphan(record)


def end(web: Container) -> None:
    """Kill monitor and init."""
    web.kill_init()
    web.kill_monitor()


def words(hook: str) -> list[str]:
    """What raw.lxc gives after a hook's path."""
    return ["--base", "base"] if hook == "pre-start" else []


def run(web: Container, hook: str, before: list[str]) -> int:
    """Run a hook with a command before it."""
    command, env = web.command(hook, *words(hook))
    web.monitor = web.monitor or Monitor()
    return web.monitor.run(" ".join([*before, *command]), env)


def recorded(web: Container, hook: str, path: Path) -> list[Step]:
    """The steps of a hook that nobody kills."""
    assert run(web, hook, steps.record(str(path))) == 0, web.log()
    return steps.read(str(path))


def assert_nothing_left(web: Container, step: Step, allowed: set[str] | None = None) -> None:
    """Nothing is mounted or recorded."""
    ours = (f"{web.directory}/", web.rootfs)
    assert [m.target for m in mountinfo.read() if m.target.startswith(ours)] == [], step
    if allowed is None:
        assert not os.path.exists(web.directory), step
    elif os.path.exists(web.directory):
        assert set(os.listdir(web.directory)) <= allowed, step


def assert_nothing_lost(web: Container, step: Step, *, own: bool) -> None:
    """What was in the bare rootfs, and what the container wrote, is in its upper."""
    etc = f"{web.upper}/etc"
    names = {"hostname", "new.d"} | ({"own"} if own else set())
    assert set(os.listdir(etc)) == names, step
    assert read(f"{etc}/hostname") == "web\n", step
    assert os.readlink(f"{etc}/new.d/link") == "hostname", step
    assert os.listdir(f"{etc}/new.d") == ["link"], step
    assert stat.S_IMODE(os.stat(f"{etc}/new.d").st_mode) == 0o2750, step
    owners = {os.lstat(f"{etc}/{name}").st_uid for name in ("", *names, "new.d/link")}
    assert owners == {0}, step  # stored by the base's ids
    if own:
        assert read(f"{etc}/own") == OWN, step
    assert os.listdir(web.rootfs) == [], step
    assert set(os.listdir(web.volume)) == {"overlay", "rootfs"}, step
    assert set(os.listdir(f"{web.volume}/overlay")) == {"upper", "work"}, step


@pytest.mark.parametrize(
    ("hook", "state"), CASES, ids=[f"{hook}-{state.__name__}" for hook, state in CASES]
)
def test_killed_between_each_two_steps(
    hook: str,
    state: Callable[[Container], None],
    make: Callable[[], Container],
    tmp_path: Path,
) -> None:
    """After a kill at any step the next start, post-stop and the watcher all leave it clean."""
    web = make()
    started(web)  # now everything is byte-compiled, which would be steps of the first run
    web.stop()
    web = make()
    state(web)
    found = recorded(web, hook, tmp_path / "steps")
    post_stop(web)
    assert len(found) >= 4
    nexts = [next_start, watcher]
    if state is not left_behind:  # that is another start's, which post-stop leaves alone
        nexts.append(post_stop)
    for step, after in itertools.product(found, nexts):
        web = make()
        state(web)
        assert run(web, hook, step.kill()) == steps.KILLED, step
        after(web)
        if after is post_stop:
            assert_nothing_left(web, step)
        elif after is watcher:  # knows of nothing that was not recorded yet; a start does
            assert_nothing_left(web, step, {"empty", ".state"})
        web.start()
        assert [mount.target for mount in web.overlays()] == [web.merged], step
        web.stop()
        assert_nothing_left(web, step)
        assert_nothing_lost(web, step, own=state in {left_behind, ended})
        web.end()
