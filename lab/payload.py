# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroup of a container as liblxc makes it, for processes that only stand for one."""

from __future__ import annotations

import os
import subprocess
from typing import IO, TYPE_CHECKING, Self

from lab.wait import until
from pycor_hooks import mountinfo
from pycor_hooks.freezer import CGROUPS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_VERSION_2 = (CGROUPS, f"{CGROUPS}/unified")
_VERSION_1 = f"{CGROUPS}/freezer"


class Payload:
    """Entered with ``with``; ends with its processes killed and the cgroups gone.

    ``version2`` and ``version1`` are its directories, "" where this host has no such hierarchy.
    """

    def __init__(self, name: str) -> None:
        whose = os.stat("/proc/self/ns/pid").st_ino  # in a lab's of its own, pids are small
        self._name = f"lxc.payload.{name}-{whose}-{os.getpid()}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.version2 = self.version1 = ""

    def __enter__(self) -> Self:
        for top in _VERSION_2:
            if os.path.exists(f"{top}/cgroup.controllers"):
                self.version2 = f"{top}/{self._name}"
        if os.path.exists(f"{_VERSION_1}/tasks"):
            self.version1 = f"{_VERSION_1}/{self._name}"
        for directory in self._directories():
            os.mkdir(directory)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        until(lambda: all(map(_removed, self._directories())), what="its cgroups are gone")

    def run(
        self,
        *command: str,
        cwd: str | None = None,
        stdin: IO[bytes] | None = None,
        fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a process in it, which has some descriptors open; wait until it is the command."""
        process = self.start(*command, cwd=cwd, stdin=stdin, fds=fds)
        until(lambda: _command(process.pid) == list(command), what=f"{command} runs")
        return process

    def start(
        self,
        *command: str,
        cwd: str | None = None,
        stdin: IO[bytes] | None = None,
        fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """As :meth:`run`, without waiting."""
        words = ["sh", "-c", f'{self._join()} exec "$@"', "sh", *command]
        process = subprocess.Popen(words, cwd=cwd, stdin=stdin, pass_fds=fds)
        self._processes.append(process)
        return process

    def run_in_namespace(self, script: str, root: str) -> subprocess.Popen[bytes]:
        """Start a shell script in it, in a mount namespace of its own; it ends with exec sleep.

        Args:
            script: has the root as "$0".
            root: of the container, where the host sees it.
        """
        words = ["unshare", "--mount", "sh", "-ec", script, root]
        process = self.start(*words)
        until(lambda: _command(process.pid)[:1] == ["sleep"], what=f"{script} is done")
        return process

    def mounted(self, process: subprocess.Popen[bytes], path: str) -> bool:
        """Whether something is mounted at the end of a path, in a process's mount namespace."""
        return any(mount.target.endswith(f"/{path}") for mount in mountinfo.read(str(process.pid)))

    def kill(self, *, thaw: bool = True) -> None:
        """Kill what was started in it, and reap; a cgroup of version 2 lets die what is frozen."""
        for process in self._processes:
            process.kill()
        if thaw:
            self.thaw()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def adopt(self, pid: int) -> None:
        """Put a process into it."""
        for directory in self._directories():
            _write(f"{directory}/cgroup.procs", str(pid))

    def freeze(self, *, version: int) -> None:
        """Freeze it, as somebody else would, and wait until it is."""
        if version == 1:
            _write(f"{self.version1}/freezer.state", "FROZEN")
            until(lambda: _read(f"{self.version1}/freezer.state") == "FROZEN", what="it freezes")
        else:
            _write(f"{self.version2}/cgroup.freeze", "1")
            until(lambda: "frozen 1" in _read(f"{self.version2}/cgroup.events"), what="it freezes")

    def thaw(self) -> None:
        """Thaw it, by both versions."""
        if self.version1:
            _write(f"{self.version1}/freezer.state", "THAWED")
        if self.version2:
            _write(f"{self.version2}/cgroup.freeze", "0")

    def frozen(self) -> list[int]:
        """By which versions it was told to be frozen."""
        found = []
        if self.version1 and _read(f"{self.version1}/freezer.self_freezing") == "1":
            found.append(1)
        if self.version2 and _read(f"{self.version2}/cgroup.freeze") == "1":
            found.append(2)
        return found

    def _directories(self) -> list[str]:
        return [directory for directory in (self.version2, self.version1) if directory]

    def _join(self) -> str:
        return "".join(f"echo $$ >{directory}/cgroup.procs;" for directory in self._directories())


def _command(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return os.fsdecode(file.read()).split("\0")[:-1]


def _removed(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except OSError:
        return not os.path.exists(directory)
    return True


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
