# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroups that liblxc makes for its containers, and that nobody removes after a kill.

They lie beside those of the user's own containers, and of other labs: remove only what is ours.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.processes import Process

TOP = ("/sys/fs/cgroup/", "/sys/fs/cgroup/*/")  # version 2, and version 1 or both
STARTING_S = 10  # a container's cgroup is empty for a moment before its init is put there


def all_of_liblxc() -> set[str]:
    """Directories of all its cgroups, in whatever hierarchies there are."""
    return {path for top in TOP for path in glob.glob(top + "lxc.*")}


def names_of(processes: Iterable[Process]) -> set[str]:
    """The names, such as "lxc.payload.web1", of the cgroups that the processes are in.

    liblxc takes a name that is free in every hierarchy, so it tells containers apart.
    """
    names = set()
    for process in processes:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),  # gone by now
            open(f"/proc/{process.pid}/cgroup", encoding="utf-8") as lines,
        ):
            names |= {line.rstrip().split(":", 2)[2].split("/")[1] for line in lines}
    return {name for name in names if name.startswith("lxc.")}


def remove(names: Iterable[str]) -> None:
    """Remove the cgroups with these names, as far as nobody lives in them."""
    for name in names:
        for top in TOP:
            for directory in glob.glob(top + glob.escape(name)):
                _remove(directory)


def remove_forgotten(before: set[str]) -> None:
    """Remove empty ones that came since ``before``: of containers whose monitor was killed.

    Not the youngest: another lab, or the user, may be starting a container.
    """
    for directory in all_of_liblxc() - before:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(directory).st_mtime > STARTING_S:
                _remove(directory)


def _remove(top: str) -> None:
    """Remove a cgroup and those in it; rmdir(2) refuses where a process lives."""
    for directory, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
