# SPDX-License-Identifier: GPL-3.0-or-later
"""A base that changes its nature while containers on it start: a right overlay, or a named error.

Never an empty root: a container that runs sees all of its base, or `status` tells that it does
not; one that does not run has a line in its log that says why. While a daemon is still deleting
the base file by file, that may be liblxc's own line, about the init which has gone already.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lab import live, sound
from lab.churn import our_log
from lab.wait import until
from tests.daemon.content import restore_snapshot, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally

VERSION = "usr/share/app/version"
OLD = "old\n"  # in the base before it is replaced or restored; the image has "1"
NO_INIT = 'No such file or directory - Failed to exec "/sbin/init"'


# -- what is done to the base, and what brings it back


def _delete(base: Instance) -> None:
    base.client("delete", base.name)


def _copy(base: Instance) -> None:
    """Make it anew; it may be deleted, as the others."""
    base.client("copy", "base", base.name, "-c", "security.protection.delete=false")


def _replace(base: Instance) -> None:
    _delete(base)
    _copy(base)


def _restore(base: Instance) -> None:
    restore_snapshot(base, "before")


def _rename(base: Instance) -> None:
    base.client("rename", base.name, f"{base.name}-away")


def _rename_back(base: Instance) -> None:
    base.client("rename", f"{base.name}-away", base.name)


def _start_and_stop(base: Instance) -> None:
    base.start()
    base.stop(force=True)
    base.wait("Stopped")


def _give_other_ids(base: Instance) -> None:
    """Where the daemon may not map ids, it gives the base's files to others at its start."""
    base.set(**{"security.privileged": "true"})
    _start_and_stop(base)


def _nothing(_base: Instance) -> None:
    """It is there still."""


class Fault(NamedTuple):
    """What is done to a base."""

    what: str
    strike: Callable[[Instance], None]
    mend: Callable[[Instance], None] = _nothing


FAULTS = [
    Fault("deleted", _delete, _copy),
    Fault("renamed", _rename, _rename_back),
    Fault("replaced", _replace),
    Fault("restored", _restore),
    Fault("re-owned", _give_other_ids),
    Fault("started", _start_and_stop),
]


# -- containers on it


class Group:
    """A base of its own, and the containers that start on it."""

    def __init__(self, overlays: Overlays, fault: Fault, count: int) -> None:
        self.fault = fault
        self.overlays = overlays
        self.base = overlays.client.instance(f"base-{fault.what}")
        _copy(self.base)
        take_snapshot(self.base, "before")
        with open(os.path.join(self.base.rootfs, VERSION), "r+", encoding="ascii") as file:
            file.truncate()
            file.write(OLD)
        profile = overlays.client.query(f"/1.0/profiles/{overlays.image}")
        hooks = profile["config"]["raw.lxc"].replace("--base base", f"--base {self.base.name}")
        self.webs = [
            overlays.init(f"{fault.what}-{number}", "-c", f"raw.lxc={hooks}")
            for number in range(count)
        ]

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"base {self.fault.what} while containers on it start"

    def start(self, pool: ThreadPoolExecutor, *, after: int) -> None:
        """Start all of them, and strike once some have started."""
        commands = [
            pool.submit(self.overlays.client, "start", web.name, check=False) for web in self.webs
        ]
        until(lambda: sum(command.done() for command in commands) >= after, what="some started")
        self.fault.strike(self.base)
        for command in commands:
            command.result()

    def wrong(self) -> list[str]:
        """Containers that neither run rightly, nor are told, nor say why they do not run."""
        rows = live.status(self.overlays)[1]
        found = []
        for web in self.webs:
            if web.status != "Running":
                log = web.log()
                if not any(self.base.name in line for line in our_log(web)) and NO_INIT not in log:
                    found.append(f"{web.name} does not run, and no hook says why:\n{log}")
            elif web.name not in rows:
                found.append(f"{web.name} runs, and status does not know it")
            elif rows[web.name]["state"] == "mounted" and not self._is_right(web):
                found.append(f"{web.name} is called mounted, and does not see its base")
        return found

    def _is_right(self, web: Instance) -> bool:
        """Whether a container sees what the base holds now."""
        if not os.path.isdir(self.base.rootfs):
            return False
        with open(os.path.join(self.base.rootfs, VERSION), encoding="ascii") as file:
            version = file.read()
        listed = web.run("ls", "-A", "/").stdout.split()
        return web.run("cat", f"/{VERSION}").stdout == version and set(
            os.listdir(self.base.rootfs)
        ) <= set(listed)

    def start_anew(self) -> None:
        """What `status` and the log tell an operator to do, once the base is there again."""
        self.fault.mend(self.base)
        states = live.states(self.overlays)
        for web in self.webs:
            if states.get(web.name) == "detached":
                web.restart(force=True)
            elif web.name not in states:
                web.start()

    def not_mounted(self) -> list[str]:
        """Containers that do not run on their base as it is now."""
        states = live.states(self.overlays)
        return [
            f"{web.name} is {states.get(web.name)}"
            for web in self.webs
            if states.get(web.name) != "mounted" or not self._is_right(web)
        ]


@pytest.mark.takes_base_away
@pytest.mark.usefixtures("watcher")
def test_base(overlays: Overlays, tally: Tally, seed: int, *, soak: bool) -> None:
    """Deleted, renamed, replaced, restored, re-owned, started: right, or named, and curable."""
    random = Random(f"{seed}:base")
    if soak:
        rounds = [[fault] for fault in FAULTS]
    else:  # where a refusal takes LXD 30 s, only those after which all can start
        rounds = [FAULTS[3:] if overlays.daemon.kind == "lxd" else FAULTS]
    for faults in rounds:
        groups = [Group(overlays, fault, 20 if soak else 3) for fault in faults]
        with ThreadPoolExecutor(40) as pool:
            strikes = [
                pool.submit(_strike, group, tally, pool, random.randrange(len(group.webs)))
                for group in groups
            ]
            for strike in strikes:
                strike.result()
        for group in groups:
            tally.lost(group.name, _in_time(group.wrong))
        with ThreadPoolExecutor(len(groups)) as pool:
            list(pool.map(Group.start_anew, groups))
        left = sound.settled(overlays)
        for group in groups:
            tally.lost(group.name, [*left, *_in_time(group.not_mounted)])
            names = [web.name for web in group.webs]
            overlays.client("delete", "--force", *names, group.base.name)


def _strike(group: Group, tally: Tally, pool: ThreadPoolExecutor, after: int) -> None:
    with tally.injected(group.name):
        group.start(pool, after=after)


def _in_time(complaints: Callable[[], list[str]]) -> list[str]:
    """Wait until there are none, as the watcher may have to act; or return what there are."""
    try:
        until(lambda: not complaints(), what="none", timeout_s=5)
    except TimeoutError:
        return complaints()
    return []
