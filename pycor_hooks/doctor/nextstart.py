# SPDX-License-Identifier: GPL-3.0-or-later
"""What would happen if a container were started now: pre-start's own checks, and a trial mount.

The trial takes the base as it is, by the ids that the container has, with an empty upper beside
the container's own. That one is never mounted to be written: the container may start at any
moment, and an upper with two overlays is corrupted.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import journal, kernel, layer, overlay, pools, prestart, record, takedown, tree
from pycor_hooks.doctor import scratch
from pycor_hooks.doctor.check import WARN, Check, refused
from pycor_hooks.errors import BadState, NotOurs, PycorError
from pycor_hooks.host_errors import NoHooks, VolumeAway
from pycor_hooks.mountinfo import escape_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycor_hooks.doctor.inventory import Container
    from pycor_hooks.instance import Config
    from pycor_hooks.overlay import Layers

NAME = "next start"


class Start(NamedTuple):
    """A start that pre-start would not refuse: what it would mount, for whom."""

    container: Container
    config: Config
    layers: Layers


def check(containers: Iterable[Container]) -> Iterator[Check]:
    """Name the containers on a base that would not start, and why."""
    tried: dict[object, Check | None] = {}
    for container in containers:
        try:
            start = plan(container)
        except VolumeAway as error:
            yield refused(NAME, container.label, error, WARN)
            continue
        except (PycorError, ValueError, OSError) as error:
            yield refused(NAME, container.label, error)
            continue
        layers, place = start.layers, place_of(start.layers)
        key = (
            *(os.stat(place).st_dev, layers.lowerdirs[0]),
            *(layers.lower_map, layers.upper_map, layers.fs_ids),
        )
        if key not in tried:
            tried[key] = _try(layers, place)
        wrong = tried[key] or _try_strays(start, pool_of(layers.volume))
        if wrong:
            yield wrong._replace(subject=container.label)


def place_of(layers: Layers) -> str:
    """Where to make an upper for a trial: beside the container's own, in its volume."""
    own = layers.volume
    return own if os.path.isdir(own) else pool_of(own)


def pool_of(own: str) -> str:
    """The directory of the pool that a container's own layer is in."""
    return os.path.dirname(os.path.dirname(os.path.dirname(own)))


def plan(container: Container) -> Start:
    """Have pre-start's checks refuse a container's next start, or say what it would mount.

    Raises:
        VolumeAway: it cannot be told.
        PycorError, ValueError, OSError: as pre-start would.
    """
    hook = container.hook
    if not hook or not os.access(os.path.join(hook.prefix, tree.LINK, "pre-start"), os.X_OK):
        raise NoHooks(prefix=hook.prefix if hook else "")
    where, base, config = container.where, container.base(), container.config()
    directory, rootfs = record.directory_of(where.daemon, where.key), where.rootfs()
    if not kernel.exists(rootfs):
        raise VolumeAway(path=rootfs, driver=pools.driver_of(os.path.dirname(rootfs)))
    layers = prestart.check(directory, where, base, rootfs, config)
    if not where.running():
        _refuse_remains(directory, rootfs)
        journal.check(layers.volume)  # while it runs, one is that of a cure under way
    return Start(container, config, layers)


def _refuse_remains(directory: str, rootfs: str) -> None:
    """Refuse what an earlier start left, where the next one could not take it down."""
    with contextlib.suppress(FileNotFoundError, BadState):
        prestart.await_end(record.read(directory), 0)
    if kernel.is_mount_root(rootfs) and not takedown.is_ours(rootfs, f"{directory}/merged"):
        raise NotOurs(path=rootfs)


def _try(layers: Layers, place: str) -> Check | None:
    """Mount the base with an empty upper; what is wrong with it."""
    try:
        with scratch.directory(place) as path:
            found = scratch.apart(lambda: _mount(layers, path))
    except OSError as error:
        return refused(NAME, "", layer.explained(error, layers.volume))
    return found[0] if found else None


def _mount(layers: Layers, path: str) -> Iterator[Check]:
    """In a mount namespace of our own."""
    lower = layers.lowerdirs[0]
    layer.prepare(path, lower)
    owner = layer.owner(os.path.dirname(layers.volume), lower)
    for name in ("overlay", "overlay/upper", "overlay/work"):
        os.chown(f"{path}/{name}", owner, owner)
    for name in ("empty", "merged", "staging"):
        os.mkdir(f"{path}/{name}")
    trial = overlay.Layers(
        lowerdirs=[lower, *([f"{path}/empty"] if layers.lowerdirs[1:] else [])],
        base_key=layers.base_key,
        volume=f"{path}/overlay",
        lower_map=layers.lower_map,
        upper_map=layers.upper_map,
        fs_ids=layers.fs_ids,
        staging=f"{path}/staging",
    )
    try:
        overlay.mount(trial, f"{path}/merged")
    except (PycorError, OSError) as error:
        found = refused(NAME, "", error)
        yield found._replace(cause=found.cause.replace(trial.volume, layers.volume))


def _try_strays(start: Start, pool: str) -> Check | None:
    """Whether what lies in the bare rootfs could go into the container; why not."""
    rootfs = start.container.where.rootfs()
    try:
        if kernel.is_mount_root(rootfs) or not os.listdir(rootfs):
            return None
        with scratch.directory(pool) as path:
            found = scratch.apart(lambda: _check_strays(start, rootfs, path))
    except OSError as error:
        return refused(NAME, "", error)
    return found[0] if found else None


def _check_strays(start: Start, rootfs: str, path: str) -> Iterator[Check]:
    """In a mount namespace of our own."""
    where, layers = start.container.where, start.layers
    merged = f"{record.directory_of(where.daemon, where.key)}/merged"
    if not kernel.is_mount_root(merged):
        merged = _view(layers, path)
    try:
        prestart.strays_of(where, rootfs, merged, start.config, layers.fs_ids).check()
    except (PycorError, OSError) as error:
        yield refused(NAME, "", error)


def _view(layers: Layers, view: str) -> str:
    """What a stopped container holds, to be read only: its upper is a lowerdir here."""
    upper, lower = f"{layers.volume}/upper", layers.lowerdirs[0]
    if not os.path.isdir(upper):
        return lower
    stack = ":".join(escape_layer(path) for path in (upper, lower))
    kernel.mount(overlay.SOURCE, view, "overlay", kernel.MS_RDONLY, f"lowerdir={stack},userxattr")
    return view
