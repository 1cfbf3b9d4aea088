# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: it tells its story in time, and takes everything away again, also on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab.world import PARENT
from pycor_hooks import mountinfo, pulse
from pycor_hooks.record import RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.acceptance

DEMO_S = 180


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Neither a mount nor a directory is left of it, nor what its watcher showed of itself."""

    def there() -> tuple[set[int], set[str], set[str]]:
        mounts = {mount.mount_id for mount in mountinfo.read()}
        shown = {path for _, _, files in os.walk(f"{RUN}/{pulse.HOME}") for path in files}
        return mounts, set(os.listdir(PARENT)), shown

    before = there()
    yield
    assert there() == before


def demo() -> subprocess.Popen[str]:
    """Begin it, as make does in a terminal: in a process group of its own."""
    command = [sys.executable, "-m", "lab.demo"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)


def members(group: int) -> list[int]:
    """The processes of a process group (proc_pid_stat(5), field 5)."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.getpgid(int(pid)) == group:
                found.append(int(pid))
        except ProcessLookupError:
            continue
    return found


def test_the_whole_of_it() -> None:
    """All three containers see the upgrade, in less than three minutes after the downloads."""
    with demo() as process:
        told, _ = process.communicate(timeout=2 * DEMO_S)
    assert process.returncode == 0
    took = re.search(r"^(\d+) s, after \d+ s of downloads$", told, re.MULTILINE)
    assert took
    assert int(took[1]) < DEMO_S
    assert members(process.pid) == []


def test_ctrl_c() -> None:
    """In the middle of it everything is taken away, and the exit status says why."""
    with demo() as process:
        assert process.stdout is not None
        assert any("lxc launch overlay web2" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        told, _ = process.communicate(timeout=DEMO_S)
    assert process.returncode == 128 + signal.SIGINT
    assert "cleaning up" in told
    assert members(process.pid) == []
