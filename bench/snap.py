# SPDX-License-Identifier: GPL-3.0-or-later
"""Pre-start for a daemon in a mount namespace of its own, against the ordinary form of it.

Run as ``python -m bench.snap``, as root. Both start the same container; in one form the process
that stands for [lxc monitor] is in another namespace than process 1, and the hook line is the one
that the profile has for such a daemon.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

from bench.figures import paired, seconds, write
from bench.hook import container_on, start_of
from lab import mounts, pidns
from pycor_hooks import kernel, profile, takedown

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.liblxc import Container

RUNS = 200
OWNER = 100000


def apart(container: Container) -> Callable[[], float]:
    """Time pre-start of a monitor in a namespace of its own: this process, moved there."""

    def run() -> float:
        host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE)
        try:
            command, env = container.command("pre-start", "--base", "base")
            words = [*profile.ENTER.split(), *command]
            taken = seconds(lambda: subprocess.run(words, env=env, check=True))
        finally:
            kernel.setns(host, kernel.CLONE_NEWNS)
            os.close(host)
        takedown.own(container.directory, os.getpid())
        return taken

    return run


def main() -> None:
    """Measure equal ids and mapped ids."""
    pidns.enter()
    mounts.enter_own()
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        figures: dict[str, object] = {}
        for name, owner in (("equal_ids", OWNER), ("mapped_ids", 0)):
            container = container_on(root, name, owner)
            figures[name] = paired(RUNS, apart(container), start_of(container))
    write("snap", figures)


if __name__ == "__main__":
    main()
