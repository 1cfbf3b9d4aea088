# SPDX-License-Identifier: GPL-3.0-or-later
"""LXD as Ubuntu has it, from the snap, without snapd: the packaged LXD in the snap's mounts.

Rebuilt from the sources of snapd (snap-confine) and of the LXD snap (daemon.start): `snap-confine`
and `snap-daemon` beside this file. What the host is to the snap is the World, whose process 1
hooks find as on any host: see `lab.pidns`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Self

from lab.daemon import Daemon
from pycor_hooks import instance, kernel
from pycor_hooks.sockets import USUAL_PLACES

if TYPE_CHECKING:
    from lab.world import World

COMMON = "/var/snap/lxd/common"
HOOKS = "/opt/pycor-hooks"  # as /usr/local, another directory to the snap
_HERE = os.path.dirname(os.path.abspath(__file__))
_HOSTFS = "/var/lib/snapd/hostfs"
_BIND = kernel.MS_BIND | kernel.MS_REC


class SnapDaemon(Daemon):
    """A private LXD in a simulated snap. One at a time in a World, whose /run and /var it alters.

    ``restart`` is what a refresh with the same base snap does: the namespace is kept.
    """

    def __init__(self, world: World, driver: str, *, idmapped: bool = True) -> None:
        super().__init__(world, "lxd", driver, idmapped=idmapped, directory=f"{COMMON}/lxd")
        self.prefix = HOOKS
        self._namespace = -1
        self._host = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as host:
            _be_ubuntu(self.world, host)
            self._host = host.pop_all()
        try:
            self._confine("core22")
            return super().__enter__()
        except BaseException:
            self.close()
            raise

    def refresh(self, base: str) -> None:
        """What a refresh to another base snap does: a new namespace, and the pools move there.

        What runs in the old one stays in it.
        """
        self.stop()
        old = self._namespace
        self._confine(base)
        mover = [sys.executable, "-P", "-m", "lab.snappools", str(old), str(self._namespace)]
        subprocess.run(
            [*mover, self.directory],
            pass_fds=(old, self._namespace),
            cwd=os.path.dirname(_HERE),
            check=True,
        )
        os.close(old)
        self.start()

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the snap's namespace; its exit status is the answer's."""
        words = ["nsenter", f"--mount={self._namespace_path()}", "--", *command]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def close(self) -> None:
        """Kill everything, and let the World be as it was."""
        super().close()
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1
        self._host.close()

    def _way_in(self) -> list[str]:
        command = ["nsenter", f"--mount={self._namespace_path()}", "--", "/bin/bash"]
        return [*command, f"{_HOSTFS}{_HERE}/snap-daemon"]

    def _namespace_path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._namespace}"

    def _confine(self, base: str) -> None:
        """Make a namespace as snap-confine does, and keep it open."""
        root = tempfile.mkdtemp(prefix="snap.rootfs_", dir=self.world.directory)
        command = ["unshare", "--mount", "--propagation", "unchanged", "/bin/sh"]
        with subprocess.Popen(
            [*command, f"{_HERE}/snap-confine", root, base],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as confine:
            assert confine.stdout is not None  # noqa: S101 - for mypy
            if confine.stdout.readline() != b"ready\n":
                raise OSError("snap-confine failed")
            flags = os.O_RDONLY | os.O_CLOEXEC
            self._namespace = os.open(f"/proc/{confine.pid}/ns/mnt", flags)
            self.namespace = os.readlink(self._namespace_path())
            confine.communicate()


def _unmount(target: str) -> None:
    """Unmount with all below, which is shared with what it is a copy of: that stays."""
    kernel.mount("", target, "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.umount(target, kernel.MNT_DETACH)


def _be_ubuntu(world: World, host: contextlib.ExitStack) -> None:
    """Lay out the World as a host with the snap, until ``host`` is closed.

    Mounts are shared, /run is its own, and /var is the host's, with a /var/snap that is not.
    """

    def mount(source: str, target: str, fstype: str = "", data: str = "") -> None:
        kernel.mount(source, target, fstype, 0 if fstype else _BIND, data)
        host.callback(_unmount, target)

    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SHARED)
    mount("tmpfs", "/run", "tmpfs", "mode=0755")
    os.mkdir("/run/var")
    kernel.mount("tmpfs", "/run/var", "tmpfs", 0, "mode=0755")
    for entry in os.scandir("/var"):
        if entry.is_symlink():
            os.symlink(os.readlink(entry), f"/run/var/{entry.name}")
        elif entry.is_dir() and entry.name != "snap":
            os.mkdir(f"/run/var/{entry.name}", stat.S_IMODE(entry.stat().st_mode))
            kernel.mount(entry.path, f"/run/var/{entry.name}", "", _BIND)
    mount("/run/var", "/var")
    _unmount("/run/var")
    os.makedirs(COMMON)
    for source, target in (("snap-common", COMMON), ("opt", "/opt")):
        path = os.path.join(world.directory, source)
        os.makedirs(path, exist_ok=True)
        mount(path, target)
    os.makedirs(instance.STATE, 0o700, exist_ok=True)
    mount("tmpfs", instance.STATE, "tmpfs", "mode=0700")
    for _, directory in USUAL_PLACES:  # a daemon there would be the user's
        if os.path.isdir(directory):
            mount("tmpfs", directory, "tmpfs")
