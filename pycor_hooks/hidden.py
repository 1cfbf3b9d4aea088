# SPDX-License-Identifier: GPL-3.0-or-later
"""Overlays that another mount hides, such as a new tmpfs on /run: mounted again where they belong.

The mount table still shows them, and no path leads there. So we look from a mount namespace of
our own, where what hides them is detached; there a mount can be cloned, and put back on the host.
Removing the old mount point there detaches the hidden mount everywhere (mount_namespaces(7),
"Restrictions on mount namespaces"). Nothing that is not ours is unmounted on the host.

Imported only where an overlay is not where it should be.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress

from pycor_hooks import kernel, lost, mountinfo, namespaces, takedown
from pycor_hooks.errors import NotOurs
from pycor_hooks.registry import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycor_hooks.mountinfo import Mount
    from pycor_hooks.record import Record

_LAYERS = 32


def among(mounts: Iterable[Mount]) -> list[Mount]:
    """Those to which their path does not lead; what a file system does not tell is none."""
    found = []
    for mount in mounts:
        with suppress(OSError):
            if _id_at(mount.target) != mount.mount_id:
                found.append(mount)
    return found


def resurface_at(directory: str) -> bool:
    """Bring up the overlay of one directory below RUN, if there is one and it is hidden.

    Returns:
        Whether it did.
    """
    mount = lost.our_mounts(mountinfo.read()).get(f"{directory}/merged")
    if mount is None or not among([mount]):
        return False
    resurface(mount)
    return True


def resurface(mount: Mount) -> None:
    """Mount a hidden overlay again at its path; detach the hidden mount.

    Its record comes along, where it has a sound one.

    The calling thread changes its mount namespace meanwhile.

    Raises:
        NotOurs: something else is mounted at its path by now.
        OSError, StillHeld: as they say; it is hidden still.
    """
    directory = os.path.dirname(mount.target)
    with ExitStack() as stack:
        host = namespaces.open_own()
        stack.callback(os.close, host)
        stack.callback(os.chdir, os.getcwd())  # setns(2) to a mount namespace moves to its root
        stack.callback(kernel.setns, host, kernel.CLONE_NEWNS)
        kernel.unshare(kernel.CLONE_NEWNS)
        below = namespaces.open_own()
        stack.callback(os.close, below)
        kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE)
        _uncover(mount.target, mount.device)
        tree = kernel.open_tree_clone(mount.target)
        stack.callback(os.close, tree)
        known = takedown.recorded(directory)
        kernel.setns(host, kernel.CLONE_NEWNS)
        _mount_again(tree, mount, known)
        kernel.setns(below, kernel.CLONE_NEWNS)
        takedown.everything(directory, "")
        takedown.remove_directory(directory)


def _mount_again(tree: int, mount: Mount, known: Record | None) -> None:
    merged = mount.target
    with Lock(os.path.dirname(merged)):
        os.makedirs(merged, 0o700, exist_ok=True)
        if not kernel.is_mount_root(merged):
            kernel.move_mount(tree, merged)
        elif kernel.statx(merged).dev != mountinfo.device_number(mount.device):
            raise NotOurs(path=merged)
        if known:
            known.write()


def _uncover(target: str, device: str) -> None:
    """Detach what lies over a mount, one after the other; in a namespace of our own."""
    for _ in range(_LAYERS):
        table = {mount.mount_id: mount for mount in mountinfo.read()}
        same = (m for m in table.values() if (m.target, m.device) == (target, device))
        wanted = next(same, None)
        if wanted is None:  # a stop has unmounted it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
        way = _ancestors(wanted, table)
        cover = next((path for path in _prefixes(target) if _id_at(path) not in way), "")
        if not cover:
            return
        kernel.umount(cover, kernel.MNT_DETACH)


def _ancestors(mount: Mount, table: dict[int, Mount]) -> set[int]:
    """The ids of a mount, of the mount on which it is mounted, and so on."""
    found = {mount.mount_id}
    while mount.parent_id in table and mount.parent_id not in found:
        mount = table[mount.parent_id]
        found.add(mount.mount_id)
    return found


def _prefixes(path: str) -> list[str]:
    """``/run``, ``/run/pycor-hooks``, and so on to the path itself."""
    parts = path.split("/")
    return ["/".join(parts[: end + 1]) for end in range(1, len(parts))]


def _id_at(path: str) -> int:
    """The id of the mount that a path leads to, 0 where it leads nowhere."""
    try:
        return kernel.mount_id(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
