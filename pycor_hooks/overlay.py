# SPDX-License-Identifier: GPL-3.0-or-later
"""An overlay: mount it, map the ids of its layers, refresh it, take it down.

The options and their reasons: the kernel allows the lower tree to change while the overlay is
not mounted only without index, metacopy and redirects (Documentation/filesystems/overlayfs.rst,
"Changes to underlying filesystems"), so each is spelled out, whatever the distribution's
defaults; and userxattr keeps the mark of an opaque directory in an attribute that survives
copies made without CAP_SYS_ADMIN.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import errno
import os
import time

from pycor_hooks import kernel
from pycor_hooks.errors import (
    HostLimit,
    LayerReadonly,
    MountFailed,
    NoIdmappedMounts,
    NoSpace,
    NotOurs,
)
from pycor_hooks.kernellog import KernelLog
from pycor_hooks.mountinfo import escape_layer

SOURCE = "pycor-hooks"
STAGED_LOWER = "lower."
_STAGED = ("volume", "probe")
_TRIES = 3
_PAUSE = 0.05
_OPTIONS = "index=off,metacopy=off,redirect_dir=nofollow,xino=off,userxattr"
_HINTS = {
    errno.EINVAL: "the kernel refused an option or a layer; the kernel log (dmesg) says which",
    errno.ENODEV: "the kernel has no OverlayFS: modprobe overlay",
    errno.ENOENT: "one of these directories is missing",
    errno.EPERM: "the daemon runs without CAP_SYS_ADMIN here",
}


class Layers:
    """The directories of one overlay.

    Attributes:
        lowerdirs: the uppermost first.
        base_key: the name of the first one's instance as liblxc knows it. The mount table shows
            it, in the path of the staged layer, where the ids are mapped.
        volume: the directory that holds ``upper`` and ``work``, in the container's volume.
        lower_map, upper_map: texts for (uid_map, gid_map), from on-disk id to host id; None
            where the ids are the host's already.
        fs_ids: the container's root as (uid, gid) on the host.
        staging: a directory of ours for short-lived mounts of mapped layers.
    """

    __slots__ = (
        *("base_key", "fs_ids", "lower_map", "lowerdirs", "staging", "upper_map", "volume"),
    )

    def __init__(  # noqa: PLR0913 - all by keyword, and each a fact of its own
        self,
        *,
        lowerdirs: list[str],
        base_key: str,
        volume: str,
        lower_map: tuple[str, str] | None,
        upper_map: tuple[str, str] | None,
        fs_ids: tuple[int, int],
        staging: str,
    ) -> None:
        self.lowerdirs = lowerdirs
        self.base_key = base_key
        self.volume = volume
        self.lower_map = lower_map
        self.upper_map = upper_map
        self.fs_ids = fs_ids
        self.staging = staging


def options(lowerdirs: list[str], volume: str) -> str:
    """The data for mount(2)."""
    lower = ":".join(escape_layer(path) for path in lowerdirs)
    own = escape_layer(volume)
    return f"lowerdir={lower},upperdir={own}/upper,workdir={own}/work,{_OPTIONS}"


def mount(layers: Layers, merged: str) -> None:
    """Mount an overlay and make sure that it can be written.

    Args:
        layers: what to mount.
        merged: an empty directory, where nothing is mounted yet.

    Raises:
        NoIdmappedMounts: a layer needs its ids mapped and cannot have them.
        HostLimit: there is no room for another user namespace, or mount.
        NoSpace, LayerReadonly, StillHeld, MountFailed: as they say. Nothing is left mounted then.
    """
    volume, lowerdirs = layers.volume, list(layers.lowerdirs)
    userns: dict[tuple[str, str], int] = {}
    try:
        if layers.upper_map:
            volume = _stage(layers.volume, f"{layers.staging}/volume", layers.upper_map, userns)
        if layers.lower_map:
            target = f"{layers.staging}/{STAGED_LOWER}{layers.base_key}"
            lowerdirs[0] = _stage(lowerdirs[0], target, layers.lower_map, userns)
        # The kernel makes work/work as the mounter, who has to be one whom every map holds.
        kernel.set_fs_ids(*layers.fs_ids)
        _mount(lowerdirs, volume, merged, layers)
    finally:
        kernel.set_fs_ids(0, 0)
        for descriptor in userns.values():
            os.close(descriptor)
        unstage(layers.staging)


def _mount(lowerdirs: list[str], volume: str, merged: str, layers: Layers) -> None:
    try:
        _mount_alone(lowerdirs, volume, merged, layers)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(path=layers.volume, error=error.strerror) from error
        raise MountFailed(
            error=error.strerror,
            lowerdir=":".join(layers.lowerdirs),
            upperdir=f"{layers.volume}/upper",
            hint=_HINTS.get(error.errno or 0, "the kernel log (dmesg) may say more"),
        ) from error
    if not kernel.is_mount_root(merged) or kernel.fs_magic(merged) != kernel.OVERLAYFS_SUPER_MAGIC:
        raise NotOurs(path=merged)
    if os.statvfs(merged).f_flag & os.ST_RDONLY:  # which mount(2) does not call a failure
        kernel.umount(merged)
        raise LayerReadonly(path=merged, upperdir=f"{layers.volume}/upper")


def _mount_alone(lowerdirs: list[str], volume: str, merged: str, layers: Layers) -> None:
    """Mount, unless another overlay holds the upper.

    A complaint in the log may be about anybody's mount, or forged: it is a reason to look closer.
    """
    data = options(lowerdirs, volume)
    with KernelLog() as log:
        kernel.mount(SOURCE, merged, "overlay", 0, data)
        if not log.may_tell_of_a_shared_upper():
            return
    kernel.umount(merged)
    from pycor_hooks import held  # noqa: PLC0415 - only a complaint needs it

    for _ in range(_TRIES):
        if not held.is_held(f"{volume}/upper", f"{layers.staging}/probe"):
            kernel.mount(SOURCE, merged, "overlay", 0, data)
            return
        time.sleep(_PAUSE)
    raise held.error(f"{layers.volume}/upper", f"{volume}/upper")


def _stage(
    path: str, target: str, id_map: tuple[str, str], userns: dict[tuple[str, str], int]
) -> str:
    """Mount ``path`` at ``target`` with its ids mapped; one user namespace serves equal maps."""
    os.makedirs(target, 0o700, exist_ok=True)
    try:
        if id_map not in userns:
            userns[id_map] = user_namespace(*id_map)
        tree = kernel.open_tree_clone(path)
        try:
            kernel.idmap_tree(tree, userns[id_map])
            kernel.move_mount(tree, target)
        finally:
            os.close(tree)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP}:
            raise NoIdmappedMounts(path=path, error=error.strerror) from error
        if error.errno in {errno.ENOSPC, errno.EUSERS}:
            raise HostLimit(error=error.strerror) from error
        raise
    return target


def unstage(staging: str) -> None:
    """Detach what :func:`mount` staged, also what one that was killed left behind."""
    for path in staged_in(staging):
        while kernel.is_mount_root(path):
            kernel.umount(path, kernel.MNT_DETACH)


def staged_in(directory: str) -> list[str]:
    """Mount points in an overlay's directory that have a use only while it is being mounted."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        f"{directory}/{name}" for name in names if name in _STAGED or name.startswith(STAGED_LOWER)
    ]


def user_namespace(uid_map: str, gid_map: str) -> int:
    """A new user namespace with these maps, which lives as long as the descriptor is open.

    Args:
        uid_map, gid_map: lines of ``inside outside count``, as user_namespaces(7) has them.
    """
    holding, release = os.pipe()
    child = kernel.clone_into_userns()
    if child == 0:
        try:
            os.close(release)
            os.read(holding, 1)
        finally:  # whatever happens: it must never go on as a second hook
            os._exit(0)
    try:
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            descriptor = os.open(f"/proc/{child}/{name}", os.O_WRONLY)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(release)
        os.close(holding)
        os.waitpid(child, 0)


def refresh(merged: str) -> None:
    """Make a mounted overlay see its lower tree as it is now.

    mount(2) with MS_REMOUNT drops the unused dentries of the file system before OverlayFS is
    asked (reconfigure_super in fs/super.c); util-linux's ``mount -o remount`` goes another way
    and fails.

    Raises:
        OSError: EINVAL where nothing is mounted at ``merged``.
    """
    kernel.mount("", merged, "", kernel.MS_REMOUNT)
