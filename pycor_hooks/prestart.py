# SPDX-License-Identifier: GPL-3.0-or-later
"""pre-start: from LXC_* variables and ``--base`` to a mounted overlay, or a named refusal.

Imported by the pre-start hook: standard library only.
"""

from __future__ import annotations

import os
import time

from pycor_hooks import (
    idmap,
    instance,
    kernel,
    layer,
    namespaces,
    overlay,
    publish,
    takedown,
)
from pycor_hooks.errors import (
    BaseEmpty,
    BaseIsOverlay,
    BaseIsSelf,
    BaseNotFound,
    BaseOwnerMixed,
    BaseReplaced,
    BaseWithoutRootfs,
    MonitorGone,
    NotOurs,
    PycorError,
    RootDiskReadonly,
    RootNotMapped,
    StillHeld,
)
from pycor_hooks.record import Record, directory_of
from pycor_hooks.registry import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycor_hooks.instance import Config, Instance
    from pycor_hooks.namespaces import Place
    from pycor_hooks.strays import Strays

_INIT_TIMEOUT = 3.0


def pre_start(container: Instance, base: Instance, rootfs: str, config: Config) -> None:
    """Mount the container's overlay and bind it on its rootfs.

    Args:
        container: the one that starts.
        base: the one whose rootfs is the lowerdir.
        rootfs: LXC_ROOTFS_PATH, in the container's volume.
        config: from LXC_CONFIG_FILE.

    Raises:
        PycorError: a named refusal; nothing is left mounted then.
    """
    monitor = os.getppid()
    directory = directory_of(container.daemon, container.key)
    place = namespaces.of_process(monitor)
    cleared = False
    with Lock(directory):
        try:
            _clear(directory, rootfs, place)
            cleared = True
            _mount(container, base, rootfs, config, place)
            _check_monitor(container, monitor)
        except BaseException:
            _undo(directory, rootfs, place, began=cleared)
            raise


def _check_monitor(container: Instance, monitor: int) -> None:
    """Refuse what nobody would take down, as the monitor has died meanwhile."""
    if monitor == instance.REAPER or os.getppid() != monitor:
        raise MonitorGone(**container.words())


def _undo(directory: str, rootfs: str, place: Place, *, began: bool) -> None:
    """Leave nothing of a start that failed, and what stood in its way where it has not begun.

    Its own error is the one that has to be told, not one from here.
    """
    try:
        if began:
            takedown.everything(directory, rootfs, place)
        takedown.remove_directory(directory)
    except (OSError, PycorError):
        pass  # post-stop and the next start try again


def _mount(container: Instance, base: Instance, rootfs: str, config: Config, place: Place) -> None:
    directory = directory_of(container.daemon, container.key)
    with place:
        identity = instance.identity_now(base.rootfs())  # earlier than its owner is looked at
        staging = publish.staging(directory, rootfs, place)
        layers = check(staging, container, base, rootfs, config)
        lower = layers.lowerdirs[0]
        layer.prepare(os.path.dirname(rootfs), lower)
        layer.tidy(layers.volume)
    record = _record(container, base, rootfs, lower, identity or "")
    record.namespace = place.identity
    if layers.lowerdirs[1:]:
        os.makedirs(f"{directory}/empty", 0o755, exist_ok=True)
    record.write()
    os.makedirs(record.merged, 0o700, exist_ok=True)

    def fill(merged: str) -> None:
        if instance.identity_now(lower) != identity:
            raise BaseReplaced(base=base.label, path=lower, name=container.label)
        if os.listdir(rootfs):
            strays = strays_of(container, rootfs, merged, config, layers.fs_ids)
            _move_strays(strays, layers.fs_ids)

    publish.mount(layers, record, place, fill)


def check(
    staging: str, container: Instance, base: Instance, rootfs: str, config: Config
) -> overlay.Layers:
    """Refuse a start that cannot be, and tell what it would mount; nothing is changed.

    Args:
        staging: the directory where mapped layers would be staged.
        container, base, rootfs, config: as :func:`pre_start` has them.

    Raises:
        PycorError: a named refusal.
    """
    layer.check_rootfs(rootfs, container)
    if config.readonly:
        raise RootDiskReadonly(**container.words())
    lower = check_base(container, base)
    ids = idmap.from_config(config.idmap)
    volume = os.path.dirname(rootfs)
    layers = overlay.Layers(
        lowerdirs=[lower],
        base_key=base.key,
        volume=f"{volume}/overlay",
        lower_map=ids.layer(os.lstat(lower).st_uid),
        upper_map=ids.layer(layer.owner(volume, lower)),
        fs_ids=_root_of(ids, container, base),
        staging=staging,
    )
    if layer.shares_btrfs(volume, lower):
        layers.lowerdirs.append(f"{staging}/empty")
    return layers


