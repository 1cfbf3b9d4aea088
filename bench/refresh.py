# SPDX-License-Identifier: GPL-3.0-or-later
"""Refreshing 300 overlays, as the watcher does, against a bare loop of the mount(2) call.

Run as ``python -m bench.refresh``, as root.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

from bench.figures import paired, seconds, write
from bench.hook import start_of_live
from lab import mounts
from lab.liblxc import Container, make_base
from pycor_hooks import live, overlay, refreshing, takedown
from pycor_hooks.plan import Base

OVERLAYS = 300
DENTRIES = 10_000
RUNS = 30
WARM_RUNS = 5


def bare_loop(merged: list[str]) -> float:
    """The system call alone, for each."""

    def loop() -> None:
        for path in merged:
            overlay.refresh(path)

    return seconds(loop)


def watcher_pass(base: Base, records: live.Records) -> float:
    """What the watcher does for a base that has stopped: look what is live, refresh each."""
    return seconds(lambda: refreshing.refresh_while_stopped(base, records.scan()))


def fill_dentries(merged: list[str]) -> None:
    """Look every file up in every overlay, so that the kernel caches a dentry for each."""
    for path in merged:
        subprocess.run(["find", path, "-newermt", "2100-01-01"], check=True)


def main() -> None:
    """Measure idle overlays, then ones with 10,000 cached dentries each."""
    mounts.enter_own()
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        base = make_base(root)
        for number in range(DENTRIES // 100):
            os.mkdir(f"{base}/{number}")
            for name in range(100):
                os.mknod(f"{base}/{number}/{name}")
        containers = [Container(root, f"web{number}") for number in range(OVERLAYS)]
        for container in containers:
            start_of_live(container)
        merged = [container.merged for container in containers]
        records, whose = live.Records([root]), Base(root, "default", "base")
        figures: dict[str, object] = {
            "overlays": OVERLAYS,
            "idle": paired(RUNS, lambda: watcher_pass(whose, records), lambda: bare_loop(merged)),
        }

        def warm_pass() -> float:
            fill_dentries(merged)
            return watcher_pass(whose, records)

        def warm_loop() -> float:
            fill_dentries(merged)
            return bare_loop(merged)

        figures["dentries_10000_each"] = paired(WARM_RUNS, warm_pass, warm_loop)
        for container in containers:
            takedown.own(container.directory, os.getpid())
    write("refresh", figures)


if __name__ == "__main__":
    main()
