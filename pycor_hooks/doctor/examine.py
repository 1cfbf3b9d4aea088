# SPDX-License-Identifier: GPL-3.0-or-later
"""All checks of a host, or of one container, in the order in which they are shown."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import instance, plan, record, whereabouts
from pycor_hooks.doctor import (
    bases,
    containers,
    explain,
    install,
    inventory,
    kernel,
    leaks,
    limits,
    profiles,
    watching,
)
from pycor_hooks.doctor.check import OK, Check, guarded, refused
from pycor_hooks.doctor.profiles import profiles_of
from pycor_hooks.host_errors import NoDaemon, NotFound
from pycor_hooks.rawlxc import pre_start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pycor_hooks.doctor.inventory import House
    from pycor_hooks.sockets import Daemon

# Where root alone can write, and an upper can be: for a host without a daemon.
_NO_POOL = "/var/lib"


class Order(NamedTuple):
    """What to look at.

    `daemons` found; `directories` that the operator named, None where he left it to us; `prefix`
    of the hooks, `sure` whether he gave it; `fix`: take down what is left behind.
    """

    daemons: Sequence[Daemon]
    directories: list[str] | None
    prefix: str
    sure: bool
    fix: bool


def examine(order: Order) -> Iterator[Check]:
    """Look at the whole host."""
    with ExitStack() as stack:
        houses = [inventory.look(daemon, stack) for daemon in order.daemons]
        if not houses:
            yield refused("daemon", "this host", NoDaemon())
        for house in houses:
            yield check_daemon(house)
        places = [place for house in houses for place in places_of(house)] or [_NO_POOL]
        yield from guarded("overlay", kernel.check(places))
        for prefix in prefixes_of(order, houses):
            yield from guarded("hooks", install.check(prefix, places[0]))
        for house in houses:
            for one in _examine_house(house):
                yield _named_in_full(one, house) if len(houses) > 1 else one
        yield from guarded("limits", limits.check())
        yield from guarded("watcher", watching.check(houses, time.time()))
        yield from guarded(leaks.NAME, leaks.check(order.directories, fix=order.fix))


def _examine_house(house: House) -> Iterator[Check]:
    if not house.trouble:
        yield from guarded("profile", profiles.check(house))
    yield from guarded("base", _with_files(house, bases.check(house)))
    found = containers.check(house, house.containers)
    yield from guarded("containers", _with_files(house, found))


def _with_files(house: House, checks: Iterator[Check]) -> Iterator[Check]:
    """Checks that look at files of a daemon, where it may be the only one that sees them."""
    with whereabouts.shown(house.daemon.directory, apart=plan.apart(house.records) or None):
        yield from checks


def _named_in_full(one: Check, house: House) -> Check:
    """The same with its daemon, of which there are several."""
    directory = house.daemon.directory
    if one.subject.startswith(directory):
        return one
    return one._replace(subject=f"{directory} {one.subject}")


def examine_one(order: Order, project: str, name: str) -> Iterator[Check]:
    """Look at one container, in whichever daemon it is.

    Raises:
        NotFound: in none.
    """
    with ExitStack() as stack:
        houses = [inventory.look(daemon, stack) for daemon in order.daemons]
        found = [
            (house, whose)
            for house in houses
            for whose in [instance.Instance(house.daemon.directory, project, name)]
            if whose.key
            in {one.where.key for one in house.containers} | {one.key for one in house.records}
        ]
        if not found:
            directories = ", ".join(house.daemon.directory for house in houses)
            nobody = instance.Instance("", project, name)
            raise NotFound(name=nobody.label, directories=directories or "any daemon")
        for house, whose in found:
            if house.trouble:
                yield check_daemon(house)
            told = explain.explain(house, whose, time.time())
            yield from guarded("container", _with_files(house, told))
            directory = record.directory_of(whose.daemon, whose.key)
            left = [one for one in leaks.find([whose.daemon]) if one.directory == directory]
            yield from leaks.check_left(left, fix=order.fix)


def check_daemon(house: House) -> Check:
    """Whether a daemon answers; what is not looked at where it does not."""
    name, subject = "daemon", house.daemon.directory
    if house.trouble:
        found = refused(name, subject, house.trouble)
        unseen = "profiles, images and containers that are stopped were not looked at"
        return found._replace(cause=f"{found.cause}: {unseen}")
    server = house.connections[0].server["environment"]
    return Check(name, subject, OK, f"{server['server']} {server['server_version']} answers")


def places_of(house: House) -> list[str]:
    """The pools of a daemon whose file system the host sees, and has something on."""
    home = f"{house.daemon.directory}/storage-pools"
    pools = [f"{home}/{name}" for name in sorted(_list(home))]
    return [
        pool
        for pool in pools
        if any(os.path.isdir(f"{pool}/containers/{n}/rootfs") for n in _list(f"{pool}/containers"))
    ]


def _list(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []


def prefixes_of(order: Order, houses: Sequence[House]) -> list[str]:
    """Where the hooks are that profiles and containers name, and the one that the operator did.

    Where none is named the default one counts, unless a daemon that is down may name another.
    """
    found = set()
    for house in houses:
        hooks = [container.hook for container in house.containers]
        for listed in profiles_of(house).values():
            hooks += [pre_start(each["config"].get("raw.lxc", "")) for each in listed]
        found |= {hook.prefix for hook in hooks if hook}
    told = all(house.trouble is None for house in houses)
    likely = not found and (told or os.path.isdir(order.prefix))
    return sorted(found | ({order.prefix} if order.sure or likely else set()))
