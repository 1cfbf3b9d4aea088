# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restart can do about old code: which units may be restarted blindly; no I/O."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pycor_hooks.oldcode import Found, Runner

MANAGER = "init.scope"
"""The unit in which systemd itself runs (systemd.special(7))."""

# Services that take sessions or the network along, and such as were started for once:
# override_rc of needrestart 3.6, and the gettys of containers.
_NOT_BLINDLY = re.compile(
    r"dbus|gdm|kdm|nodm|sddm|wdm|xdm|lightdm|slim|lxdm"
    r"|bird|network|NetworkManager|ModemManager|wpa_supplicant|openvpn|quagga|frr|tinc"
    r"|(open|free|libre|strong)swan|bluetooth"
    r"|(serial-|container-)?getty@.+\.service|console-getty\.service|user@\d+\.service"
    r"|zfs-fuse|mythtv-backend|xendomains|lxcfs|libvirt|virtlogd|virtlockd|docker"
    r"|(emergency|rescue|apt-daily|apt-daily-upgrade|unattended-upgrades|rc-local)\.service$"
    r"|elogind|cron-.*\.service$|systemd-logind"
)


class Way(Enum):
    """How a process comes to the new code."""

    RESTART = "restart"
    REEXEC = "reexec"
    CONTAINER = "container"
    NONE = "none"


class Plan(NamedTuple):
    """What is to be done in one container.

    `units`: to be restarted. `reexec`: whether its systemd executes itself anew. `container`:
    who else comes to the new code with a restart of the container only. `held`: who would run
    the old code again, as a lookup in the container still gives it.
    """

    units: list[str]
    reexec: bool
    container: list[str]
    held: list[str]


def way(runner: Runner) -> Way:
    """How a process comes to the new code; NONE where a restart would find the old one again."""
    if not (runner.gone or runner.scripts):
        return Way.NONE
    if runner.unit == MANAGER:
        return Way.REEXEC
    if runner.unit is None or not runner.unit.endswith(".service"):
        return Way.CONTAINER
    return Way.CONTAINER if _NOT_BLINDLY.match(runner.unit) else Way.RESTART


def title(runner: Runner) -> str:
    """What people know a process by: its unit, or itself where it has none."""
    return runner.unit or f"{runner.command} ({runner.pid})"


def plan(found: Found) -> Plan:
    """Decide what to do about one container."""
    by_way: dict[Way, dict[str, None]] = {each: {} for each in Way}
    for runner in found.runners:
        by_way[way(runner)][title(runner)] = None
    begins_anew = by_way[Way.RESTART] | by_way[Way.REEXEC] | by_way[Way.CONTAINER]
    return Plan(
        units=sorted(by_way[Way.RESTART]),
        reexec=bool(by_way[Way.REEXEC]),
        container=sorted(by_way[Way.CONTAINER]),
        held=sorted(by_way[Way.NONE].keys() - begins_anew.keys()),
    )
