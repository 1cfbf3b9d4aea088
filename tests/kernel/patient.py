# SPDX-License-Identifier: GPL-3.0-or-later
"""A container on a base, without a daemon, whose processes hold files: what a cure works on."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab.converging import touched
from pycor_hooks import converge, overlay, record

if TYPE_CHECKING:
    from lab.liblxc import Container
    from lab.payload import Payload
    from pycor_hooks.converge import Result

POOLS = pytest.mark.parametrize(
    "pool", [None, "another"], ids=["one-pool", "two-pools"], indirect=True
)
"""With the base where the container is, and on a file system of its own.

There OverlayFS numbers directories by itself, anew with each lookup (ovl_map_ino()).
"""
_OPEN = """
import os, sys
try:
    os.open(sys.argv[2], os.O_RDONLY, dir_fd=int(sys.argv[1]))
except PermissionError:
    sys.exit(1)
"""


class Patient:
    """One running container; ``web`` of the harness, with a cgroup of its own.

    Paths are relative to the root, of the base and of the container.
    """

    def __init__(self, web: Container, base: str, payload: Payload) -> None:
        self.web = web
        self.base = base
        self.payload = payload
        self.start()

    def start(self) -> None:
        """Start it."""
        self.web.start()
        assert self.web.init is not None
        self.payload.adopt(self.web.init.pid)

    @property
    def record(self) -> record.Record:
        """What is recorded of its overlay."""
        return record.read(self.web.directory)

    def stop(self) -> None:
        """Stop it, and end what was started in it."""
        self.payload.kill()
        self.web.stop()

    def hold(self, path: str) -> subprocess.Popen[bytes]:
        """Start a process of the container that has a file open, or works in a directory."""
        seen = f"{self.web.merged}/{path}"
        if os.path.isdir(seen):
            return self.payload.run("sleep", "infinity", cwd=seen)
        with open(seen, "rb") as file:
            return self.payload.run("sleep", "infinity", stdin=file)

    def replace(self, path: str, text: str = "new\n") -> None:
        """Have another file in the base, as a package manager puts it there."""
        with open(f"{self.base}/{path}.dpkg-new", "w") as file:
            file.write(text)
        os.rename(f"{self.base}/{path}.dpkg-new", f"{self.base}/{path}")

    def sees(self, path: str) -> str | None:
        """The content that the container's lookup gives, None where there is none."""
        try:
            with open(f"{self.web.merged}/{path}") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def converge(self, *paths: str, generation: int = 1, altered: bool = False) -> Result:
        """Converge it with a base that has changed these paths, or altered their mode or owner."""
        overlay.refresh(self.web.merged)
        changes = touched(self.base, paths, altered=altered)
        result = converge.converge(self.record, generation, changes)
        assert result is not None
        assert not os.path.exists(f"{self.own}/cure")
        return result

    def reasons(self, *paths: str, altered: bool = False) -> dict[str, str]:
        """Converge it; why paths are stale still, by the word of each reason."""
        result = self.converge(*paths, altered=altered)
        return {path: why.word for path, why in result.reasons.items()}

    def lets_others_use(self, path: str) -> bool:
        """Whether a user who is not root may open a file or directory of the container."""
        root = os.open(self.web.merged, os.O_PATH)
        try:
            command = ["/usr/bin/python3", "-c", _OPEN, str(root), path]
            done = subprocess.run(
                command, check=False, pass_fds=[root], user=1000, group=1000, extra_groups=[]
            )
            return not done.returncode
        finally:
            os.close(root)

    @property
    def own(self) -> str:
        """``overlay`` in its volume."""
        return f"{self.web.volume}/overlay"

    def upper(self) -> list[str]:
        """Everything in its upper."""
        found = []
        for parent, directories, files in os.walk(self.web.upper):
            found += [
                os.path.relpath(f"{parent}/{name}", self.web.upper)
                for name in (*directories, *files)
            ]
        return sorted(found)
