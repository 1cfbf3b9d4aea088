# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates of a base whose files are in use, and what became of them in its containers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab import live
from lab.wait import until
from pycor_hooks import generations
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
    """What the processes of :func:`hold` hold, by the kernel's word."""
    script = 'for pid in $(pidof sleep); do readlink "/proc/$pid/fd/0"; done'
    return container.run("sh", "-c", script).stdout.splitlines()


def mapped(container: Instance) -> set[str]:
    """The files that processes of a container have mapped, as it names them."""
    lines = container.run("sh", "-c", "cat /proc/[0-9]*/maps").stdout.splitlines()
    return {line.split(None, 5)[5] for line in lines if " /" in line}


def generation(overlays: Overlays) -> int:
    """The generation that the stopped base is in."""
    base = Base(overlays.daemon.directory, "default", overlays.base.name)
    found = generations.update(base)
    assert found is not None
    return found.generation


def wait_converged(overlays: Overlays, *containers: Instance) -> None:
    """Wait until each container has nothing of an older generation."""
    wanted = generation(overlays)
    until(
        lambda: all(live.of(one).converged == wanted for one in containers),
        what=f"all have converged to generation {wanted}",
    )
