# SPDX-License-Identifier: GPL-3.0-or-later
"""Running containers after an update of their base: cured while they run, or reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import live
from lab.wait import until
from pycor_hooks import generations
from pycor_hooks.plan import Base

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays

# A package manager's way: another file under the same name, old ones unlinked.
_REPLACE = 'for path; do cp -a "$path" "$path.dpkg-new" && mv -f "$path.dpkg-new" "$path"; done'


def upgrade(base: Instance, *paths: str, script: str = "true") -> None:
    """Replace files of the base as a package manager does, in the base; start it and stop it."""
    base.start()
    base.exec("sh", "-ec", f"{_REPLACE}\n{script}", "sh", *paths)
    if base.name == "debian":
        base.wait_booted()
    base.stop()
    base.wait("Stopped")


def generation(overlays: Overlays) -> int:
    """The generation that the base is in."""
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


def mapped(container: Instance) -> set[str]:
    """The files that processes of a container have mapped, as it names them."""
    tasks = container.exec("sh", "-c", "cat /proc/[0-9]*/maps").splitlines()
    return {line.split(None, 5)[5] for line in tasks if " /" in line}
