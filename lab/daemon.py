# SPDX-License-Identifier: GPL-3.0-or-later
"""A private LXD or Incus: the packaged daemon with a state directory of its own, in a World."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, NamedTuple, Self

from lab import cgroups
from lab import world as worlds
from lab.client import Client
from lab.supervisor import Supervised
from pycor_hooks import instance, kernel, mountinfo, record

if TYPE_CHECKING:
    from types import TracebackType

    from lab.processes import Process

MONITOR = "[lxc monitor] "
POOL = "pool"
POOL_SIZE = "3GiB"  # of the sparse file below a btrfs pool


class Kind(NamedTuple):
    """What differs between the two daemons, from outside."""

    daemon: str
    client: str
    group: str
    prefix: str  # of environment variables


KINDS = {
    "lxd": Kind("/usr/bin/lxd", "lxc", "lxd", "LXD"),
    "incus": Kind("/usr/libexec/incus/incusd", "incus", "incus-admin", "INCUS"),
}


class Daemon:
    """Started with ``with``; ends with all its containers, mounts and files gone.

    ``directory`` is its state directory, ``records`` and ``manifests`` where pycor-hooks keeps
    what it knows of its overlays and of its bases, ``prefix`` where the hooks are installed,
    ``env`` the environment in which the clients, and pycor-hooks, find this daemon and no other.
    """

    def __init__(
        self,
        world: worlds.World,
        kind: str,
        driver: str,
        *,
        idmapped: bool = True,
        directory: str = "",
    ) -> None:
        """Describe a daemon.

        Args:
            world: an entered World.
            kind: "lxd" or "incus".
            driver: of the storage pool named "pool": "dir" or "btrfs".
            idmapped: False forbids it idmapped mounts, so that it shifts ids on disk; True
                leaves it to the daemon's judgement of kernel and file system.
            directory: its state directory, or a link to where that will be; "" for one in the
                World's.
        """
        self.kind = kind
        self.driver = driver
        self.world = world
        self.commands = KINDS[kind]
        self.directory = directory or os.path.join(world.directory, kind)
        self.namespace = ""  # the one that the lab keeps for it, as /proc names it
        self.prefix = os.path.join(world.directory, "prefix")
        self.records = os.path.join(record.RUN, record.escape(self.directory))
        self.manifests = os.path.join(instance.STATE, record.escape(self.directory))
        variables = self.commands.prefix
        # /etc and HOME of the user say nothing here: a default remote or project would
        self.env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.env |= {
            f"{variables}_DIR": self.directory,
            f"{variables}_CONF": os.path.join(world.directory, f"{kind}-client"),
            "HOME": world.directory,
        }
        self._daemon_env = dict(self.env)
        if not idmapped:
            self._daemon_env[f"{variables}_IDMAPPED_MOUNTS_DISABLE"] = "1"
        self._bridge = f"{kind}br"  # nobody else's in the World's network namespace
        self._runs: list[Supervised] = []
        self.client = Client(self.commands.client, self.env, self.directory)

    def __enter__(self) -> Self:
        os.mkdir(os.path.realpath(self.directory), 0o711)
        try:
            self.start()
            self._configure()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the daemon process; containers that run already are found by it."""
        log = os.path.join(self.world.directory, f"{self.kind}.log")
        command = [*self._way_in(), "--group", self.commands.group, "--logfile", log]
        self._runs.append(Supervised(command, log=log + ".out", env=self._daemon_env))
        waiting = [self.commands.daemon, "waitready", "--timeout=60"]
        done = subprocess.run(waiting, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{self.kind} does not start: {done.stderr}{tail(log)}")

    def _way_in(self) -> list[str]:
        """The program, and before it what takes it to where it belongs."""
        return [self.commands.daemon]

    def stop(self) -> None:
        """Stop the daemon process as a restart of its service does: containers run on."""
        self._runs[-1].signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the daemon process alone, by SIGKILL."""
        self._runs[-1].signal(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start the daemon process while containers run."""
        self.stop()
        self.start()

    def processes(self) -> list[Process]:
        """Every process that ever came from this daemon and still lives, itself included."""
        return [
            process
            for run in self._runs
            for process in run.descendants()
            if process.state != "Z"  # its parent has yet to reap it; it holds nothing
        ]

    def mounts(self) -> list[mountinfo.Mount]:
        """The mounts of the host, and those where the daemon and the monitors are."""
        places = {os.stat("/proc/self/ns/mnt").st_ino: "self"}
        mains = {run.pid for run in self._runs}
        for row in self.processes():
            if row.pid in mains or row.command.startswith(MONITOR):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    place = os.stat(f"/proc/{row.pid}/ns/mnt").st_ino
                    places.setdefault(place, str(row.pid))
        return [mount for process in places.values() for mount in _mounts_of(process)]

    def main_processes(self) -> set[tuple[int, int]]:
        """Pid and start time of what has to run: the daemon and its supervisors."""
        return {(row.pid, row.start) for run in self._runs for row in run.own_processes()}

    def network(self) -> str:
        """The name of a bridge with DHCP, made at the first call: ``launch(…, "-n", name)``."""
        name = self._bridge
        if name not in self.client("network", "list", "--format=csv").stdout:
            third = list(KINDS).index(self.kind)
            self.client(
                *("network", "create", name, f"ipv4.address=10.213.{third}.1/24"),
                *("ipv4.nat=false", "ipv6.address=none"),
            )
        return name

    def _configure(self) -> None:
        size = [f"size={POOL_SIZE}"] if self.driver == "btrfs" else []
        self.client("storage", "create", POOL, self.driver, *size)
        device = ["root", "disk", "path=/", f"pool={POOL}"]
        self.client("profile", "device", "add", "default", *device)

    def lose_power(self) -> None:
        """Let the host lose its power: no process, no mount and nothing in /run is left.

        What is on disk stays; :meth:`start` is the host's next boot.
        """
        names = cgroups.names_of(self.processes())
        for run in reversed(self._runs):
            run.end()
        self._runs.clear()
        cgroups.remove(names)
        self._unmount()
        worlds.remove_tree(self.records)

    def close(self) -> None:
        """Kill everything, unmount, delete the state directory.

        Raises:
            OSError: something is left that this could not remove; it is named.
        """
        self.lose_power()
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True, check=False)
        for path in (self.manifests, os.path.realpath(self.directory)):
            worlds.remove_tree(path)
        if os.path.islink(self.directory):
            os.unlink(self.directory)

    def _unmount(self) -> None:
        ours = (os.path.realpath(self.directory) + "/", self.records + "/")
        for mount in reversed(mountinfo.read()):
            if mount.target.startswith(ours):
                kernel.umount(mount.target, kernel.MNT_DETACH)


def _mounts_of(process: str) -> list[mountinfo.Mount]:
    try:
        return mountinfo.read(process)
    except OSError:  # it has ended
        return []


def tail(path: str, lines: int = 20) -> str:
    """The end of a log file, for an error message."""
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:])
    except FileNotFoundError:
        return ""
