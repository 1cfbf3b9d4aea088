# SPDX-License-Identifier: GPL-3.0-or-later
"""One container from top to bottom: what it stands on, and what its next start would do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pycor_hooks import instance, kernel, live, plan, takedown
from pycor_hooks.doctor import bases, containers, inventory, nextstart
from pycor_hooks.doctor.check import FAIL, OK, WARN, Check, refused
from pycor_hooks.doctor.profiles import check_raw_lxc, names_for, profiles_of
from pycor_hooks.errors import PycorError
from pycor_hooks.host_errors import VolumeAway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.doctor.inventory import Container, House
    from pycor_hooks.instance import Instance
    from pycor_hooks.overlay import Layers
    from pycor_hooks.record import Record


def explain(house: House, whose: Instance, now: float) -> Iterator[Check]:
    """Explain one container, or what stands on it where it is a base.

    Args:
        house: its daemon.
        whose: the container; the daemon has it, or its overlay is live.
        now: seconds since the epoch.
    """
    container = next((one for one in house.containers if one.where.key == whose.key), None)
    recorded = next((one for one in house.records if one.key == whose.key), None)
    for base in inventory.bases(house):
        if base.where.key == whose.key:
            yield _as_base(base)
            yield from bases.check_base(house, base)
            return
    if container:
        yield from check_raw_lxc(container, names_for(container, house, profiles_of(house)))
    if container and not container.hook and not recorded:
        cause = "it stands on no base: raw.lxc names no hooks of pycor-hooks"
        yield Check("base", whose.label, OK, cause)
        return
    if recorded:
        yield from _now(recorded, now)
    else:
        yield Check("overlay", whose.label, OK, "it is stopped: nothing is mounted or recorded")
    if container:
        yield from _next(container)
        yield from containers.check(house, [container], subject=whose.label, some="this one")
    else:
        cause = "what it would do cannot be told while its daemon does not answer"
        yield Check(nextstart.NAME, whose.label, WARN, cause, "start the daemon")


def _as_base(base: inventory.Base) -> Check:
    users = [one.label for one in base.users]
    cause = f"it is a base: of {', '.join(users) or 'no container'}, {len(base.live)} of them live"
    return Check("kind", base.where.label, OK, cause)


def _now(recorded: Record, now: float) -> Iterator[Check]:
    """What is mounted for it, and since when."""
    label = plan.name_of(recorded)
    base = plan.base_of(recorded)
    yield _base(label, recorded, base)
    yield Check(
        "layers",
        label,
        OK,
        f"lowerdir={':'.join(recorded.lowerdirs)} upperdir={recorded.upperdir} "
        f"workdir={recorded.workdir}",
    )
    if kernel.is_mount_root(recorded.merged):
        yield Check(
            "mount", label, OK, f"{recorded.merged}, up for {age(recorded.started_at, now)}"
        )
    else:
        cause = f"nothing is mounted at {recorded.merged}: no refresh reaches it"
        yield Check("mount", label, FAIL, cause, "restart it")
    yield _processes(label, recorded)
    yield Check("refreshed", label, OK, f"{age(recorded.refreshed_at, now)} ago")


def _base(label: str, recorded: Record, base: plan.Base) -> Check:
    found = live.base_state(base)
    if found.identity is None:
        remedy = "it keeps the tree from before until it stops; give it its base back"
        return Check("base", label, FAIL, f"{base} is gone", remedy)
    if found.identity != recorded.lower_identity:
        cause = f"{base} was replaced or re-owned, and it still has the tree from before"
        return Check("base", label, FAIL, cause, "restart it")
    if found.running:
        cause = f"{base}, which runs: its changes may be seen half-done"
        return Check("base", label, WARN, cause, f"stop {base} when the update is done")
    return Check("base", label, OK, f"{base}, which is stopped")


def _processes(label: str, recorded: Record) -> Check:
    if takedown.gone(recorded):
        who = f"monitor {recorded.monitor} and init {recorded.init}"
        if takedown.inhabited(recorded.merged):
            cause = f"{who}, as recorded, are gone, and yet it runs"
            return Check("processes", label, FAIL, cause, "restart it")
        cause = f"{who} are gone, the overlay is not"
        return Check("processes", label, FAIL, cause, "run pycor-hooks doctor --fix")
    if not instance.process_alive(recorded.monitor, recorded.monitor_start):
        cause = f"[lxc monitor] {recorded.monitor} was killed; init {recorded.init} runs on"
        return Check(
            "processes", label, WARN, cause, f"restart it; end with: kill {recorded.init}"
        )
    init = recorded.init or "not started yet"
    return Check("processes", label, OK, f"[lxc monitor] {recorded.monitor}, init {init}")


def _next(container: Container) -> Iterator[Check]:
    """By which ids its next start would mount what."""
    label = container.label
    try:
        start = nextstart.plan(container)
    except VolumeAway:
        return  # as containers.check says of its next start
    except (PycorError, ValueError, OSError) as error:
        yield refused("ids", label, error)  # and so does that
        return
    layers = start.layers
    uid, gid = layers.fs_ids
    cause = (
        f"its root is {uid}:{gid} on the host; the base's files are "
        f"{_stored(layers.lowerdirs[0], layers.lower_map)}, its own "
        f"{_stored(_own(layers), layers.upper_map)}"
    )
    yield Check("ids", label, OK, cause)


def _own(layers: Layers) -> str:
    """Its own layer, or before its first start what that will be owned as."""
    return layers.volume if os.path.isdir(layers.volume) else layers.lowerdirs[0]


def _stored(path: str, layer_map: tuple[str, str] | None) -> str:
    owner = os.lstat(path).st_uid
    if layer_map is None:
        return f"stored from {owner} on, as they are seen"
    extents = layer_map[0].split("\n")[:-1]
    shown = ", ".join("{} as {} ({} ids)".format(*extent.split()) for extent in extents)
    return f"stored from {owner} on, and mapped: {shown}"


def age(moment: float, now: float) -> str:
    """How long ago a moment was, in words."""
    hours, seconds = divmod(max(0, int(now - moment)), 3600)
    return f"{hours} h {seconds // 60} min" if hours else f"{seconds // 60} min {seconds % 60} s"
