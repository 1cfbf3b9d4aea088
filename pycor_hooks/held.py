# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether another overlay holds an upper, who has it, and how to cut it off.

Asked for only where the kernel seems to have complained. Everybody who can mount, in a container
or in a user namespace of his own, can make it complain, and can show any mount in his own table.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import os
import stat
import time

from pycor_hooks import kernel, mountinfo
from pycor_hooks.errors import StillHeld

_SEARCH = 2.0  # seconds; a container may have any number of mounts


def is_held(upperdir: str, scratch: str) -> bool:
    """Whether an overlay, in whatever mount namespace, has this upper.

    The kernel refuses to mount one with ``index=on`` whose lowerdir is an upper in use (EBUSY,
    ovl_report_in_use() in fs/overlayfs/super.c); the upper itself is only read.

    Args:
        upperdir: the directory in question.
        scratch: a path below RUN, for a tmpfs that lasts as long as the question.

    Returns:
        True also where the kernel cannot be asked.
    """
    try:
        os.makedirs(scratch, 0o700, exist_ok=True)
        kernel.mount("tmpfs", scratch, "tmpfs", 0)
    except OSError:
        return True
    try:
        for name in ("upper", "work", "merged"):
            os.mkdir(f"{scratch}/{name}")
        own = mountinfo.escape_layer(scratch)
        layers = f"lowerdir={mountinfo.escape_layer(upperdir)},upperdir={own}/upper"
        data = f"{layers},workdir={own}/work,index=on"
        kernel.mount("tmpfs", f"{scratch}/merged", "overlay", 0, data)
        # Where an index cannot be had, the kernel goes without, and does not look.
        return not os.path.isdir(f"{scratch}/work/index")
    except OSError:
        return True
    finally:
        kernel.umount(scratch, kernel.MNT_DETACH)


def cut_off(rootfs: str) -> bool:
    """Detach what is mounted on a container's rootfs in all mount namespaces.

    Whoever copies the host's mount namespace while the container starts has a copy of the bind
    that pre-start puts there; any user can (``unshare -Urm``). Made private, that copy outlives
    ours and holds the upper. A rename over the directory detaches it, too
    (mount_namespaces(7), "Restrictions on mount namespaces").

    Args:
        rootfs: where nothing is mounted in our own namespace.

    Returns:
        Whether it was done: not where something lies in it.
    """
    if os.listdir(rootfs):
        return False
    old = os.lstat(rootfs)
    new = f"{rootfs}.new"
    try:
        os.mkdir(new, 0o700)
    except FileExistsError:  # from a try that was killed
        os.rmdir(new)
        os.mkdir(new, 0o700)
    os.chown(new, old.st_uid, old.st_gid)
    os.chmod(new, stat.S_IMODE(old.st_mode))
    os.rename(new, rootfs)
    return True


def error(upperdir: str, seen_as: str) -> StillHeld:
    """The error that names who holds an upper, as far as the mount tables of processes tell.

    Args:
        upperdir: for people.
        seen_as: as the mount table shows it, with the staged name of a mapped layer.
    """
    # Process 1 is the host to a hook that has stepped into its daemon's mount namespace.
    if any(_shows_to(process, seen_as) for process in ("thread-self", "1")):
        return StillHeld(
            path=upperdir,
            holder="an overlay that is hidden below another mount",
            remedy="pycor-hooks watch --once brings it back, and takes it down if nobody uses it",
        )
    process = _holder_of(seen_as)
    found = f"process {process}" if process else "a process"
    return StillHeld(
        path=upperdir,
        holder=f"{found} in a mount namespace of its own",
        remedy="end that process (grep -l pycor-hooks /proc/[0-9]*/mountinfo lists them all)",
    )


def _holder_of(upperdir: str) -> str | None:
    """The pid of the first process found, one for each mount namespace; None for none in time."""
    deadline = time.monotonic() + _SEARCH
    seen = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        if time.monotonic() > deadline:
            return None
        try:
            namespace = os.stat(f"/proc/{process}/ns/mnt").st_ino
            if namespace not in seen and _shows_to(process, upperdir):
                return process
        except OSError:
            continue
        seen.add(namespace)
    return None


def _shows_to(process: str, upperdir: str) -> bool:
    """Whether the mount table of a process shows an overlay with this upper."""
    try:
        return any(upperdir in mount.layers("upperdir") for mount in mountinfo.read(process))
    except OSError:  # it has ended, or is another user's
        return False
