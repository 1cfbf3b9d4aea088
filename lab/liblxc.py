# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the hooks as liblxc does, without a daemon: real mounts, real processes, a made-up pool.

For tests of single steps and for timings, where a daemon would be in the way.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from pycor_hooks import mountinfo, record, tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Monitor:
    """A process that stands for [lxc monitor]: hooks are its children, and it can be killed."""

    def __init__(self, way_in: Sequence[str] = ()) -> None:
        """Start it; ``way_in`` takes it to where it belongs, with no process between."""
        self._shell = subprocess.Popen(
            [*way_in, "/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._shell.pid

    def run(self, command: str, env: dict[str, str]) -> int:
        """Run one command as a child, with liblxc's environment; its exit status."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        words = " ".join(f"{name}='{value}'" for name, value in env.items())
        self._shell.stdin.write(f"{words} {command} 2>&1 >/dev/null; echo status=$?\n")
        self._shell.stdin.flush()
        for line in self._shell.stdout:
            if line.startswith("status="):
                return int(line[7:])
        raise AssertionError(f"the shell died while it ran {command}")

    def kill(self) -> None:
        """SIGKILL it, and reap it."""
        self._shell.kill()
        self._shell.communicate()


class Container:
    """One container of a made-up daemon directory, on one base."""

    def __init__(self, daemon: str, name: str, *, base: str = "base") -> None:
        self.daemon = daemon
        self.name = name
        self.base = base
        self.volume = make_volume(daemon, name)
        self.rootfs = f"{self.volume}/rootfs"
        self.upper = f"{self.volume}/overlay/upper"
        self.directory = record.directory_of(daemon, name)
        self.merged = f"{self.directory}/merged"
        self.log_path = f"{daemon}/{name}.log"
        self.hooks = f"{REPOSITORY}/hooks"
        self.idmap: tuple[str, ...] = ()
        self.config = ""
        self.monitor: Monitor | None = None
        self.init: subprocess.Popen[bytes] | None = None

    def command(self, hook: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """The words and the environment with which liblxc would run a hook now."""
        config = f"{self.daemon}/{self.name}.conf"
        with open(config, "w") as file:
            file.write(f"lxc.log.file = {self.log_path}\n{self.config}")
            file.writelines(f"lxc.idmap = {line}\n" for line in self.idmap)
        env = {
            "LXC_NAME": self.name,
            "LXC_ROOTFS_PATH": self.rootfs,
            "LXC_CONFIG_FILE": config,
            "LXC_HOOK_TYPE": hook,
            "LXC_PID": str(self.init.pid if self.init else 0),
        }
        return [f"{self.hooks}/{hook}", *arguments], env

    def hook(self, hook: str, *arguments: str, monitor: Monitor | None = None) -> int:
        """Run one hook as a child of the monitor."""
        command, env = self.command(hook, *arguments)
        if monitor is None:
            self.monitor = self.monitor or self.new_monitor()
            monitor = self.monitor
        return monitor.run(" ".join(command), env)

    def new_monitor(self) -> Monitor:
        """A monitor for its next start."""
        return Monitor()

    def pre_start(self, *, base: str | None = None, monitor: Monitor | None = None) -> int:
        """Run pre-start with --base."""
        return self.hook("pre-start", "--base", base or self.base, monitor=monitor)

    def start(self) -> None:
        """pre-start, an init, start-host: the container runs."""
        assert self.pre_start() == 0, self.log()
        self.init = subprocess.Popen(["/bin/sleep", "infinity"])
        assert self.hook("start-host") == 0, self.log()

    def stop(self) -> None:
        """End the init, then stop and post-stop."""
        self.kill_init()
        assert self.hook("stop") == 0, self.log()
        assert self.hook("post-stop") == 0, self.log()

    def kill_init(self) -> None:
        """End the container's init, and reap it."""
        if self.init:
            self.init.kill()
            self.init.wait()
            self.init = None

    def kill_monitor(self) -> None:
        """Kill the monitor; the next start gets a new one."""
        assert self.monitor is not None
        self.monitor.kill()
        self.monitor = None

    def end(self) -> None:
        """End the processes of the test, whatever happened in it."""
        self.kill_init()
        if self.monitor:
            self.kill_monitor()

    def forget_log(self) -> None:
        """Have lxc.log.file begin anew, as at each start."""
        if os.path.exists(self.log_path):
            os.unlink(self.log_path)

    def log(self) -> str:
        """What was written to lxc.log.file."""
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path) as file:
            return file.read()

    def mounts_elsewhere(self) -> list[str]:
        """What of ours is mounted in other namespaces where its daemon has mounts."""
        return []

    def overlays(self) -> list[mountinfo.Mount]:
        """The mounts that are ours and this container's, wherever they are."""
        places = {self.merged, self.rootfs}
        return [mount for mount in mountinfo.read() if mount.target in places]


def compiled_hooks(prefix: str) -> str:
    """Install the hooks without the checks that an operator's prefix gets.

    Args:
        prefix: an empty directory.

    Returns:
        The directory that the hooks are run from.
    """
    files = {}
    for target, source in tree.sources().items():
        with open(source, "rb") as file:
            files[target] = file.read()
    name = tree.name_of(files, tree.ask_python())
    tree.build(prefix, name, files)
    tree.switch(prefix, name)
    return f"{prefix}/{tree.LINK}"


def make_volume(daemon: str, name: str, pool: str = "pool") -> str:
    """An instance's volume as LXD lays it out: the pool's directory and the link to it."""
    volume = f"{daemon}/storage-pools/{pool}/containers/{name}"
    os.makedirs(f"{volume}/rootfs")
    os.makedirs(f"{daemon}/containers", exist_ok=True)
    os.symlink(volume, f"{daemon}/containers/{name}")
    return volume


def make_base(
    daemon: PathLike[str] | str, name: str = "base", *, owner: int = 0, pool: str = "pool"
) -> str:
    """A base with a few files, stored as ``owner``; returns its rootfs."""
    rootfs = f"{make_volume(os.fspath(daemon), name, pool)}/rootfs"
    for directory in ("etc", "usr", "usr/bin", "var"):
        os.mkdir(f"{rootfs}/{directory}")
    os.symlink("usr/bin", f"{rootfs}/bin")
    for path in ("etc/os-release", "etc/hostname", "usr/bin/tool"):
        with open(f"{rootfs}/{path}", "w") as file:
            file.write(f"{path} of {name}\n")
    if owner:
        own(rootfs, owner)
    return rootfs


def own(tree: str, owner: int) -> None:
    """Give a whole tree to one user and group, as the daemon does when it shifts one."""
    for directory, directories, files in os.walk(tree):
        for name in (".", *directories, *files):
            os.lchown(os.path.join(directory, name), owner, owner)
