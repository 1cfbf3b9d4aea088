# SPDX-License-Identifier: GPL-3.0-or-later
"""Overlays hidden below another mount: found in the mount table, and brought back."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lab import starts
from pycor_hooks import hidden, kernel, mountinfo, record
from pycor_hooks.live import Records
from pycor_hooks.reconciler import Reconciler
from pycor_hooks.watcher import once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.inhabited import Inhabited
    from lab.tally import Tally

pytestmark = [pytest.mark.host_root, pytest.mark.usefixtures("own_run")]

FAULT = "tmpfs mounted over /run"


@contextmanager
def another_run(tally: Tally, web: Inhabited) -> Iterator[None]:
    """A new tmpfs on /run, as a careless script or a service's set-up mounts one."""
    with tally.injected(FAULT):
        kernel.mount("another", "/run", "tmpfs", 0, "mode=0755")
        try:
            assert not os.path.exists(web.merged)
            yield
            (top,) = [mount for mount in mountinfo.read() if mount.source == "another"]
            tally.lost(FAULT, [] if kernel.mount_id("/run") == top.mount_id else ["that tmpfs"])
        finally:
            kernel.umount("/run", kernel.MNT_DETACH)
    tally.lost(FAULT, starts.left(web))


def test_a_hidden_overlay_is_brought_back(web: Inhabited, tally: Tally) -> None:
    """Status shows it, the watcher mounts it where it belongs, with its record."""
    before = record.read(web.directory)
    with another_run(tally, web):
        row = web.status()
        assert (row["state"], row["base"]) == ("unrecorded", "base")
        web.change_base("changed")
        assert once([web.daemon]) == 0
        assert web.sees("changed")
        assert web.status()["state"] == "mounted"
        assert record.read(web.directory).monitor == before.monitor
        tally.lost(FAULT, web.wrong_unmounts())
        web.stop()
        web.start()
        web.stop()


def test_a_hidden_overlay_without_a_record(web: Inhabited, tally: Tally) -> None:
    """Both at once are mended at once."""
    os.unlink(f"{web.directory}/state")
    with another_run(tally, web):
        assert once([web.daemon]) == 0
        assert web.status()["state"] == "mounted"
        web.stop()


def test_a_stop_finds_the_hidden_overlay(web: Inhabited, tally: Tally) -> None:
    """With no watcher there, the container's own stop takes it down."""
    with another_run(tally, web):
        web.stop()
        tally.lost(FAULT, starts.left(web))
        web.start()
        web.stop()


def test_a_start_over_a_hidden_orphan(web: Inhabited, tally: Tally) -> None:
    """The start says what is in the way and what to do, and that helps."""
    with another_run(tally, web):
        web.kill_init()
        web.kill_monitor()
        assert web.pre_start() == 1
        assert "hidden below another mount: pycor-hooks watch --once" in web.log()
        assert once([web.daemon]) == 0
        web.start()
        web.stop()


def test_a_running_watcher_notices_that_an_overlay_is_hidden(web: Inhabited, tally: Tally) -> None:
    """The next tick has it back."""

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            reconciler = Reconciler(group, Records([web.daemon]))
            await reconciler.reconcile()
            with another_run(tally, web):
                assert await reconciler.tick() == 1
                assert web.status()["state"] == "mounted"
                web.stop()
            assert await reconciler.tick() == 0

    asyncio.run(scenario())


def test_what_lies_deeper_is_found_too(web: Inhabited, tally: Tally) -> None:
    """Hidden below several mounts, one of them on /run/pycor-hooks alone."""
    kernel.mount("on ours", record.RUN, "tmpfs", 0)
    with another_run(tally, web):
        assert once([web.daemon]) == 0
        assert web.sees("os-release")
        assert web.status()["state"] == "mounted"
        web.stop()
    kernel.umount(record.RUN)


def test_a_hidden_overlay_that_is_unmounted_meanwhile() -> None:
    """A stop may come first: that is an error with a path, which nobody else trips over."""
    with pytest.raises(FileNotFoundError, match="/nowhere/merged"):
        hidden._uncover("/nowhere/merged", "0:0")
