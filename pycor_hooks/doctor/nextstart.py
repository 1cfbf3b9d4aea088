# SPDX-License-Identifier: GPL-3.0-or-later
"""What would happen if a container were started now: pre-start's own checks, and a trial mount.

The trial takes the base as it is, by the ids that the container has, with an empty upper on the
container's pool. The container's own upper is never mounted to be written: it may start at any
moment, and an upper with two overlays is corrupted.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import kernel, layer, overlay, prestart, record, takedown, tree
from pycor_hooks.doctor import scratch
from pycor_hooks.doctor.check import FAIL, Check, refused
from pycor_hooks.errors import BadState, NotOurs, PycorError
from pycor_hooks.host_errors import NoHooks
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
    places: dict[str, list[Start]] = {}
    for container in containers:
        try:
            start = plan(container)
        except (PycorError, ValueError, OSError) as error:
            yield refused(NAME, container.label, error)
        else:
            places.setdefault(pool_of(start.layers.volume), []).append(start)
    for place, starts in places.items():
        try:
            with scratch.directory(place) as path:
                yield from scratch.apart(lambda: _try_all(starts, path))  # noqa: B023 - run now
        except OSError as error:
            cause = f"nothing can be written to {place} ({error.strerror})"
            yield Check(NAME, place, FAIL, cause, "see to it that it has room")


def pool_of(own: str) -> str:
    """The directory of the pool that a container's own layer is in."""
    return os.path.dirname(os.path.dirname(os.path.dirname(own)))


def plan(container: Container) -> Start:
    """Have pre-start's checks refuse a container's next start, or say what it would mount.

    Raises:
        PycorError, ValueError, OSError: as pre-start would.
    """
    hook = container.hook
    if not hook or not os.access(os.path.join(hook.prefix, tree.LINK, "pre-start"), os.X_OK):
        raise NoHooks(prefix=hook.prefix if hook else "")
    where, base, config = container.where, container.base(), container.config()
    directory, rootfs = record.directory_of(where.daemon, where.key), where.rootfs()
    layers = prestart.check(directory, where, base, rootfs, config)
    if not where.running():
        _refuse_remains(directory, rootfs)
    return Start(container, config, layers)


def _refuse_remains(directory: str, rootfs: str) -> None:
    """Refuse what an earlier start left, where the next one could not take it down."""
    with contextlib.suppress(FileNotFoundError, BadState):
        prestart.await_end(record.read(directory), 0)
    if kernel.is_mount_root(rootfs) and not takedown.is_ours(rootfs, f"{directory}/merged"):
        raise NotOurs(path=rootfs)


def _try_all(starts: list[Start], path: str) -> Iterator[Check]:
    """Mount what each would, equal ones once; in a mount namespace of our own."""
    tried: dict[object, str] = {}
    for number, start in enumerate(starts):
        layers, place = start.layers, f"{path}/{number}"
        key = (layers.lowerdirs[0], layers.lower_map, layers.upper_map, layers.fs_ids)
        if key not in tried:
            os.mkdir(place)
            tried[key] = _try(layers, place)
        wrong = tried[key] or _try_strays(start, f"{place}-view")
        if wrong:
            cause, _, remedy = wrong.partition(": ")
            yield Check(NAME, start.container.label, FAIL, cause, remedy)


def _try(layers: Layers, place: str) -> str:
    """Mount the base with an empty upper; what is wrong with it."""
    lower = layers.lowerdirs[0]
    layer.prepare(place, lower)
    owner = layer.owner(os.path.dirname(layers.volume), lower)
    for name in ("overlay", "overlay/upper", "overlay/work"):
        os.chown(f"{place}/{name}", owner, owner)
    for name in ("empty", "merged", "staging"):
        os.mkdir(f"{place}/{name}")
    trial = overlay.Layers(
        lowerdirs=[lower, *([f"{place}/empty"] if layers.lowerdirs[1:] else [])],
        volume=f"{place}/overlay",
        lower_map=layers.lower_map,
        upper_map=layers.upper_map,
        fs_ids=layers.fs_ids,
        staging=f"{place}/staging",
    )
    try:
        overlay.mount(trial, f"{place}/merged")
    except (PycorError, OSError) as error:
        return str(error).replace(trial.volume, layers.volume)
    return ""


def _try_strays(start: Start, view: str) -> str:
    """Whether what lies in the bare rootfs could go into the container; why not."""
    where, layers = start.container.where, start.layers
    rootfs = where.rootfs()
    if kernel.is_mount_root(rootfs) or not os.listdir(rootfs):
        return ""
    merged = f"{record.directory_of(where.daemon, where.key)}/merged"
    if not kernel.is_mount_root(merged):
        merged = _view(layers, view)
    try:
        prestart.strays_of(where, rootfs, merged, start.config, layers.fs_ids).check()
    except (PycorError, OSError) as error:
        return str(error)
    return ""


def _view(layers: Layers, view: str) -> str:
    """What a stopped container holds, to be read only: its upper is a lowerdir here."""
    upper, lower = f"{layers.volume}/upper", layers.lowerdirs[0]
    if not os.path.isdir(upper):
        return lower
    os.mkdir(view)
    stack = ":".join(escape_layer(path) for path in (upper, lower))
    kernel.mount(overlay.SOURCE, view, "overlay", kernel.MS_RDONLY, f"lowerdir={stack},userxattr")
    return view
