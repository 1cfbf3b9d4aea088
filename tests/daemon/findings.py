# SPDX-License-Identifier: GPL-3.0-or-later
"""What `pycor-hooks doctor` finds, as cases ask about it: all of it, or quickly one theme."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pycor_hooks.doctor import containers, inventory
from pycor_hooks.doctor.check import Check
from pycor_hooks.doctor.examine import Order, examine_one
from pycor_hooks.sockets import find_daemons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lab.overlays import Overlays
    from pycor_hooks.doctor.inventory import House


def doctor(overlays: Overlays, *words: str) -> tuple[int, list[Check]]:
    """The exit status of `pycor-hooks doctor`, and its rows."""
    done = overlays.pycor_hooks("doctor", "--format=json", *words, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, [Check(**row) for row in json.loads(done.stdout)]


def faults(found: Iterable[Check]) -> dict[tuple[str, str], Check]:
    """The rows that are not ok, by check and subject."""
    return {(one.name, one.subject): one for one in found if one.state != "ok"}


def theme(overlays: Overlays, check: Callable[[House], Iterable[Check]]) -> list[Check]:
    """What one theme finds in the daemon of this case."""
    (daemon,) = find_daemons([overlays.daemon.directory])
    with ExitStack() as stack:
        return list(check(inventory.look(daemon, stack)))


def of_containers(house: House) -> Iterator[Check]:
    """That theme, for all containers."""
    return containers.check(house, house.containers)


def explained(overlays: Overlays, name: str, project: str = "default") -> list[Check]:
    """What is said of one container."""
    found = find_daemons([overlays.daemon.directory])
    order = Order(found, [overlays.daemon.directory], overlays.prefix, sure=True, fix=False)
    return list(examine_one(order, project, name))


def complaints(found: Iterable[Check], subject: str) -> dict[str, tuple[str, str]]:
    """State and cause of what is wrong with one subject, by check."""
    return {
        name: (one.state, one.cause) for (name, of), one in faults(found).items() if of == subject
    }
