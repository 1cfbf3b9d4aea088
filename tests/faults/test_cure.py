# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher killed between each two steps of a cure, and containers that fight one."""

from __future__ import annotations

import itertools
import os
import signal
from typing import TYPE_CHECKING

import pytest

from lab import killed, live
from lab.wait import until
from pycor_hooks import layer, overlay
from pycor_hooks.freezer import Freezer
from tests.daemon.converging import generation, hold, holding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally

WATCHER = "watcher killed at a step of a cure"
BOTH = "watcher killed at a step of a cure, and then the container"
FIGHT = "container that mounts, links, forks and swaps under a cure"
APP = "usr/share/app"
REPLACED, DELETED = f"{APP}/version", f"{APP}/gone"
WATCH = ("pycor_hooks", "watch", "--once")


class Rounds:
    """Updates of a base, one after the other, each of files that one container has in use."""

    def __init__(self, overlays: Overlays) -> None:
        self._overlays = overlays
        self._base = overlays.base.rootfs
        self._count = 0
        self._write(REPLACED, "0\n")
        self.web1 = overlays.launch("web1")
        self.watch()

    def begin(self) -> None:
        """Have two files in use, then one replaced and one deleted; the base is stopped.

        Nobody tells, as with files pushed by SFTP: a watcher has to look.
        """
        self._write(DELETED, "here\n")
        overlay.refresh(self.web1.merged)
        generation(self._overlays)
        for path in (REPLACED, DELETED):
            hold(self.web1, f"/{path}")
        self._count += 1
        self._write(REPLACED, f"{self._count}\n")
        os.unlink(f"{self._base}/{DELETED}")

    def kill_watcher(self, number: int) -> int:
        """Run a watcher that kills itself before one of its steps; its exit status."""
        return killed.run(number, *WATCH, env=self._overlays.daemon.env)

    def steps(self) -> list[str]:
        """The steps of a watcher that nobody kills."""
        return killed.steps(*WATCH, env=self._overlays.daemon.env)

    def watch(self) -> None:
        """Start a watcher, and let it do what there is to do."""
        self._overlays.pycor_hooks("watch", "--once")

    def check(self, when: str = "") -> None:
        """The container sees the base, nothing of it is frozen, and there is no journal."""
        own = os.path.dirname(self.web1.upper)
        assert not os.path.exists(f"{own}/{layer.CURE}"), when
        assert not Freezer(self.web1.pid).asked(), when
        with open(f"{self.web1.merged}/{REPLACED}") as file:
            assert file.read() == f"{self._count}\n", when
        assert not os.path.exists(f"{self.web1.merged}/{DELETED}"), when
        assert set(os.listdir(f"{self.web1.merged}/{APP}")) == {"data", "version"}, when
        assert live.of(self.web1).converged == generation(self._overlays), when

    def release(self) -> None:
        """End what holds files."""
        self.web1.run("killall", "sleep")  # init begins another one
        held = f"/{APP}/"
        until(
            lambda: not any(path.startswith(held) for path in holding(self.web1)),
            what="nothing is held",
        )

    def _write(self, path: str, text: str) -> None:
        """Put a file in the stopped base, in the place of another one."""
        owner = os.stat(self._base).st_uid
        new = f"{self._base}/{path}.new"
        with open(new, "w") as file:
            file.write(text)
            os.fchown(file.fileno(), owner, owner)
        os.rename(new, f"{self._base}/{path}")


@pytest.fixture
def rounds(overlays: Overlays) -> Iterator[Rounds]:
    """A container on a base, ready for its updates."""
    made = Rounds(overlays)
    yield made
    made.web1.delete()


def of_the_cure(steps: list[str]) -> list[int]:
    """The numbers of the steps between the first that touches the container and the last."""
    first = next(number for number, step in enumerate(steps) if "parents.new" in step)
    last = max(number for number, step in enumerate(steps) if "os.rmdir ('cure'" in step)
    return list(range(first + 1, last + 3))


