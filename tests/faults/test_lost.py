# SPDX-License-Identifier: GPL-3.0-or-later
"""Records lost under live overlays: the mount table is the truth, no wrong unmount is made."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING, TypeAlias

import pytest

from lab import starts
from lab.overlays import COMMAND
from pycor_hooks import kernel, record, registry
from pycor_hooks.doctor import leaks
from pycor_hooks.doctor.check import OK
from pycor_hooks.host_errors import InUse
from pycor_hooks.live import Records
from pycor_hooks.reconciler import Reconciler
from pycor_hooks.uninstall import check_not_live
from pycor_hooks.watcher import once

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.inhabited import Inhabited
    from lab.tally import Tally

pytestmark = [pytest.mark.host_root, pytest.mark.usefixtures("own_run")]

# -- a state file that is no record


def deleted(path: str) -> None:
    """By somebody who cleans up /run."""
    os.unlink(path)


def emptied(path: str) -> None:
    """By a full /run, say."""
    os.truncate(path, 0)


def truncated(path: str) -> None:
    """At half its length."""
    os.truncate(path, os.stat(path).st_size // 2)


def garbled(path: str) -> None:
    """Every byte another."""
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(0)
        file.write(bytes(255 - octet for octet in data))


def of_a_newer_version(path: str) -> None:
    """As a downgrade finds it."""
    edit(path, "VERSION=1", "VERSION=2")


def of_another(path: str) -> None:
    """Of another container."""
    edit(path, "NAME=web1", "NAME=web2")


def edit(path: str, old: str, new: str) -> None:
    """Replace something in a file in place."""
    with open(path) as file:
        text = file.read()
    assert old in text
    with open(path, "w") as file:
        file.write(text.replace(old, new))


DAMAGES = [deleted, emptied, truncated, garbled, of_a_newer_version, of_another]
every_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
Damage: TypeAlias = "Callable[[str], None]"


def name_of(damage: Damage) -> str:
    """What the table calls it."""
    return f"state file {damage.__name__.replace('_', ' ')} under a live overlay"


@every_damage
def test_a_lost_record_is_made_anew(web: Inhabited, damage: Damage, tally: Tally) -> None:
    """Status shows the overlay, the watcher records and refreshes it, its stop takes it down."""
    assert web.init is not None
    with tally.injected(name_of(damage)):
        damage(f"{web.directory}/state")
        row = web.status()
        assert (row["state"], row["base"], row["pid"]) == ("unrecorded", "base", web.init.pid)
        web.change_base("changed")
        assert once([web.daemon]) == 0
        assert web.sees("changed")
        row = web.status()
        assert (row["state"], row["base"], row["pid"]) == ("mounted", "base", web.init.pid)
        assert row["upperdir"] == web.upper
        assert row["lowerdirs"] == [f"{web.daemon}/storage-pools/pool/containers/base/rootfs"]
        web.stop()
    tally.lost(name_of(damage), starts.left(web))


@every_damage
def test_a_stop_without_a_record(web: Inhabited, damage: Damage, tally: Tally) -> None:
    """With no watcher there, the container's own stop takes the overlay down."""
    with tally.injected(name_of(damage)):
        damage(f"{web.directory}/state")
        web.kill_init()
        assert web.hook("post-stop") == 0
        tally.lost(name_of(damage), starts.left(web))
        web.start()
        web.stop()


def late_post_stop(web: Inhabited) -> None:
    """Run post-stop for another start of the container."""
    late = web.new_monitor()
    assert web.hook("post-stop", monitor=late) == 0
    late.kill()


def test_a_late_post_stop_leaves_an_unrecorded_overlay(web: Inhabited, tally: Tally) -> None:
    """Whose start an overlay without a record is of cannot be told; it is in use, so it stays."""
    name = name_of(deleted)
    with tally.injected(name):
        os.unlink(f"{web.directory}/state")
        late_post_stop(web)
        tally.lost(name, web.wrong_unmounts())
    web.stop()


def test_a_record_that_names_other_processes(web: Inhabited, tally: Tally) -> None:
    """A living container's overlay stays, though its record says that its processes are gone."""
    name = "state file that names other processes"
    with tally.injected(name):
        changed = record.read(web.directory)
        changed.monitor = changed.init = 4194305  # above pid_max
        changed.write()
        assert once([web.daemon]) == 0
        late_post_stop(web)
        assert list(leaks.check_left(leaks.find([web.daemon]), fix=True)) == []
        tally.lost(name, web.wrong_unmounts())
    web.stop()


