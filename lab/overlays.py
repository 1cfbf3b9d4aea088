# SPDX-License-Identifier: GPL-3.0-or-later
"""A base and containers on it, set up by the commands that an operator would use."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from lab import images

if TYPE_CHECKING:
    from lab.client import Client, Instance
    from lab.daemon import Daemon

COMMAND = os.path.join(os.path.dirname(sys.executable), "pycor-hooks")


class Overlays:
    """Containers on one base: ``overlays.launch("web1")``."""

    def __init__(self, daemon: Daemon, base: str) -> None:
        """Speak of the base called ``base``; :meth:`install` or :meth:`profile` makes the rest."""
        self.daemon = daemon
        self.prefix = daemon.prefix
        self.client: Client = daemon.client
        self.base: Instance = self.client.instance(base)
        self.image = "overlay" if base == "base" else f"overlay-{base}"

    def launch(self, name: str, *words: str) -> Instance:
        """``lxc launch overlay NAME``, with further words of that command."""
        return self.client.launch(self.image, name, *words)

    def init(self, name: str, *words: str) -> Instance:
        """``lxc init overlay NAME``, with further words of that command."""
        return self.client.init(self.image, name, *words)

    def pycor_hooks(
        self, *words: str, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``pycor-hooks`` on this daemon alone."""
        return subprocess.run(
            [COMMAND, *words],
            env=self.daemon.env,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout_s,
        )

    def install(self) -> None:
        """Put the hooks into the private prefix; make profile and image of this base."""
        self.pycor_hooks(
            "install", "--no-systemd", "--prefix", self.prefix, "--base", self.base.name
        )


def import_busybox(client: Client, directory: str) -> None:
    """Give the daemon the image ``busybox``."""
    path = os.path.join(directory, "busybox.tar")
    images.busybox(path)
    client("image", "import", path, "--alias", "busybox")
    os.unlink(path)


def make_base(client: Client, image: str, name: str) -> Instance:
    """A base as it is in life: created, started once, stopped."""
    base = client.launch(image, name)
    if os.path.islink(os.path.join(base.rootfs, "usr/sbin/init")):  # systemd, not our script
        base.wait_booted()  # earlier it does not hear that it shall stop
    base.stop()
    base.wait("Stopped")
    return base