@pytest.mark.updates_base
def test_the_watcher_is_killed_and_starts_again(
    rounds: Rounds, tally: Tally, *, soak: bool
) -> None:
    """Killed before any step of a cure: the next one finishes it, and nothing is left behind."""
    rounds.begin()
    steps = rounds.steps()
    rounds.check()
    for number in range(1, len(steps) + 1) if soak else of_the_cure(steps)[::3]:
        rounds.release()
        rounds.begin()
        with tally.injected(WATCHER):
            assert rounds.kill_watcher(number) == killed.KILLED, steps[number - 1]
            rounds.watch()
            rounds.check(f"killed before {steps[number - 1]}")


@pytest.mark.updates_base
def test_the_watcher_and_the_container_are_killed(
    rounds: Rounds, tally: Tally, *, soak: bool
) -> None:
    """Killed before any step of a cure, and the container, too: its next start finishes it."""
    web1 = rounds.web1
    rounds.begin()
    steps = rounds.steps()
    numbers = of_the_cure(steps)
    if not soak:
        numbers = [number for number in numbers if "os.re" in steps[number - 1]][::2]
    kills = itertools.cycle([kill_init, kill_monitor, stop])
    for number, kill in zip(numbers, kills, strict=False):
        rounds.release()
        rounds.begin()
        with tally.injected(BOTH):
            assert rounds.kill_watcher(number) == killed.KILLED, steps[number - 1]
            kill(web1)
            web1.wait("Stopped")
            web1.start()
            rounds.check(f"killed before {steps[number - 1]}, {kill.__name__}")
            assert not os.path.exists(f"{web1.upper}/usr/share/app")


def kill_init(container: Instance) -> None:
    """SIGKILL for its first process, as the OOM killer would."""
    os.kill(container.pid, signal.SIGKILL)


def kill_monitor(container: Instance) -> None:
    """SIGKILL for its monitor, so that no hook runs."""
    assert container.monitor is not None
    os.kill(container.monitor.pid, signal.SIGKILL)


def stop(container: Instance) -> None:
    """``lxc stop --force``."""
    container.stop(force=True)


# Whatever root in a container can do to a tree while it is looked at, over and over.
_FIGHT = """
cd /usr/share/app
while :; do mount --bind /etc data; mount --bind / data; umount data; umount data; done &
while :; do mkdir -p deep/$(seq -s/ 200); rm -r deep; done &
while :; do ln -s / swapped; rm swapped; mkdir swapped; rmdir swapped; done &
while :; do (:); done &
for number in 1 2 3 4 5 6 7 8; do unshare -m sleep 1000 & done
wait
"""
# Once done it hides what the base has, so each container does it once, at a time of its own.
_SWAP = "sleep {after}; rm -r /usr/share/app; ln -s / /usr/share/app"


@pytest.mark.updates_base
@pytest.mark.once
def test_containers_that_fight_a_cure(overlays: Overlays, tally: Tally, *, soak: bool) -> None:
    """Mounts, links, deep trees, forks and swaps while cures run: others are cured all the same.

    No file of the host that a link or a mount could lead to is touched, and nobody stays frozen.
    """
    for name in ("version", "data"):
        path = f"/usr/share/app/{name}"
        assert not os.path.exists(path), "it would not be told apart on this host"
    rounds = Rounds(overlays)
    evil = [overlays.launch(f"evil{number}") for number in range(4)]
    for number, container in enumerate(evil):
        hold(container, f"/{REPLACED}")
        swap = _SWAP.format(after=number)
        script = f"({swap}) & {_FIGHT}" if number else _FIGHT
        container.exec("sh", "-c", f"nohup sh -c '{script}' >/dev/null 2>&1 </dev/null &")
    host = {path: os.lstat(path) for path in ("/", "/etc", "/usr", "/usr/share", "/etc/hostname")}
    for _ in range(50 if soak else 5):
        rounds.release()
        rounds.begin()
        with tally.injected(FIGHT, len(evil)):
            rounds.watch()
            rounds.check()
    for path, before in host.items():
        assert os.lstat(path).st_mtime_ns == before.st_mtime_ns, path
    for container in evil:
        assert not Freezer(container.pid).asked()
        assert not os.path.exists(f"{os.path.dirname(container.upper)}/{layer.CURE}")
        container.stop(force=True)
    rounds.web1.delete()
