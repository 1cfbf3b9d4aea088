# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's own layer: ``overlay/upper`` and ``overlay/work`` in its volume.

They lie in the volume so that the daemon's copy, snapshot, export, move and delete carry them
along. The container sees upper as its root directory, and nothing above it. Beside them::

    cure/       the journal of a cure that is under way, or was interrupted (journal.py)
    parents     which directories of upper a cure has copied up (parents.py)

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import errno
import os
import stat

from pycor_hooks import kernel
from pycor_hooks.errors import BadLayer, BadRootfs, LayerReadonly, NoSpace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycor_hooks.instance import Instance

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFLNK: "a symlink",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
}
CURE = "cure"
PARENTS = "parents"


def owner(volume: str, lower: str) -> int:
    """Who owns a container's own layer, or will once it is made.

    The owner of ``overlay``, which the container cannot reach, tells for good by which ids upper
    is stored; at first those of the base.

    Args:
        volume: the directory of the container's volume.
        lower: the base's rootfs.

    Returns:
        The user id that the container's root is stored as.

    Raises:
        BadLayer: one of the directories is something else, or a part of them is missing.
    """
    own = f"{volume}/overlay"
    if not kernel.exists(own):
        return os.lstat(lower).st_uid
    for path in (own, f"{own}/upper", f"{own}/work"):
        _check(path)
    return os.lstat(own).st_uid


def prepare(volume: str, lower: str) -> None:
    """Make a container's own layer, and see whether it takes what is written.

    Args:
        volume, lower: as :func:`owner` has them, which has found no fault.

    Raises:
        BadLayer: what an earlier try left is not what it should be.
        NoSpace, LayerReadonly: the volume takes no new file.
    """
    own = f"{volume}/overlay"
    try:
        if not kernel.exists(own):
            _make(own, os.lstat(lower))
        _probe(own)
    except OSError as error:
        raise explained(error, own) from error


def _probe(own: str) -> None:
    """Write a file that has no name: it needs an inode and a block, and a kill leaves nothing.

    Making and removing a directory says the same, and takes ext4 half a millisecond longer.
    """
    try:
        file = os.open(own, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # some file systems have no such files: open(2)
            return
        raise
    try:
        os.write(file, b"\0")
    finally:
        os.close(file)


def explained(error: OSError, own: str) -> Exception:
    """What an error means where a container's own layer, ``own``, takes nothing new."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(path=own, error=error.strerror)
    if error.errno == errno.EROFS:
        return LayerReadonly(path=own, upperdir=f"{own}/upper")
    return error


def kind_of(path: str) -> str:
    """What is at a path, in words: one of KINDS, or "missing". A link is a link, not its end."""
    try:
        return KINDS[stat.S_IFMT(os.lstat(path).st_mode)]
    except FileNotFoundError:
        return "missing"


def check_rootfs(path: str, of: Instance) -> None:
    """Refuse a rootfs that is no directory: a link would lead to any place of the host.

    The daemons make directories, but they import what a backup holds.

    Args:
        path: the rootfs of a container or of a base.
        of: the instance.

    Raises:
        BadRootfs: it is something else, or missing.
    """
    kind = kind_of(path)
    if kind != KINDS[stat.S_IFDIR]:
        raise BadRootfs(path=path, kind=kind, **of.words())


def tidy(own: str) -> None:
    """Finish what cures have left in a layer that is not mounted; the caller holds its lock.

    Args:
        own: ``overlay`` in the container's volume.

    Raises:
        BadState: a journal is there that is not one of ours.
        OSError: a file that a cure was about to give back cannot be given back.
    """
    settle(own)
    if holds(own, PARENTS):
        from pycor_hooks.parents import remove  # noqa: PLC0415 - a rare need

        remove(own)


def settle(own: str) -> bool:
    """Finish a cure that was interrupted, and thaw what it froze; as :func:`tidy`.

    Returns:
        Whether there was one: its overlay has to be refreshed, should it live on.
    """
    if not holds(own, CURE):
        return False
    from pycor_hooks import journal  # noqa: PLC0415 - a rare need

    return journal.settle(own)


def holds(own: str, name: str) -> bool:
    """Whether something of ours lies beside upper.

    Not where ``own`` is a link, as an imported volume may have it: that led to another's layer.
    """
    return kind_of(own) == KINDS[stat.S_IFDIR] and kernel.exists(f"{own}/{name}")


def shares_btrfs(volume: str, lower: str) -> bool:
    """Whether volume and lower are two subvolumes on btrfs, which number their inodes alike.

    An empty last lowerdir on another file system then makes OverlayFS number directories itself
    (Documentation/filesystems/overlayfs.rst, "Inode properties").
    """
    return (
        os.lstat(volume).st_dev != os.lstat(lower).st_dev
        and kernel.fs_magic(lower) == kernel.BTRFS_SUPER_MAGIC
        and kernel.fs_magic(volume) == kernel.BTRFS_SUPER_MAGIC
    )


def _make(own: str, base: os.stat_result) -> None:
    """Make all of it under another name, so that a kill leaves either nothing or the whole."""
    new = f"{own}.new"
    for path, mode in (
        (new, 0o700),
        (f"{new}/upper", stat.S_IMODE(base.st_mode)),
        (f"{new}/work", 0o700),
    ):
        _make_directory(path, mode)
        os.chmod(path, mode)
        os.chown(path, base.st_uid, base.st_gid)
    os.rename(new, own)


def _make_directory(path: str, mode: int) -> None:
    """Make a directory, or take an earlier try's."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        _check(path)


def _check(path: str) -> None:
    kind = kind_of(path)
    if kind != KINDS[stat.S_IFDIR]:
        raise BadLayer(path=path, kind=kind)
