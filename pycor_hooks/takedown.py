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

from pycor_hooks import instance, kernel, mountinfo, namespaces
from pycor_hooks.errors import BadState, NotOurs, StillHeld
from pycor_hooks.overlay import SOURCE, STAGED, unstage
from pycor_hooks.record import Record, read
from pycor_hooks.registry import LOCK_TIMEOUT, Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycor_hooks.namespaces import Place

_BUSY_RETRY = 0.5


def own(directory: str, monitor: int) -> Record | None:
    """Take down an overlay if the start that belongs to a monitor put it up.

    Args:
        directory: the overlay's, below RUN.
        monitor: pid of the [lxc monitor] whose hook is running.

    Returns:
        What was recorded of it; None where there is none, or another start's.
    """
    if not os.path.exists(directory):
        return None
    with Lock(directory):
        record = _read(directory)
        mine = (monitor, instance.process_start(monitor))
        if record and (record.monitor, record.monitor_start) != mine:
            record = None
        if record:
            everything(directory, record.rootfs, namespaces.of_process(monitor))
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
        now = _read(record.directory)
        dead = now is not None and gone(now)
        if now and dead:
            everything(record.directory, now.rootfs, namespaces.recorded(now.namespace))
        remove_directory(record.directory)
        return dead


def gone(record: Record) -> bool:
    """Whether neither the monitor nor the init of the recorded start lives any more."""
    return not (
        instance.process_alive(record.monitor, record.monitor_start)
        or instance.process_alive(record.init, record.init_start)
    )


def everything(directory: str, rootfs: str, *places: Place) -> None:
    """Unmount one overlay and forget it; the caller holds its lock, and keeps its directory.

    Removing the mount point is a part of it: that detaches the copies of the mount which other
    mount namespaces hold, private ones too (mount_namespaces(7), "Restrictions on mount
    namespaces"), and with the last of them the upper is free again.

    Args:
        directory: the overlay's, below RUN.
        rootfs: where it, or what is staged for it, may still be bound.
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
    _remove_all_but_state(directory)
    _unlink(f"{directory}/state")


def _remove_all_but_state(directory: str) -> None:
    for name in ("merged", "empty", *STAGED):
        _rmdir(f"{directory}/{name}")
    _unlink(f"{directory}/.state")


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
    if not os.path.lexists(f"{directory}/state"):
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
    if os.path.lexists(path):
        os.unlink(path)


def _read(directory: str) -> Record | None:
    try:
        return read(directory)
    except (FileNotFoundError, BadState):
        return None
