# SPDX-License-Identifier: GPL-3.0-or-later
"""A container on a base, without a daemon, whose processes hold files: what a cure works on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab.converging import touched
from pycor_hooks import converge, overlay, record

if TYPE_CHECKING:
    import subprocess

    from lab.liblxc import Container
    from lab.payload import Payload
    from pycor_hooks.converge import Result


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

    def converge(self, *paths: str, generation: int = 1) -> Result:
        """Converge it with a base that has changed these paths."""
        overlay.refresh(self.web.merged)
        result = converge.converge(self.record, generation, touched(self.base, paths))
        assert result is not None
        assert not os.path.exists(f"{self.own}/cure")
        return result

    def reasons(self, *paths: str) -> dict[str, str]:
        """Converge it; why paths are stale still, by the word of each reason."""
        return {path: why.word for path, why in self.converge(*paths).reasons.items()}

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
