# SPDX-License-Identifier: GPL-3.0-or-later
"""pycor-hooks is upgraded and downgraded while containers start and stop in a loop."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import pytest

from lab import sound
from lab.churn import our_log
from lab.wait import until
from pycor_hooks import share
from pycor_hooks.tree import current, versions

if TYPE_CHECKING:
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally

FAULT = "pycor-hooks upgraded, downgraded while containers start and stop"


def _install(overlays: Overlays, package: str) -> str:
    """What install says; of the code in ``package``, or of this clone."""
    words = ["install", "--no-systemd", "--prefix", overlays.prefix]
    if not package:
        return overlays.pycor_hooks(*words).stdout
    code = "from pycor_hooks.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        env={**overlays.daemon.env, "PYTHONPATH": package},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


def _version(directory: Path, number: str) -> str:
    """The code of this clone as another version of it."""
    package = directory / number
    for part in ("pycor_hooks", "hooks", "lxd-profiles", "systemd"):
        source = share.PACKAGE if part == "pycor_hooks" else share.path_of(part)
        shutil.copytree(source, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    init = package / "pycor_hooks" / "__init__.py"
    init.write_text(init.read_text() + f'\n__version__ = "{number}"\n')
    return str(package)


class Loops:
    """Containers that start and stop, each in a thread of its own, until the block ends."""

    def __init__(self, webs: list[Instance]) -> None:
        self._rounds = dict.fromkeys((web.name for web in webs), 0)
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(len(webs))
        self._running = [self._pool.submit(self._start_and_stop, web) for web in webs]

    def _start_and_stop(self, web: Instance) -> None:
        while not self._ended.is_set():
            web.start()
            web.exec("true")
            web.stop(force=True)
            web.wait("Stopped")
            self._rounds[web.name] += 1

    def wait_round(self) -> None:
        """Wait until each has started and stopped once more; or one has failed."""
        goal = {name: number + 1 for name, number in self._rounds.items()}
        until(
            lambda: (
                any(loop.done() for loop in self._running)
                or all(self._rounds[name] >= goal[name] for name in goal)
            ),
            what="each has started and stopped meanwhile",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        for loop in self._running:
            loop.result()


@pytest.mark.usefixtures("reinstalled")
def test_upgrade_and_downgrade(
    overlays: Overlays, tmp_path: Path, tally: Tally, *, soak: bool
) -> None:
    """No start and no stop fails while install goes two versions up and back again."""
    packages = [_version(tmp_path, number) for number in ("98.0", "99.0")]
    first = current(overlays.prefix)
    assert first is not None
    old = overlays.launch("web0")
    webs = [overlays.init(f"web{number}") for number in range(1, 5 if soak else 3)]
    for _ in range(8 if soak else 1):
        seen = [first]
        with Loops(webs) as loops:
            for package in (*packages, ""):
                now = seen[-1]
                with tally.injected(FAULT):
                    assert f", after {now}\n" in _install(overlays, package)
                    seen.append(str(current(overlays.prefix)))
                    assert {now, seen[-1]} <= set(versions(overlays.prefix))
                    loops.wait_round()
        assert [name.partition("-")[0] for name in seen[1:-1]] == ["98.0", "99.0"]
        assert seen[-1] == first
        tally.lost(FAULT, sound.settled(overlays))
    old.stop()  # the version that started it was away for a while
    said = [line for web in (old, *webs) for line in our_log(web)]
    tally.lost(FAULT, [*sound.settled(overlays), *said])
