# SPDX-License-Identifier: GPL-3.0-or-later
"""A base whose tree is exchanged while a container on it starts, or runs."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lab.liblxc import Monitor
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.liblxc import Container

HELD_UP = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", "trace=mount"]
HELD_UP += ["-e", "inject=mount:delay_enter=1s:when=1"]


def replace(base: str) -> None:
    """Put a copy in the place of the tree, as a restored snapshot is."""
    shutil.copytree(base, f"{base}.new", symlinks=True)
    os.rename(base, f"{base}.old")
    os.rename(f"{base}.new", base)


def delete(base: str) -> None:
    """Take the tree away."""
    os.rename(base, f"{base}.old")


@pytest.mark.host_root
@pytest.mark.parametrize(
    ("exchange", "answer"),
    [(replace, "base base was deleted, replaced or re-owned at "), (delete, "is missing")],
)
def test_between_look_and_mount(
    web: Container, base: str, exchange: Callable[[str], None], answer: str
) -> None:
    """The start is refused by name, and nothing stays mounted; the next one is right."""
    monitor = Monitor()
    command, env = web.command("pre-start", "--base", "base")
    with ThreadPoolExecutor() as pool:
        start = pool.submit(monitor.run, " ".join([*HELD_UP, *command]), env)
        until(lambda: os.path.exists(f"{web.directory}/state"), what="it is about to mount")
        exchange(base)
        assert start.result() == 1
    monitor.kill()
    assert answer in web.log()
    assert web.overlays() == []
    if exchange is replace:
        web.start()
        web.stop()


@pytest.mark.parametrize("exchange", [replace, delete])
def test_while_it_runs(web: Container, base: str, exchange: Callable[[str], None]) -> None:
    """The container's log says so when it stops; one whose base stayed has nothing to say."""
    web.start()
    web.stop()
    assert web.log() == ""
    web.start()
    exchange(base)
    web.stop()
    (line,) = web.log().splitlines()
    assert "WARN     pycor-hooks - stop: base base was deleted, replaced or re-owned at" in line
