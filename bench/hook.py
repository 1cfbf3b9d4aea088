# SPDX-License-Identifier: GPL-3.0-or-later
"""Pre-start as a whole process, against a bare start of the same interpreter.

Run as ``python -m bench.hook``, as root. The hooks are installed as ``pycor-hooks install`` does,
and run as liblxc does, without a daemon, in a mount namespace of their own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

from bench.figures import paired, seconds, write
from lab import mounts
from lab.liblxc import Container, compiled_hooks, make_base
from pycor_hooks import namespaces, takedown

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 200
LIVE = 300
OWNER = 100000
IDMAP = (f"u 0 {OWNER} 1000000", f"g 0 {OWNER} 1000000")
BARE = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]


def bare_interpreter() -> float:
    """One start of the interpreter that does nothing."""
    return seconds(lambda: subprocess.run(BARE, check=True))


def start_of(container: Container) -> Callable[[], float]:
    """Time pre-start; take the overlay down afterwards, untimed.

    The process that runs the hook is this one, as fork and exec cost the same for both then.
    """

    def run() -> float:
        command, env = container.command("pre-start", "--base", "base")
        taken = seconds(lambda: subprocess.run(command, env=env, check=True))
        takedown.own(container.directory, os.getpid())
        return taken

    return run


def container_on(root: str, name: str, owner: int) -> Container:
    """A container of a daemon of its own, on a base stored as ``owner``."""
    daemon, prefix = os.path.join(root, name), os.path.join(root, f"{name}-prefix")
    os.mkdir(daemon)
    os.mkdir(prefix)
    make_base(daemon, owner=owner)
    container = Container(daemon, "web1")
    container.idmap, container.hooks = IDMAP, compiled_hooks(prefix)
    return container


def main() -> None:
    """Measure equal ids, mapped ids, and both again with 300 overlays live."""
    mounts.enter_own()
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        equal, mapped = container_on(root, "equal", OWNER), container_on(root, "mapped", 0)
        figures: dict[str, object] = {
            "equal_ids": paired(RUNS, start_of(equal), bare_interpreter),
            "mapped_ids": paired(RUNS, start_of(mapped), bare_interpreter),
        }
        live = [Container(equal.daemon, f"live{number}") for number in range(LIVE)]
        for container in live:
            container.idmap, container.hooks = IDMAP, equal.hooks
            start_of_live(container)
        figures["equal_ids_300_live"] = paired(RUNS, start_of(equal), bare_interpreter)
        figures["mapped_ids_300_live"] = paired(RUNS, start_of(mapped), bare_interpreter)
        for container in live:
            takedown.own(container.directory, os.getpid())
    write("hook", figures)


def start_of_live(container: Container) -> None:
    """Start one and leave it up, as a running container is: nothing bound on its rootfs."""
    command, env = container.command("pre-start", "--base", "base")
    subprocess.run(command, env=env, check=True)
    takedown.detach_binds(container.directory, container.rootfs, namespaces.HOST)


if __name__ == "__main__":
    main()
