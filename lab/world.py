# SPDX-License-Identifier: GPL-3.0-or-later
"""A World: the mount and network namespace in which the private daemons live.

The process that enters one (pytest, the demo) moves in with all that it starts: daemons, hooks,
watcher, clients. So they share namespaces with each other, as on an ordinary host, and with
nobody else: bridges, veth pairs, firewall rules and ip_forward never show on the host, and when
the last process is gone the kernel drops the mounts, however the run ended.

Process 1, where it is ours (`lab.pidns`), comes along: it is what hooks take for the host.

liblxc's command sockets are abstract, which makes them belong to the network namespace: whoever
asks whether an instance runs has to be inside, too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import subprocess
import tempfile
from itertools import chain
from typing import TYPE_CHECKING, Self

from lab import cgroups, limits, mounts, pidns
from lab.supervisor import Supervised
from lab.wait import until
from pycor_hooks import instance, kernel, mountinfo, record

if TYPE_CHECKING:
    from types import TracebackType

PARENT = "/var/tmp"  # noqa: S108 - on disk, and short enough for a unix socket's 108 bytes
PREFIX = "pycor-lab-"
LXCFS = "/var/lib/lxcfs"

_CLONE_NEWNET = 0x40000000


class World:
    """Entered with ``with``, or :meth:`enter` and :meth:`leave`; one at a time in a process.

    ``directory`` is a temporary directory on disk, for everything that has to go in the end.
    """

    directory: str

    def __init__(self) -> None:
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Move this thread, and what it starts from now on, into namespaces of its own."""
        with contextlib.ExitStack() as cleanup:
            cleanup.enter_context(limits.raised())
            self._host_namespaces = {
                kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
                for kind in ("mnt", "net")
            }
            for descriptor in self._host_namespaces.values():
                cleanup.callback(os.close, descriptor)
            cleanup.callback(cgroups.remove_forgotten, cgroups.all_of_liblxc())
            remove_abandoned()
            self.directory = self._make_directory(cleanup)
            for path in (record.RUN, instance.STATE):
                if not os.path.exists(path):
                    cleanup.callback(_remove_if_empty, path)
            cleanup.callback(mounts.go_back, *self._host_namespaces.values())
            self._unshare()
            self._start_lxcfs(cleanup)
            self._cleanup = cleanup.pop_all()

    def leave(self) -> None:
        """Return to the host's namespaces; limits, cgroups and the directory are put right."""
        self._cleanup.close()

    def run_outside(
        self, command: list[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``command`` with the host's network, which is the only way to a mirror."""
        network = f"/proc/{os.getpid()}/fd/{self._host_namespaces['net']}"
        return subprocess.run(["nsenter", f"--net={network}", *command], check=check)

    def _make_directory(self, cleanup: contextlib.ExitStack) -> str:
        """Make our directory, locked for as long as we live: see :func:`remove_abandoned`."""
        unready = tempfile.mkdtemp(prefix="unready-", dir=PARENT)
        os.chmod(unready, 0o711)  # noqa: S103 - the ids of containers pass through
        descriptor = os.open(unready, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        cleanup.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        directory = os.path.join(PARENT, os.path.basename(unready).replace("unready-", PREFIX))
        os.rename(unready, directory)
        cleanup.callback(remove_tree, directory)
        return directory

    def _unshare(self) -> None:
        kernel.unshare(_CLONE_NEWNET)
        pidns.unshare_mounts()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self._show_own_interfaces()

    def _show_own_interfaces(self) -> None:
        """Let /sys/class/net show our network namespace; all else of /sys stays the host's."""
        fresh = os.path.join(self.directory, "sys")
        os.mkdir(fresh)
        kernel.mount("sysfs", fresh, "sysfs", 0)
        for part in ("class/net", "devices/virtual/net"):
            kernel.mount(os.path.join(fresh, part), os.path.join("/sys", part), "", kernel.MS_BIND)
        # `fresh` stays: a container may mount a sysfs of its own only while one without
        # anything mounted over it is in sight (mount_too_revealing() of fs/namespace.c)

    def _start_lxcfs(self, cleanup: contextlib.ExitStack) -> None:
        """Give containers a /proc/meminfo of their own and the like; the host's lxcfs serves."""
        if _lxcfs_serves():
            return
        os.makedirs(LXCFS, exist_ok=True)
        lxcfs = Supervised(
            ["lxcfs", "--pidfile", os.path.join(self.directory, "lxcfs.pid"), LXCFS],
            log=os.path.join(self.directory, "lxcfs.log"),
            env=os.environ,
        )
        cleanup.callback(lxcfs.end)
        until(_lxcfs_serves, what="lxcfs serves")


def _lxcfs_serves() -> bool:
    """Whether lxcfs is mounted and answers; a mount that it died under is detached, here only."""
    try:
        return kernel.is_mount_root(LXCFS)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        kernel.umount(LXCFS, kernel.MNT_DETACH)
        return _lxcfs_serves()


def remove_abandoned() -> None:
    """Delete what labs that were killed have left on disk: nobody holds its lock any more."""
    for directory in glob.glob(os.path.join(PARENT, PREFIX + "*")):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name = glob.escape(record.escape(directory)) + "-*"
            kept = (glob.glob(os.path.join(where, name)) for where in (record.RUN, instance.STATE))
            for path in (*chain.from_iterable(kept), directory):
                remove_tree(path)
        os.close(descriptor)


def _remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)


def remove_tree(path: str) -> None:
    """Delete a tree of ours, if it exists; a mount in it is an error, and is not descended into.

    Raises:
        OSError: something is still mounted below ``path``.
    """
    if not os.path.exists(path):
        return
    inside = [mount.target for mount in mountinfo.read() if mount.target.startswith(path + "/")]
    if inside:
        raise OSError(f"{path}: still mounted: {', '.join(inside)}")
    shutil.rmtree(path)
