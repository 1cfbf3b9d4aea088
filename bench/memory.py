# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watcher holds resident, with 300 overlays live and two daemons that do not answer.

Run as ``python -m bench.memory``, as root.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from bench.figures import write
from bench.hook import start_of_live
from lab import mounts
from lab.liblxc import Container, make_base
from pycor_hooks import takedown

OVERLAYS = 300
SETTLE_TICKS = 3


def resident_kib(pid: int) -> dict[str, int]:
    """VmRSS now and VmHWM, the most that it ever was (proc_pid_status(5))."""
    with open(f"/proc/{pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file if line.startswith("Vm"))
    return {name: int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM")}


def ready_watcher(daemon: str, notify: str) -> subprocess.Popen[bytes]:
    """Start the watcher, and wait until it says READY=1 (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(notify)
        listener.settimeout(30)
        command = os.path.join(os.path.dirname(sys.executable), "pycor-hooks")
        watcher = subprocess.Popen(
            [command, "watch", "--daemon", daemon], env={**os.environ, "NOTIFY_SOCKET": notify}
        )
        while b"READY=1" not in listener.recv(4096):
            pass
    return watcher


def main() -> None:
    """Measure after the first reconcile and a few ticks."""
    mounts.enter_own()
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        make_base(root)
        containers = [Container(root, f"web{number}") for number in range(OVERLAYS)]
        for container in containers:
            start_of_live(container)
        watcher = ready_watcher(root, f"{root}/notify")
        time.sleep(2 * SETTLE_TICKS)
        figures = {"overlays": OVERLAYS, "watcher_kib": resident_kib(watcher.pid)}
        watcher.send_signal(signal.SIGTERM)
        watcher.wait()
        for container in containers:
            takedown.own(container.directory, os.getpid())
    write("memory", figures)


if __name__ == "__main__":
    main()
