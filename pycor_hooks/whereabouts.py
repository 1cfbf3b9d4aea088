# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a daemon's files are: on this host, or in a mount namespace that only the daemon has.

A daemon from a snap, or from a unit with PrivateMounts=, mounts pools where the host does not see
them. Its files are reached by way of its root directory, /proc/PID/root, as it is now: a refresh
of the snap moves the pools to a new namespace. Whoever keeps a descriptor into a volume keeps the
daemon from unmounting it, so it is closed as soon as the work is done.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pycor_hooks import kernel, namespaces, plan, registry
from pycor_hooks.host_errors import DaemonDown
from pycor_hooks.sockets import SNAP_PLACE, find_daemons, find_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycor_hooks.instance import Instance
    from pycor_hooks.sockets import Daemon

_PLACE = os.O_PATH | os.O_DIRECTORY


def is_apart(daemon: Daemon) -> bool | None:
    """Tell whether a daemon starts its hooks in another mount namespace than the host's.

    Returns:
        What its place and its namespace say; None where we may not look at its process.
    """
    if daemon.directory == SNAP_PLACE:
        return True
    process = find_process(daemon)
    if not process:
        return False
    try:
        return os.stat(f"/proc/{process}/ns/mnt").st_ino != os.stat("/proc/1/ns/mnt").st_ino
    except PermissionError:
        return None
    except FileNotFoundError:  # it has ended
        return False


@contextlib.contextmanager
def shown(directory: str, *, apart: bool | None = None) -> Iterator[None]:
    """Show the calling thread what a daemon sees below its directory.

    For a look at many files by their paths: the block, and threads that begin and end in it, run
    in a copy of the host's mount namespace, which ends with it. It is made only where the daemon
    has a namespace of its own.

    Args:
        directory: the daemon's.
        apart: whether it has one, None to find out.

    Raises:
        DaemonDown: it has, and does not run.
    """
    process = None if apart is False else find_process(_daemon(directory))
    if apart and not process:
        raise DaemonDown(directory=directory)
    try:
        tree = _copied(directory, process) if process else None
    except (FileNotFoundError, ProcessLookupError):  # it has ended since
        raise DaemonDown(directory=directory) from None
    if tree is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as moving:
            moving.callback(os.close, tree)
            host = namespaces.open_own()
            stack.callback(os.close, host)
            stack.callback(_go_home, host)
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE)
            kernel.move_mount(tree, directory)
        yield


def _copied(directory: str, process: int) -> int | None:
    """A copy of what a daemon's process has mounted below a directory; None where we see it, too.

    Raises:
        OSError: the process is gone.
    """
    place = namespaces.of_process(process)
    if not place.identity:
        return None
    with place:
        return kernel.open_tree_clone(directory, kernel.AT_RECURSIVE)


def _go_home(host: int) -> None:
    kernel.unshare(kernel.CLONE_FS)  # a thread that has just ended may still share it
    kernel.setns(host, kernel.CLONE_NEWNS)


def check_up(daemons: Iterable[Daemon]) -> None:
    """Raise DaemonDown where files were not found, which a daemon has that does not run."""
    for daemon in daemons:
        known = daemon.directory == SNAP_PLACE or plan.apart(registry.records([daemon.directory]))
        if known and find_process(daemon) is None:
            raise DaemonDown(directory=daemon.directory)


def _daemon(directory: str) -> Daemon:
    (found,) = find_daemons([directory])
    return found


@contextlib.contextmanager
def volume_of(instance: Instance, *, apart: bool) -> Iterator[str]:
    """A path to an instance's volume that is good for as long as the block runs.

    Args:
        instance: whose; its volume need not exist where the daemon is not apart.
        apart: whether its daemon's files are in a namespace of its own, as
            :attr:`Record.namespace` says of its containers.

    Raises:
        DaemonDown: it is apart, and does not run.
        FileNotFoundError: it is apart, and there is no such volume.
    """
    if not apart:
        yield instance.volume()
        return
    with opened(instance.daemon, instance.link) as volume:
        yield f"/proc/self/fd/{volume}"


@contextlib.contextmanager
def opened(directory: str, path: str) -> Iterator[int]:
    """A directory as a running daemon sees it, open (O_PATH) for as long as the block runs.

    Args:
        directory: the daemon's.
        path: absolute; symlinks in it are followed within the daemon's root.

    Raises:
        DaemonDown: the daemon does not run.
        OSError: there is no such directory.
    """
    process = find_process(_daemon(directory)) or 0
    try:
        root = os.open(f"/proc/{process}/root", _PLACE | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DaemonDown(directory=directory) from None
    try:
        descriptor = kernel.open_in_root(root, path, _PLACE)
    finally:
        os.close(root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
