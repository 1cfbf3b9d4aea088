# SPDX-License-Identifier: GPL-3.0-or-later
"""A container, without a daemon, whose init lives in its overlay as a real one's does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from lab.apart import Apart
from lab.images import BUSYBOX
from lab.liblxc import Container, make_base
from lab.overlays import COMMAND
from lab.wait import until


class Inhabited(Container):
    """One whose init has its root directory in its overlay, in a mount namespace of its own."""

    def start(self) -> None:
        """pre-start, an init in the overlay, start-host."""
        assert self.pre_start() == 0, self.log()
        inside = ["unshare", "--mount", "--propagation=private", "chroot", self.merged]
        self.init = subprocess.Popen([*inside, "/usr/bin/busybox", "sleep", "infinity"])
        device = os.stat(self.merged).st_dev
        root = f"/proc/{self.init.pid}/root"
        until(lambda: os.stat(root).st_dev == device, what="init lives in the overlay")
        assert self.hook("start-host") == 0, self.log()

    def sees(self, name: str) -> bool:
        """Whether its processes see a file in /etc."""
        assert self.init is not None
        return os.path.exists(f"/proc/{self.init.pid}/root/etc/{name}")

    def change_base(self, name: str) -> None:
        """Make a file in the base that the container does not see before a refresh."""
        assert not self.sees(name)
        with open(f"{self.daemon}/containers/{self.base}/rootfs/etc/{name}", "w") as file:
            file.write("new\n")

    def wrong_unmounts(self) -> list[str]:
        """What is wrong where its overlay has to be there still, once and whole."""
        mounts = [mount.target for mount in self.overlays()]
        found = [] if mounts == [self.merged] else [f"mounts: {mounts}"]
        return found if self.sees("os-release") else [*found, "its root is empty"]

    def status_rows(self) -> list[dict[str, Any]]:
        """What ``pycor-hooks status`` shows."""
        words = [COMMAND, "status", "--format=json", "--daemon", self.daemon]
        done = subprocess.run(words, check=False, stdout=subprocess.PIPE)
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def status(self) -> dict[str, Any]:
        """The one row that it shows."""
        (row,) = self.status_rows()
        return row


class InhabitedApart(Apart, Inhabited):
    """The same of a daemon in a mount namespace of its own."""


def make_inhabitable_base(daemon: str) -> str:
    """A base that holds a program; returns its rootfs."""
    base = make_base(daemon)
    shutil.copy(BUSYBOX, f"{base}/usr/bin/busybox")
    return base
