# SPDX-License-Identifier: GPL-3.0-or-later
"""``pycor-hooks watch`` as a process, with the lab in the place of systemd."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Self

from lab.overlays import COMMAND
from lab.processes import Usage
from lab.wait import until
from pycor_hooks import pulse

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from lab.daemon import Daemon


class Process:
    """Entered with ``with``: it is ready then."""

    def __init__(
        self,
        environ: Mapping[str, str],
        log: str,
        *,
        words: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        """Describe a watcher.

        Args:
            environ: in which it runs; LXD_DIR or INCUS_DIR tells whom it follows.
            log: a path for its log.
            words: further ones of its command line.
            prefix: a command that runs it, such as setpriv(1) with what it wants.
        """
        self._environ = environ
        self._log = log
        self._command = [*prefix, COMMAND, "watch", *words]

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
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._systemd.bind("")  # the kernel chooses an abstract address (unix(7), "autobind")
        self._address = self._systemd.getsockname()
        ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=(ready,))
        self._listener.start()
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**self._environ, "NOTIFY_SOCKET": "@" + self._address[1:].decode()},
                stdout=log,
                stderr=log,
            )
        if not ready.wait(10):
            self.kill()
            raise TimeoutError(f"the watcher is not ready: {self.log()}")

    def _listen(self, ready: threading.Event) -> None:
        """Read what systemd would, until an empty message, which is our own."""
        for message in iter(lambda: self._systemd.recv(4096), b""):
            if b"READY=1" in message:
                ready.set()

    @property
    def pid(self) -> int:
        """Of the process, which has to run."""
        return self._process.pid

    @property
    def usage(self) -> Usage:
        """What the process holds now; it has to run."""
        return Usage.of(self._process.pid)

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
        pulse.hide()
        if self._listener.is_alive():
            self._systemd.sendto(b"", self._address)
            self._listener.join()
            self._systemd.close()

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


class Watcher(Process):
    """On a private daemon, which has to run: it follows that when it is entered."""

    def __init__(
        self, daemon: Daemon, name: str = "watcher", *, prefix: Sequence[str] = ()
    ) -> None:
        """Describe a watcher; two at once have different names."""
        log = os.path.join(daemon.world.directory, f"{daemon.kind}-{name}.log")
        super().__init__(daemon.env, log, words=["--debug"], prefix=prefix)

    def start(self) -> None:
        """Start the process, and wait until it hears the daemon."""
        super().start()
        self.wait_log("following its events")
