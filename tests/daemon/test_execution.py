# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in containers by the daemon's exec API, and what a container may do about them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from lab import processes
from lab.wait import until
from pycor_hooks import execution
from pycor_hooks.client import Connection
from pycor_hooks.execution import Done
from pycor_hooks.host_errors import DaemonRefused, ExecFailed
from pycor_hooks.sockets import Daemon

if TYPE_CHECKING:
    from lab.overlays import Overlays


def run(overlays: Overlays, *words: str, timeout: float = 10, name: str = "web1") -> Done:
    """Run a command in the container."""
    with Connection(Daemon(overlays.daemon.kind, overlays.daemon.directory)) as connection:
        return execution.run(connection, name, words, timeout=timeout)


def test_execution(overlays: Overlays) -> None:
    """Status and output arrive, words as they are; what is endless ends, and is killed."""
    web1 = overlays.launch("web1")
    web1.wait_listening()
    assert run(overlays, "sh", "-c", "echo out; echo bad >&2; exit 7") == Done(7, "out\n", "bad\n")
    words = ("$(reboot); echo", "*", "--", "a\nb")
    assert run(overlays, "printf", "<%s>", *words).output == "<$(reboot); echo><*><--><a\nb>"
    assert run(overlays, "printf", r"\377\033").output == "\\xff\x1b"
    assert len(run(overlays, "seq", "100000").output) == 588895
    with pytest.raises(ExecFailed, match=r"nosuch -x in web1: .*not found"):
        run(overlays, "nosuch", "-x", "y")
    with pytest.raises(ExecFailed, match="yes in web1: it wrote more than 1048576 bytes"):
        run(overlays, "yes")
    began = time.monotonic()
    with pytest.raises(ExecFailed, match="sleep 4321 in web1: it has not ended within 1 s"):
        run(overlays, "sleep", "4321", timeout=1)
    assert time.monotonic() - began < 7
    until(
        lambda: not {"yes", "sleep 4321"} & {row.command for row in processes.table()},
        what="both are killed",
    )
    web1.stop(force=True)
    with pytest.raises(DaemonRefused, match=r"refused to change instances/web1/exec: .*running"):
        run(overlays, "true")
    with pytest.raises(DaemonRefused):
        run(overlays, "true", name="nobody")