def test_doctor_beside_an_unrecorded_overlay_in_use(web: Inhabited, tally: Tally) -> None:
    """With the record lost and the monitor killed, doctor --fix leaves what its init lives in."""
    name = name_of(deleted)
    with tally.injected(name):
        os.unlink(f"{web.directory}/state")
        web.kill_monitor()
        assert list(leaks.check_left(leaks.find([web.daemon]), fix=True)) == []
        tally.lost(name, web.wrong_unmounts())
        web.kill_init()
        fixed = list(leaks.check_left(leaks.find([web.daemon]), fix=True))
        assert [(one.state, one.cause) for one in fixed] == [(OK, f"{leaks.OVERLAY}: taken down")]
    assert web.pre_start() == 0
    assert web.hook("post-stop") == 0


def test_a_start_beside_an_unrecorded_overlay_in_use(web: Inhabited, tally: Tally) -> None:
    """Its init is found without a record: the start is refused, and the overlay stays."""
    name = name_of(deleted)
    assert web.init is not None
    with tally.injected(name):
        os.unlink(f"{web.directory}/state")
        web.kill_monitor()
        assert web.pre_start() == 1
        assert f"process {web.init.pid}, the init of an earlier start" in web.log()
        tally.lost(name, web.wrong_unmounts())
    web.kill_init()
    assert web.pre_start() == 0
    assert web.hook("post-stop") == 0


def test_a_start_after_a_killed_one_without_a_record(web: Inhabited, tally: Tally) -> None:
    """Monitor and init killed, record lost, no watcher: the next start is clean."""
    name = name_of(deleted)
    with tally.injected(name):
        os.unlink(f"{web.directory}/state")
        web.kill_init()
        web.kill_monitor()
        assert web.status()["state"] == "orphaned"
        web.start()
        tally.lost(name, web.wrong_unmounts())
        web.stop()


def test_the_watcher_takes_down_an_unrecorded_orphan(web: Inhabited, tally: Tally) -> None:
    """Monitor and init killed, record lost: watch --once leaves nothing."""
    name = name_of(deleted)
    with tally.injected(name):
        os.unlink(f"{web.directory}/state")
        web.kill_init()
        web.kill_monitor()
        assert once([web.daemon]) == 0
        tally.lost(name, starts.left(web))


def test_a_running_watcher_notices(web: Inhabited, tally: Tally) -> None:
    """Between two reconciles, too, the next tick has the overlay again."""
    name = name_of(deleted)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            reconciler = Reconciler(group, Records([web.daemon]))
            await reconciler.reconcile()
            os.unlink(f"{web.directory}/state")
            assert await reconciler.tick() == 1

    with tally.injected(name):
        asyncio.run(scenario())
        assert record.read(web.directory).name == "web1"
    web.stop()


def test_remount_reaches_an_unrecorded_overlay(web: Inhabited, tally: Tally) -> None:
    """By its name, as any other."""
    with tally.injected(name_of(deleted)):
        os.unlink(f"{web.directory}/state")
        web.change_base("changed")
        words = [COMMAND, "remount", "web1", "--daemon", web.daemon]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        assert "web1: its record was lost, and is made anew" in done.stderr
        assert web.sees("changed")
    web.stop()


def test_uninstall_sees_an_unrecorded_overlay(web: Inhabited) -> None:
    """It is live all the same."""
    os.unlink(f"{web.directory}/state")
    with pytest.raises(InUse, match="web1"):
        check_not_live()
    web.stop()


# -- records without a mount


@every_damage
def test_an_unreadable_record_of_nothing_is_swept_up(
    web: Inhabited, damage: Damage, tally: Tally
) -> None:
    """Nothing is mounted there, and no hook is at it: the watcher removes it."""
    name = "state file damaged, of an overlay that is not mounted"
    with tally.injected(name):
        web.kill_init()
        kernel.umount(web.merged)
        damage(f"{web.directory}/state")
        with registry.Lock(web.directory):
            assert once([web.daemon]) == 0
            assert os.path.isdir(web.directory)
        assert once([web.daemon]) == 0
        tally.lost(name, starts.left(web))


def test_a_foreign_mount_in_our_place_stays(web: Inhabited) -> None:
    """What is mounted where an overlay belongs, and is none of ours, nobody touches."""
    web.stop()
    os.makedirs(web.merged)
    kernel.mount("pycor-hooks", web.merged, "tmpfs", 0)
    assert once([web.daemon]) == 0
    assert kernel.is_mount_root(web.merged)
    assert web.status_rows() == []
    kernel.umount(web.merged)
    assert once([web.daemon]) == 0
