# SPDX-License-Identifier: GPL-3.0-or-later
"""``pycor-hooks watch`` as a process on a private daemon, with the lab in the place of systemd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Self

from lab.overlays import COMMAND
from lab.wait import until

if TYPE_CHECKING:
    from types import TracebackType

    from lab.daemon import Daemon


class Watcher:
    """Entered with ``with``: it is ready then, and follows the daemon, which has to run."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._log = os.path.join(daemon.world.directory, f"{daemon.kind}-watcher.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process, with a log of its own, and wait for READY=1 as systemd does."""
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
            open(self._log, "wb") as log,
        ):
            systemd.bind("")  # the kernel chooses an abstract address (unix(7), "autobind")
            systemd.settimeout(10)
            address = "@" + systemd.getsockname()[1:].decode()
            self._process = subprocess.Popen(
                [COMMAND, "watch", "--debug"],
                env={**self._daemon.env, "NOTIFY_SOCKET": address},
                stdout=log,
                stderr=log,
            )
            while "READY=1" not in systemd.recv(4096).decode():
                pass
        self.wait_log("following its events")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """SIGTERM; its exit status."""
        self._process.terminate()
        return self._process.wait(timeout=5)

    def kill(self) -> None:
        """SIGKILL, as the OOM killer would; nothing where it has ended."""
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        """What this run has logged."""
        with open(self._log, encoding="utf-8") as log:
            return log.read()

    def wait_log(self, text: str, *, timeout_s: float = 10) -> None:
        """Wait until ``text`` is in the log."""
        until(
            lambda: text in self.log(),
            what=f"the watcher logs {text!r}",
            timeout_s=timeout_s,
        )
