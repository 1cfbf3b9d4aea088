# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a base of 30,000 entries: how long it takes, and what the watcher grows to.

Run as ``python -m bench.manifest``, as root. The yardstick is ``find`` that looks at every file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

from bench.figures import paired, seconds, write
from bench.hook import start_of_live
from bench.memory import ready_watcher, resident_kib
from lab import mounts
from lab.liblxc import Container, make_base
from lab.wait import until
from pycor_hooks import generations, instance, kernel, takedown
from pycor_hooks.plan import Base

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = 30_000
FILES = 29  # in a directory
CHANGED = 2_000
OVERLAYS = 300
RUNS = 20


def fill(base: str) -> list[str]:
    """Give a base its entries; the files among them."""
    files = []
    for number in range(ENTRIES // (FILES + 1)):
        directory = f"{base}/usr/share/package-{number:04}"
        os.makedirs(directory)
        files += [f"{directory}/some-file-{name:02}.data" for name in range(FILES)]
    for path in files:
        os.mknod(path)
    return files


def replace(files: list[str], turn: int) -> None:
    """Put others in the place of some files, as an upgrade does."""
    for path in files[turn::15][:CHANGED]:
        os.mknod(f"{path}.dpkg-new")
        os.rename(f"{path}.dpkg-new", path)


def find(base: str) -> float:
    """A program in C that looks at every path."""
    command = ["find", base, "-printf", "%p %m %i %C@ %s %l\n"]
    return seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def update_of(base: Base, before: Callable[[], object] = lambda: None) -> Callable[[], float]:
    """Time one update, after something that is not timed."""

    def run() -> float:
        before()
        return seconds(lambda: generations.update(base))

    return run


def main() -> None:
    """Measure an unchanged base, one with 2,000 changed files, and the watcher on 300 overlays."""
    mounts.enter_own()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as root:
        os.chmod(root, 0o755)
        for path in (instance.STATE, f"{root}/state"):
            os.mkdir(path)
        kernel.mount(f"{root}/state", instance.STATE, "", kernel.MS_BIND)  # on disk, too
        rootfs = make_base(root)
        files = fill(rootfs)
        base = Base(root, "default", "base")
        generations.update(base)
        turn = iter(range(10_000))
        figures: dict[str, object] = {
            "entries": ENTRIES,
            "changed": CHANGED,
            "unchanged_base": paired(RUNS, update_of(base), lambda: find(rootfs)),
            "changed_base": paired(
                RUNS,
                update_of(base, lambda: replace(files, next(turn) % 15)),
                lambda: find(rootfs),
            ),
        }
        containers = [Container(root, f"web{number}") for number in range(OVERLAYS)]
        for container in containers:
            start_of_live(container)
        watcher = ready_watcher(root, f"{root}/notify")
        replace(files, 7)
        before = generation(base)
        watcher.send_signal(signal.SIGHUP)
        until(lambda: generation(base) > before, what="the watcher has kept it", timeout_s=60)
        figures["overlays"] = OVERLAYS
        figures["watcher_kib"] = resident_kib(watcher.pid)
        watcher.send_signal(signal.SIGTERM)
        watcher.wait()
        for container in containers:
            takedown.own(container.directory, os.getpid())
        kernel.umount(instance.STATE)
    write("manifest", figures)


def generation(base: Base) -> int:
    """The newest generation of the base."""
    with open(f"{instance.state_of(base.daemon, base.name)}/manifest", "rb") as file:
        return int(file.readline().split()[1])


if __name__ == "__main__":
    main()
