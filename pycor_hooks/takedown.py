# SPDX-License-Identifier: GPL-3.0-or-later
"""Take down one overlay: its bind on the rootfs, its mount on the host, its record.

The hooks take down what their own start put up, the watcher what a dead start left behind, and
pre-start whatever stands in its way. All do it under the overlay's lock, in the order that lets
a later try finish what a kill interrupted: the state file goes last.

What is on the rootfs is so in the monitor's mount namespace, all else in the host's.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import errno
import os
import time

from pycor_hooks import instance, kernel, layer, mountinfo, namespaces
from pycor_hooks.errors import BadState, NotOurs, StillHeld
from pycor_hooks.overlay import SOURCE, staged_in, unstage
from pycor_hooks.record import Record, read
from pycor_hooks.registry import LOCK_TIMEOUT, Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycor_hooks.namespaces import Place

STALE = "stale"
"""Beside the state file: what of the container could not be converged with its base."""
_BUSY_RETRY = 0.5


def own(directory: str, monitor: int) -> Record | None:
    """Take down an overlay if the start that belongs to a monitor put it up.

    Args:
        directory: the overlay's, below RUN.
        monitor: pid of the [lxc monitor] whose hook is running.

    Returns:
        What was known of it; None where there is none, or another start's that is in use.
    """
    if not kernel.exists(directory):
        return None
    with Lock(directory):
        record = known(directory)
        mine = (monitor, instance.process_start(monitor))
        if record and (record.monitor, record.monitor_start) != mine and not _unused(record):
            record = None
        if record:
            place = namespaces.of_process(monitor)
            everything(directory, record.rootfs, *places(place, record))
        remove_directory(directory)
        return record


def orphan(record: Record, *, timeout: float = LOCK_TIMEOUT) -> bool:
    """Take down an overlay whose container is gone without its hooks having run.

    Args:
        record: as it was when somebody looked; it is read again under the lock.
        timeout: seconds to wait for the lock.

    Returns:
        Whether it did; False where the container lives, or another start has taken over.

    Raises:
        StillHeld: a process of the host works in the overlay, so it cannot be unmounted;
            or a hook holds its lock.
    """
    with Lock(record.directory, timeout=timeout):
        now = recorded(record.directory)
        dead = now is not None and _unused(now)
        if now and dead:
            everything(record.directory, now.rootfs, namespaces.recorded(now.namespace))
        remove_directory(record.directory)
        return dead


def again(found: Record) -> Record | None:
    """Read a record again, under the lock of its overlay, which the caller holds.

    Args:
        found: as it was when somebody looked.

    Returns:
        As it is now; None where another start has taken over, or none.
    """
    try:
        now = read(found.directory)
    except FileNotFoundError:
        remove_directory(found.directory)  # the lock may have made it anew
        return None
    same = (now.monitor, now.monitor_start) == (found.monitor, found.monitor_start)
    return now if same else None


def gone(record: Record) -> bool:
    """Whether neither the monitor nor the init of the recorded start lives any more.

    What has process 1 as its monitor was recorded by a hook whose monitor had died.
    """
    monitor = record.monitor, record.monitor_start
    return not (
        (record.monitor != instance.REAPER and instance.process_alive(*monitor))
        or instance.process_alive(record.init, record.init_start)
    )


def _unused(record: Record) -> bool:
    """Whether the recorded start is gone, and no process lives in its overlay all the same.

    A state file that somebody else wrote may name any process.
    """
    return gone(record) and not inhabited(record.merged)


def inhabited(merged: str) -> bool:
    """Whether a process lives in the overlay that is mounted there, whatever is recorded."""
    from pycor_hooks import lost  # noqa: PLC0415 - the hooks' usual way does without

    mount = lost.our_mounts(mountinfo.read()).get(merged)
    return mount is not None and bool(lost.inhabitant(mount.device))


def places(place: Place, record: Record | None) -> list[Place]:
    """The mount namespaces in which something of ours may be on a container's rootfs.

    Args:
        place: the monitor's.
        record: of the start that is taken down, maybe an earlier one in another namespace.
    """
    if record is None or record.namespace == place.identity:
        return [place]
    return [place, namespaces.recorded(record.namespace)]


def everything(directory: str, rootfs: str, *places: Place) -> None:
    """Unmount one overlay and forget it; the caller holds its lock, and keeps its directory.

    Removing the mount point is a part of it: that detaches the copies of the mount which other
    mount namespaces hold, private ones too (mount_namespaces(7), "Restrictions on mount
    namespaces"), and with the last of them the upper is free again.

    Args:
        directory: the overlay's, below RUN.
        rootfs: where it, or what is staged for it, may still be bound; "" where that is not known,
            or it is used elsewhere.
        places: the mount namespaces in which that may be.

    Raises:
        NotOurs: something else is mounted where the overlay belongs.
        StillHeld: a process of the host works in the overlay.
    """
    merged = f"{directory}/merged"
    unstage(directory)
    for place in places:
        detach_binds(directory, rootfs, place)
    while kernel.is_mount_root(merged):
        if kernel.fs_magic(merged) != kernel.OVERLAYFS_SUPER_MAGIC:
            raise NotOurs(path=merged)
        _unmount(merged)
    for place in places:
        _tidy(rootfs, place)
    _remove_all_but_state(directory)
    _unlink(f"{directory}/state")


def _tidy(rootfs: str, place: Place) -> None:
    if not rootfs:
        return
    own = f"{os.path.dirname(rootfs)}/overlay"
    try:
        load(own, place)
        with place:
            layer.tidy(own)
    except (OSError, BadState):
        pass  # the next start tries again, and says why not


def load(own: str, place: Place) -> None:
    """Import what :func:`pycor_hooks.layer.tidy` needs, if it will, where it can be imported.

    Args:
        own: ``overlay`` in a volume, as ``place`` has it; the caller holds the overlay's lock.
        place: the monitor's mount namespace.
    """
    if place.identity:
        with place:
            needed = any(layer.holds(own, name) for name in (layer.CURE, layer.PARENTS))
        if needed:
            from pycor_hooks import journal, parents  # noqa: F401, PLC0415


def _remove_all_but_state(directory: str) -> None:
    for path in (f"{directory}/merged", f"{directory}/empty", *staged_in(directory)):
        _rmdir(path)
    for name in (".state", STALE, f".{STALE}"):
        _unlink(f"{directory}/{name}")


def detach_binds(directory: str, rootfs: str, place: Place) -> None:
    """Lazily detach from a container's rootfs what is ours; leave mounts that are not.

    Args:
        directory: the overlay's, below RUN.
        rootfs: as ``place`` has it.
        place: the monitor's mount namespace.
    """
    merged = f"{directory}/merged"
    staged = _inode(directory)
    device = kernel.statx(merged).dev if kernel.is_mount_root(merged) else None
    with place:
        while kernel.is_mount_root(rootfs) and (
            _inode(rootfs) == staged or _is_overlay(rootfs, device)
        ):
            kernel.umount(rootfs, kernel.MNT_DETACH)


def is_ours(rootfs: str, merged: str) -> bool:
    """Whether what is mounted at ``rootfs`` is the overlay of ``merged``, or another of ours."""
    device = kernel.statx(merged).dev if kernel.is_mount_root(merged) else None
    return _is_overlay(rootfs, device)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = kernel.statx(path)
    except FileNotFoundError:
        return None
    return found.dev, found.ino


def _is_overlay(rootfs: str, device: int | None) -> bool:
    """Whether the overlay is mounted there: by its device, else by the name of its source."""
    if device is not None:
        return kernel.statx(rootfs).dev == device
    mounts = [mount for mount in mountinfo.read() if mount.target == rootfs]
    return bool(mounts) and (mounts[-1].fstype, mounts[-1].source) == ("overlay", SOURCE)


def _unmount(merged: str) -> None:
    """Unmount for good, never lazily: a second overlay on an upper that lives on corrupts it."""
    deadline = time.monotonic() + _BUSY_RETRY
    while True:
        try:
            kernel.umount(merged)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > deadline:
                raise StillHeld(
                    path=merged,
                    holder="a process of the host, or a mount below it",
                    remedy=f"see which with: fuser -vm {merged}; findmnt -R {merged}",
                ) from error
            time.sleep(0.02)
        else:
            return


def remove_directory(directory: str) -> None:
    """Remove an overlay's directory, and its daemon's, where no record is left in them.

    What a start left that was killed before it had recorded anything goes with them.
    """
    if not kernel.exists(f"{directory}/state"):
        _remove_all_but_state(directory)
    _rmdir(directory)
    _rmdir(os.path.dirname(directory))


def _rmdir(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY}:
            raise


def _unlink(path: str) -> None:
    if kernel.exists(path):
        os.unlink(path)


def recorded(directory: str) -> Record | None:
    """What is recorded of an overlay; None where there is no record, or none that can be read."""
    try:
        return read(directory)
    except (FileNotFoundError, NotADirectoryError, BadState):
        return None


def known(directory: str) -> Record | None:
    """What is recorded of an overlay, or what its mount tells; None where it is not mounted."""
    record = recorded(directory)
    if record is None and kernel.is_mount_root(f"{directory}/merged"):
        from pycor_hooks import lost  # noqa: PLC0415 - a rare need

        record = lost.find(directory)
    return record
