# SPDX-License-Identifier: GPL-3.0-or-later
"""install, upgrade, downgrade, uninstall, on a real daemon."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lab import live, tree
from lab.wait import until
from pycor_hooks import share
from pycor_hooks.tree import current, versions
from tests.daemon.holdings import held

if TYPE_CHECKING:
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays

NOTHING = "everything is installed already; nothing changed\n"


def _install(overlays: Overlays, package: str = "") -> str:
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


def everything(overlays: Overlays) -> list[Any]:
    """All that install makes, to the byte, and all else that the daemon holds."""
    base = overlays.client.query(f"/1.0/instances/{overlays.base.name}")
    return [tree.describe(overlays.prefix), base, *held(overlays.client)]


def test_install_twice(overlays: Overlays) -> None:
    """Run again, install says that nothing changed, and hooks, profile and image are the same."""
    before = everything(overlays)
    assert _install(overlays) == NOTHING
    again = overlays.pycor_hooks("install", "--no-systemd", "--prefix", overlays.prefix + "/")
    assert (again.stdout, again.stderr) == (NOTHING, "")
    assert everything(overlays) == before


@pytest.mark.usefixtures("reinstalled")
def test_upgrade_and_downgrade(overlays: Overlays, tmp_path: Path) -> None:
    """No start and no stop fails while install goes two versions up and back again."""
    packages = [_version(tmp_path, number) for number in ("98.0", "99.0")]
    first = current(overlays.prefix)
    assert first is not None
    old = overlays.launch("web0")
    webs = [overlays.init(name) for name in ("web1", "web2")]
    rounds = dict.fromkeys((web.name for web in webs), 0)
    ended = threading.Event()

    def start_and_stop(web: Instance) -> None:
        while not ended.is_set():
            web.start()
            web.exec("true")
            web.stop(force=True)
            web.wait("Stopped")
            rounds[web.name] += 1

    seen = [first]
    with ThreadPoolExecutor() as pool:
        loops = [pool.submit(start_and_stop, web) for web in webs]
        try:
            for package in (*packages, ""):
                now = seen[-1]
                assert f", after {now}\n" in _install(overlays, package)
                seen.append(str(current(overlays.prefix)))
                assert {now, seen[-1]} <= set(versions(overlays.prefix))
                goal = {name: number + 1 for name, number in rounds.items()}
                until(
                    partial(_reached, rounds, goal, loops),
                    what="each has started and stopped meanwhile",
                )
        finally:
            ended.set()
        for loop in loops:
            loop.result()
    assert [name.partition("-")[0] for name in seen[1:-1]] == ["98.0", "99.0"]
    assert seen[-1] == first
    old.stop()  # the version that started it was away for a while
    until(lambda: not live.mounts(overlays), what="all overlays are gone")
    assert not [web for web in (old, *webs) if " pycor-hooks - " in web.log()]


def _reached(rounds: dict[str, int], goal: dict[str, int], loops: list[Any]) -> bool:
    return any(loop.done() for loop in loops) or all(rounds[web] >= goal[web] for web in goal)
