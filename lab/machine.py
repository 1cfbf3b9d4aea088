# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with systemd: a container of the private daemon, with as much of the outside as it needs.

It shares the user and network namespace of the private daemon, whose directory it has at the same
path: so its watcher follows that daemon, and can tell which instances run. What it cannot see is
their processes. Containers whose overlays it shall care for are therefore its own, made by
lab.inmate below the daemon's directory, on a base of the daemon.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Self

from lab.client import ClientError
from lab.liblxc import REPOSITORY
from pycor_hooks import record

if TYPE_CHECKING:
    import subprocess

    from lab.overlays import Overlays


class Machine:
    """Entered with ``with``: booted then. It is itself a container on the base, a Debian."""

    def __init__(self, overlays: Overlays, name: str = "machine") -> None:
        """Describe it."""
        self._daemon = overlays.daemon.directory
        self._overlays = overlays
        self._inmates: list[str] = []
        self.instance = overlays.client.instance(name)

    def __enter__(self) -> Self:
        client, name = self._overlays.client, self.instance.name
        raw = client.query(f"/1.0/profiles/{self._overlays.image}")["config"]["raw.lxc"]
        shared = {self._daemon: "rbind", REPOSITORY: "rbind,ro"}
        lines = [
            # `keep` says which namespaces are not made, and user is made otherwise
            "lxc.namespace.keep = net user",
            *(
                f"lxc.mount.entry = {path} {path[1:]} none {how},create=dir 0 0"
                for path, how in shared.items()
            ),
        ]
        self._overlays.init(name, "-c", "security.privileged=true", "-c", "security.nesting=true")
        self.instance.set(**{"raw.lxc": "\n".join([raw, *lines])})
        self.instance.start()
        self.instance.wait_booted()
        self._pid = self.instance.pid
        return self

    def __exit__(self, *_: object) -> None:
        self.instance.delete()
        for name in self._inmates:
            link = os.path.join(self._daemon, "containers", name)
            shutil.rmtree(os.path.realpath(link))
            for path in (link, *glob.glob(f"{self._daemon}/{name}.*")):  # .conf and .log
                os.unlink(path)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it.

        Raises:
            ClientError: it failed, and ``check`` is set.
        """
        done = self.instance.run(*command)
        if check and done.returncode:
            raise ClientError(done)
        return done

    def python(self, code: str) -> str:
        """Run code with the clone's Python and packages; what it prints."""
        return self.run(sys.executable, "-c", code).stdout

    def path(self, path: str) -> str:
        """How a path of it is reached from outside."""
        return f"/proc/{self._pid}/root{path}"

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as ``systemctl show`` has them."""
        shown = self.run("systemctl", "show", unit, f"--property={','.join(properties)}").stdout
        return dict(line.split("=", 1) for line in shown.splitlines())

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Entries that match FIELD=VALUE; a field that is there twice is a list."""
        printed = self.run("journalctl", "--output=json", "--quiet", "--all", *matches).stdout
        return [json.loads(line) for line in printed.splitlines()]

    def start_inmate(self, name: str, *idmap: str) -> str:
        """Start a container on the daemon's base called ``base``; its root, seen from outside.

        Args:
            name: of the container, and of its unit.
            idmap: values of its lxc.idmap lines; none for a privileged one.
        """
        self._inmates.append(name)
        self.run(
            *("systemd-run", "--quiet", f"--unit={name}"),
            *("--property=Type=notify", "--property=KillMode=mixed"),
            *(f"--working-directory={REPOSITORY}", sys.executable, "-B", "-m", "lab.inmate"),
            *(self._daemon, name, *idmap),
        )
        return self.path(f"{record.directory_of(self._daemon, name)}/merged")
