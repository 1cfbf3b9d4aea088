# SPDX-License-Identifier: GPL-3.0-or-later
"""How the lab times hooks: what it puts before them changes nothing for them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from lab.hooktimes import WRAPPER, table
from lab.wait import until

if TYPE_CHECKING:
    from pathlib import Path


def test_wrapper(tmp_path: Path) -> None:
    """The hook is its caller's child, gets its words, and its output and exit status arrive."""
    hook = tmp_path / "pre-start"
    hook.write_text('#!/bin/sh\necho "$PPID $*"\nexit 3\n')
    hook.chmod(0o755)
    times = tmp_path / "times"
    command = [WRAPPER, str(times), str(hook), "--base", "b a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, f"{os.getpid()} --base b a\n")
    until(lambda: times.exists() and times.read_text().endswith("\n"), what="it is noted")
    name, began, ended = times.read_text().split()
    assert name == "pre-start"
    assert 0 < float(ended) - float(began) < 10


def test_table() -> None:
    """Median, 99th percentile and maximum in milliseconds, a row for each hook."""
    lines = table([("lxd, stop", [number / 1000 for number in range(101)])])
    assert [line.split() for line in lines] == [
        ["hook", "runs", "p50", "ms", "p99", "ms", "max", "ms"],
        ["lxd,", "stop", "101", "50.0", "99.0", "100.0"],
    ]
