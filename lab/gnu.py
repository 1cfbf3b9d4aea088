# SPDX-License-Identifier: GPL-3.0-or-later
"""GNU programs of the host in a container; it is they that complain where busybox does not care.

They lie in a tmpfs of the container, so none of its files is theirs, and the loader is called by
name, so none of its libraries is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from lab import images

if TYPE_CHECKING:
    import subprocess

    from lab.client import Instance

PROGRAMS = ("cp", "du", "find", "rm", "setcap", "setfacl")
SCRATCH = "/tmp"  # noqa: S108 - in the container
_PLACE = f"{SCRATCH}/gnu"


class Gnu:
    """Call it with a command's words: ``gnu("find", "/", "-xdev")``. They last until a stop."""

    def __init__(self, container: Instance) -> None:
        """Bring them into a running container, over whose /tmp a tmpfs is mounted."""
        self._container = container
        container.exec("mount", "-t", "tmpfs", "none", SCRATCH)
        with tempfile.TemporaryDirectory(dir="/var/tmp") as parent:
            directory = os.path.join(parent, os.path.basename(_PLACE))
            os.mkdir(directory)
            for path in {file for name in PROGRAMS for file in _files(name)}:
                shutil.copy(path, directory)
            self._loader = next(name for name in os.listdir(directory) if name.startswith("ld"))
            container.client("file", "push", "-r", directory, f"{container.name}{SCRATCH}")

    def __call__(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one; its exit status is the answer's, nothing is raised."""
        program = [f"{_PLACE}/{self._loader}", "--library-path", _PLACE, f"{_PLACE}/{name}"]
        return self._container.run(*program, *words)


def _files(name: str) -> list[str]:
    path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if path is None:
        raise FileNotFoundError(name)
    return [path, *images.libraries(path)]
