# SPDX-License-Identifier: GPL-3.0-or-later
"""Full disks, and disks that went read-only: named, while the containers that run go on."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab import starts
from lab.inhabited import Inhabited, make_inhabitable_base
from pycor_hooks import instance, kernel, record
from pycor_hooks.watcher import once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.tally import Tally

pytestmark = [pytest.mark.host_root, pytest.mark.usefixtures("own_run")]

CHUNK = 1 << 16


class Pair:
    """A daemon whose pool is a file system of its own: one container runs, one is to start."""

    def __init__(self, daemon: str) -> None:
        make_inhabitable_base(daemon)
        self.running, self.new = (Inhabited(daemon, name) for name in ("web1", "web2"))
        for container in (self.running, self.new):
            container.idmap = starts.IDMAP
        starts.started(self.running)
        starts.new(self.new)

    def refusal(self) -> str:
        """The one line with which the new one's start ends."""
        assert self.new.pre_start() == 1
        (line,) = self.new.log().splitlines()
        self.new.forget_log()
        assert starts.left(self.new) == []
        return line

    def goes_on(self, *, noted: bool = True) -> None:
        """The one that runs is there, is refreshed, and can be stopped.

        Args:
            noted: whether there is room to note that it has converged with its base.
        """
        assert self.running.wrong_unmounts() == []
        assert once([self.running.daemon]) == int(not noted)
        assert self.running.sees("own")
        self.running.stop()
        assert starts.left(self.running) == []

    def lost(self) -> list[str]:
        """What either has lost, once there is room again: both have been started then."""
        for container in (self.running, self.new):
            if not container.init:
                container.start()
            container.stop()
        return starts.lost(self.running, own=True) + starts.lost(self.new, own=False)

    def end(self) -> None:
        """End their processes."""
        self.running.end()
        self.new.end()


MAKE = {
    "ext4": (16, ["mkfs.ext4", "-q", "-F", "-m", "0"]),
    "btrfs": (32, ["mkfs.btrfs", "-q", "--mixed"]),  # data fills metadata, too
}


@pytest.fixture
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The pool's directory, on a small file system of its own."""
    tmp_path.chmod(0o755)
    size, command = MAKE[request.param]
    image, path = tmp_path / "image", tmp_path / "storage-pools" / "pool"
    path.mkdir(parents=True)
    with open(image, "wb") as file:
        file.truncate(size << 20)
    subprocess.run([*command, image], check=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    path.chmod(0o755)
    yield str(path)
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def pair(pool: str) -> Iterator[Pair]:
    """Both containers; ended after the case."""
    found = Pair(os.path.dirname(os.path.dirname(pool)))
    yield found
    found.end()


def fill(path: str) -> None:
    """Append to a file until the disk is full."""
    with open(path, "ab", buffering=0) as file:
        for size in (CHUNK, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


def make_directories(path: str) -> None:
    """Make empty ones, and never end."""
    for number in itertools.count():
        os.mkdir(f"{path}/{number}")


@contextlib.contextmanager
def full(directory: str) -> Iterator[None]:
    """Fill a file system to the last byte and inode, and make room again."""
    ballast = f"{directory}/ballast"
    os.mkdir(ballast)
    fill(f"{ballast}/file")
    with pytest.raises(OSError, match="No space left"):
        make_directories(ballast)
    yield
    subprocess.run(["rm", "-rf", ballast], check=True)


@pytest.mark.parametrize("pool", MAKE, indirect=True)
def test_a_full_pool(pool: str, pair: Pair, tally: Tally) -> None:
    """A start on a full disk is refused by name; the other container runs on, and stops."""
    fault = "disk full in upper"
    with tally.injected(fault):
        with full(pool):
            assert "no space left at" in pair.refusal()
            pair.goes_on()
        tally.lost(fault, pair.lost())


@pytest.mark.parametrize("pool", ["ext4"], indirect=True)
def test_a_pool_that_went_read_only(pool: str, pair: Pair, tally: Tally) -> None:
    """As ext4 does after an error: the start is refused, the other container can be stopped."""
    fault = "volume read-only"
    with tally.injected(fault):
        subprocess.run(["mount", "-o", "remount,ro", pool], check=True)
        assert "came up read-only" in pair.refusal()
        pair.goes_on()
        subprocess.run(["mount", "-o", "remount,rw", pool], check=True)
        tally.lost(fault, pair.lost())


# -- /run


@pytest.fixture
def small_run() -> Iterator[str]:
    """A small file system for our records."""
    os.makedirs(record.RUN, exist_ok=True)
    kernel.mount("small", record.RUN, "tmpfs", 0, "size=64k,nr_inodes=40,mode=0700")
    yield record.RUN
    kernel.umount(record.RUN)


@pytest.fixture
def pair_in_small_run(small_run: str, tmp_path: Path) -> Iterator[Pair]:  # noqa: ARG001 - before
    """Both containers, recorded in there."""
    tmp_path.chmod(0o755)
    found = Pair(str(tmp_path))
    yield found
    found.end()


@pytest.mark.parametrize("directories", [0, 10], ids=["for nothing", "for directories"])
def test_a_full_run(
    small_run: str, pair_in_small_run: Pair, tally: Tally, directories: int
) -> None:
    """With room for directories at most a start is refused by name; the other one goes on."""
    fault, pair = "disk full in /run", pair_in_small_run
    with tally.injected(fault):
        with full(small_run):
            for number in range(directories):
                os.rmdir(f"{small_run}/ballast/{number}")
            assert f"no space left at {record.RUN}" in pair.refusal()
            pair.goes_on(noted=False)
        tally.lost(fault, pair.lost())


def test_a_run_that_fills_up_while_a_container_starts(
    small_run: str, pair_in_small_run: Pair, tally: Tally
) -> None:
    """start-host says so, and post-stop takes down what pre-start has mounted."""
    fault, pair = "disk full in /run", pair_in_small_run
    with tally.injected(fault):
        assert pair.new.pre_start() == 0
        with full(small_run):
            assert pair.new.hook("start-host") == 1
            assert f"start-host: no space left at {record.RUN}" in pair.new.log()
            assert pair.new.hook("post-stop") == 0
            assert starts.left(pair.new) == []
        tally.lost(fault, pair.lost())


def test_a_lost_record_on_a_full_run(
    small_run: str, pair_in_small_run: Pair, tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be made anew: the watcher says so, goes on, and does it when there is room."""
    fault, pair = "disk full in /run", pair_in_small_run
    with tally.injected(fault):
        with full(small_run):
            os.truncate(f"{pair.running.directory}/state", 0)
            fill(f"{small_run}/ballast/file")
            assert once([pair.running.daemon]) == 1
            assert "web1: cannot be recorded anew: " in caplog.text
            assert pair.running.wrong_unmounts() == []
        pair.goes_on()
        tally.lost(fault, pair.lost())


# -- the log


def test_a_full_log(web: Inhabited, tally: Tally) -> None:
    """What cannot be written into the log ends no start; a refusal is one all the same."""
    fault = "disk full in the log file"
    web.stop()
    web.log_path = "/dev/full"
    with tally.injected(fault, times=2):
        assert web.pre_start(base="nobase") == 1
        assert starts.left(web) == []
        with socket.socket(socket.AF_UNIX) as monitor:  # the base runs, and a start warns of that
            monitor.bind(instance.command_socket(f"{web.daemon}/containers", "base"))
            monitor.listen()
            web.start()
        web.stop()
    tally.lost(fault, starts.left(web))