def strays_of(
    container: Instance, rootfs: str, merged: str, config: Config, fs_ids: tuple[int, int]
) -> Strays:
    """What lies in the bare rootfs, and where in the container it goes.

    A daemon that shifts ids on disk records it once it is done (driver_lxc.go of LXD, beside
    "Remapping container filesystem"): killed in between, it shifts the bare rootfs twice, and goes
    on to write its templates as the container's root.
    """
    from pycor_hooks.strays import Strays, create_only_paths  # noqa: PLC0415 - a rare need

    owner = os.lstat(rootfs).st_uid
    ids = idmap.from_config(config.idmap)

    def host_ids(uid: int, gid: int) -> tuple[int | None, int | None]:
        if owner == fs_ids[0]:
            return uid, gid
        stored = ids.uid(uid - owner), ids.gid(gid - owner)
        return fs_ids if owner and None in stored and (uid, gid) == fs_ids else stored

    return Strays(
        name=container.label,
        bare=rootfs,
        merged=merged,
        host_ids=host_ids,
        create_only=create_only_paths(os.path.dirname(rootfs)),
    )


def _move_strays(strays: Strays, fs_ids: tuple[int, int]) -> None:
    """Write them through the overlay as the container's root."""
    kernel.set_fs_ids(*fs_ids)
    try:
        strays.move()
    finally:
        kernel.set_fs_ids(0, 0)


def check_base(container: Instance, base: Instance) -> str:
    """Refuse a base that cannot be one.

    Returns:
        The real path of its rootfs.
    """
    if base.key == container.key:
        raise BaseIsSelf(**base.words())
    volume = base.volume()
    lower = f"{volume}/rootfs"
    if not kernel.exists(volume):
        raise BaseNotFound(base=base.label, path=base.link)
    if not kernel.exists(lower):
        from pycor_hooks import pools  # noqa: PLC0415 - only a refusal pays for it

        driver = pools.driver_of(volume)
        raise BaseWithoutRootfs(path=lower, driver=driver, **base.words())
    layer.check_rootfs(lower, base)
    if kernel.exists(f"{volume}/overlay"):
        raise BaseIsOverlay(base=base.label, path=f"{volume}/overlay")
    with os.scandir(lower) as entries:
        if next(entries, None) is None:
            raise BaseEmpty(base=base.label, path=lower)
    _check_owner(base, lower)
    return lower


def _check_owner(base: Instance, lower: str) -> None:
    """Refuse a base whose root directory does not tell by which ids it is stored.

    Its map is taken from that owner; one that root in the base has changed would shift them all.
    """
    root = os.lstat(lower)
    owners = {root.st_uid, root.st_gid}
    for name in ("etc", "usr"):
        if kernel.exists(f"{lower}/{name}"):
            owners.add(os.lstat(f"{lower}/{name}").st_uid)
    if len(owners) > 1:
        raise BaseOwnerMixed(base=base.label, uid=root.st_uid, gid=root.st_gid)


def _root_of(ids: idmap.IdMap, container: Instance, base: Instance) -> tuple[int, int]:
    """The container's root as host ids, which new files of its upper are created as."""
    uid, gid = ids.uid(0), ids.gid(0)
    if uid is None or gid is None:
        kind = "user" if uid is None else "group"
        raise RootNotMapped(name=container.label, base=base.label, kind=kind)
    return uid, gid


def _clear(directory: str, rootfs: str, place: Place) -> None:
    """Take down what an earlier start left, once its init is dead; leave what is not ours."""
    earlier = takedown.known(directory)
    own = f"{os.path.dirname(rootfs)}/overlay"
    takedown.load(own, place)
    with place:
        settled = layer.settle(own)
    if settled and earlier and kernel.is_mount_root(earlier.merged):
        overlay.refresh(earlier.merged)
    if earlier:
        await_end(earlier, _INIT_TIMEOUT)
    if os.listdir(directory):
        known_rootfs = earlier.rootfs if earlier and earlier.rootfs else rootfs
        takedown.everything(directory, known_rootfs, *takedown.places(place, earlier))
    with place:
        foreign = kernel.is_mount_root(rootfs)
    if foreign:
        takedown.detach_binds(directory, rootfs, place)
        with place:
            if kernel.is_mount_root(rootfs):
                raise NotOurs(path=rootfs)


def await_end(earlier: Record, timeout: float) -> None:
    """Wait until the init of an earlier start is dead, else two would write to one upper.

    Raises:
        StillHeld: it lives on after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while instance.process_alive(earlier.init, earlier.init_start):
        if time.monotonic() > deadline:
            raise StillHeld(
                path=earlier.upperdir,
                holder=f"process {earlier.init}, the init of an earlier start",
                remedy=f"end it with: kill -9 {earlier.init}",
            )
        time.sleep(0.05)


def _record(container: Instance, base: Instance, rootfs: str, lower: str, identity: str) -> Record:
    monitor = os.getppid()
    own = f"{os.path.dirname(rootfs)}/overlay"
    return Record(
        daemon=container.daemon,
        project=container.project,
        name=container.name,
        base_project=base.project,
        base_name=base.name,
        lowerdirs=[lower],
        upperdir=f"{own}/upper",
        workdir=f"{own}/work",
        rootfs=rootfs,
        lower_identity=identity,
        converged=instance.generation_of(base.daemon, base.key, identity),
        monitor=monitor,
        monitor_start=instance.process_start(monitor),
        init=0,
        init_start=0,
        started_at=time.time(),
    )
