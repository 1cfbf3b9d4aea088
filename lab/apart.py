# SPDX-License-Identifier: GPL-3.0-or-later
"""A container, without a daemon, as one of a daemon in a mount namespace of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from lab.liblxc import Container, Monitor
from pycor_hooks import mountinfo
from pycor_hooks.sockets import GUEST_SOCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEEPER = f"""
import os, signal, socket, sys
listening = socket.socket(socket.AF_UNIX)
if sys.argv[1]:
    os.makedirs(os.path.dirname(path := f"{{sys.argv[1]}}/{GUEST_SOCKETS["lxd"]}"), exist_ok=True)
    listening.bind(path)
    listening.listen()
print(flush=True)
signal.pause()
"""


class Apart(Container):
    """A container whose monitor is in the mount namespace of the process ``keeper``.

    Its hooks are led to our own namespace first, as a profile leads them to process 1's.
    """

    def __init__(self, daemon: str, name: str, keeper: int) -> None:
        super().__init__(daemon, name)
        self.keeper = keeper

    def new_monitor(self) -> Monitor:
        """A monitor there."""
        return Monitor(["nsenter", f"--mount=/proc/{self.keeper}/ns/mnt", "--"])

    def command(self, hook: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """The words of a hook line that leads to the host first."""
        words, env = super().command(hook, *arguments)
        return ["nsenter", f"--mount=/proc/{os.getpid()}/ns/mnt", "--", *words], env

    def mounts_elsewhere(self) -> list[str]:
        """What of ours is mounted in the daemon's namespace."""
        places = (self.rootfs, f"{self.directory}/")
        mounts = mountinfo.read(str(self.keeper))
        return [mount.target for mount in mounts if mount.target.startswith(places)]


@contextlib.contextmanager
def namespace(daemon: str = "") -> Iterator[int]:
    """A private copy of our mount namespace, and the process that keeps it as a daemon would.

    Args:
        daemon: the state directory of the daemon that it stands for, by whose socket it is found;
            "" for none.
    """
    command = ["unshare", "--mount", "--propagation=private", sys.executable, "-c", _KEEPER]
    with subprocess.Popen([*command, daemon], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()
