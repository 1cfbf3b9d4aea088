# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates of a base whose files are in use, and what became of them in its containers."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab import live
from lab.wait import until
from pycor_hooks import generations
from pycor_hooks.freezer import Freezer
from pycor_hooks.plan import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.client import Instance
    from lab.overlays import Overlays

# As a package manager does it: another file takes the name.
_REPLACE = 'for path; do cp -p "$path" "$path.dpkg-new"; mv -f "$path.dpkg-new" "$path"; done'


@contextmanager
def stopped(base: Instance) -> Iterator[None]:
    """Have the base run; it is stopped afterwards."""
    base.start()
    if base.run("test", "-d", "/run/systemd/system").returncode == 0:
        base.wait_booted()  # earlier it does not hear that it shall stop
    yield
    base.stop()
    base.wait("Stopped")


def replace(base: Instance, *paths: str) -> None:
    """Replace files in the running base."""
    base.exec("sh", "-ec", _REPLACE, "sh", *paths)


def hold(container: Instance, path: str) -> None:
    """Have a process of the container hold a file open, as its standard input."""
    container.exec("sh", "-c", f"sleep 1000 <{path} >/dev/null 2>&1 &")
    until(lambda: path in holding(container), what=f"{path} is held")


def holding(container: Instance) -> list[str]:
    """What processes of a container have as their standard input, as the container names it.

    Asked of the host's /proc, as LXD's exec now and then loses what a short command has printed.
    """
    return [path for task in tasks(container) if (path := _link(f"/proc/{task}/fd/0"))]


def mapped(container: Instance) -> dict[int, set[str]]:
    """The files that each process of a container has mapped, as the container names them."""
    return {task: set(_mapped(task)) for task in tasks(container)}


def tasks(container: Instance) -> list[int]:
    """All threads of a container, as the host numbers them."""
    return list(Freezer(container.pid).tasks())


def inode(container: Instance, path: str) -> int:
    """The inode that a lookup gives in the container's tree."""
    return os.lstat(container.merged + path).st_ino


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # it is gone


def _mapped(task: int) -> Iterator[str]:
    try:
        with open(f"/proc/{task}/maps") as lines:
            for line in lines:
                if " /" in line:
                    yield line.rstrip("\n").split(None, 5)[5]
    except OSError:
        return  # it is gone


def generation(overlays: Overlays) -> int:
    """The generation that the stopped base is in."""
    base = Base(overlays.daemon.directory, "default", overlays.base.name)
    found = generations.update(base)
    assert found is not None
    return found.generation


def wait_converged(overlays: Overlays, *containers: Instance) -> None:
    """Wait until each container has nothing of an older generation."""
    live.wait_converged(containers, generation(overlays))
