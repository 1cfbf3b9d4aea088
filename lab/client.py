# SPDX-License-Identifier: GPL-3.0-or-later
"""The real ``lxc`` and ``incus`` clients, and instances as objects that call them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from lab import processes
from lab.api import Api
from lab.wait import until
from pycor_hooks import record

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRY = r"info (?:--project \S+ )?--show-log (\S+?)`"
"""What a client advises after a start that failed."""


class ClientError(Exception):
    """A client's command failed; the text says which and what it printed."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(done)
        self.done = done

    def __str__(self) -> str:
        done = self.done
        return f"{' '.join(done.args)}: exit status {done.returncode}\n{done.stderr}{done.stdout}"


class Client:
    """Call it with a command's words: ``lxc("launch", "overlay", "web1")``."""

    def __init__(
        self, program: str, env: Mapping[str, str], directory: str, project: str = "default"
    ) -> None:
        self.program = program
        self.env = env
        self.directory = directory
        self.project = project
        self.api = Api(directory, project)

    def __call__(
        self, *words: str, check: bool = True, text: str = "", timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the client, in this client's project.

        Args:
            words: command and arguments.
            check: raise when it fails.
            text: its standard input.
            timeout_s: after which it is killed.

        Raises:
            ClientError: it failed, and ``check`` is set; a note has the log of what did not start.
            subprocess.TimeoutExpired: it took too long; a note says what the daemon does.
        """
        try:
            done = subprocess.run(
                [self.program, "--quiet", "--project", self.project, *words],
                env=self.env,
                input=text,
                timeout=timeout_s,
                check=False,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired as error:
            error.add_note(f"under way: {self._operations()}")
            raise
        if check and done.returncode:
            failed = ClientError(done)
            for name in re.findall(_TRY, done.stderr):
                failed.add_note(self("info", name, "--show-log", check=False).stdout)
            raise failed
        return done

    def _operations(self) -> str:
        """What has not ended; those that have are listed for some seconds more."""
        try:
            found = self.query("/1.0/operations", recursion="1", project=self.project)
            return str({state: found[state] for state in found.keys() - {"success", "failure"}})
        except (OSError, ValueError) as error:
            return f"{self.program} does not say: {error}"

    def query(self, path: str, **parameters: str) -> Any:
        """GET a path of the daemon's API, in this client's project unless told otherwise.

        Raises:
            ValueError: the daemon's answer is an error.
        """
        return self.api.query(path, **parameters)

    def in_project(self, project: str) -> Client:
        """The same daemon's client, for another project."""
        return Client(self.program, self.env, self.directory, project)

    def instance(self, name: str) -> Instance:
        """The instance called ``name``, which need not exist yet."""
        return Instance(self, name)

    def instances(self) -> list[Instance]:
        """All instances of all projects."""
        everywhere = {"recursion": "1", "all-projects": "true", "project": ""}
        found = self.query("/1.0/instances", **everywhere)
        return [self.in_project(row["project"]).instance(row["name"]) for row in found]

    def launch(self, image: str, name: str, *words: str) -> Instance:
        """Create and start an instance: ``launch("overlay", "web1", "-c", "user.x=1")``."""
        self("launch", image, name, *words)
        return self.instance(name)

    def init(self, image: str, name: str, *words: str) -> Instance:
        """Create an instance and leave it stopped."""
        self("init", image, name, *words)
        return self.instance(name)


class Instance:
    """One instance, running or not, and where things of it lie on the host."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.client.program} {self.client.project}/{self.name}>"

    # -- what an operator does with it

    def run(
        self, *command: str, text: str = "", user: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; its exit status is the answer's, nothing is raised.

        By the client where it has an input, else see :meth:`lab.api.Api.execute`.
        """
        if not text:
            return self.client.api.execute(self.name, command, user=user)
        words = ["exec", "-T", f"--user={user}", f"--group={user}", self.name, "--", *command]
        return self.client(*words, text=text, check=False)

    def exec(self, *command: str, text: str = "", user: int = 0) -> str:
        """Run a command inside, and return what it printed.

        Raises:
            ClientError: it failed.
        """
        done = self.run(*command, text=text, user=user)
        if done.returncode:
            raise ClientError(done)
        return done.stdout

    def start(self) -> None:
        """Start it."""
        self.client("start", self.name)

    def stop(self, *, force: bool = False) -> None:
        """Stop it, as an operator does; ``force`` kills its init."""
        self.client("stop", self.name, *(["--force"] if force else []))

    def restart(self, *, force: bool = False) -> None:
        """Restart it through the daemon."""
        self.client("restart", self.name, *(["--force"] if force else []))

    def delete(self) -> None:
        """Delete it, running or not."""
        self.client("delete", "--force", self.name)

    def set(self, **config: str) -> None:
        """Set configuration keys: ``set(**{"security.privileged": "true"})``."""
        pairs = [f"{key}={value}" for key, value in config.items()]
        self.client("config", "set", self.name, *pairs)

    def log(self) -> str:
        """What ``lxc info NAME --show-log`` shows to the operator."""
        return self.client("info", self.name, "--show-log").stdout

    # -- what the daemon says about it

    @property
    def status(self) -> str:
        """The daemon's word for it: "Running", "Stopped", "Frozen", "Error"."""
        return str(self.client.query(f"/1.0/instances/{self.name}")["status"])

    @property
    def pid(self) -> int:
        """Its init, as the host numbers it; 0 when stopped, or while it is on its way out."""
        try:
            return int(self.client.query(f"/1.0/instances/{self.name}/state")["pid"])
        except ValueError as error:
            if "Invalid PID" in str(error):  # the daemon's own words for an init that just went
                return 0
            raise

    @property
    def monitor(self) -> processes.Process | None:
        """Its [lxc monitor], the parent of the hooks; None while it is stopped."""
        command = f"[lxc monitor] {self.client.directory}/containers {self.key}"
        return next((row for row in processes.table() if row.command == command), None)

    def wait(self, status: str, *, timeout_s: float = 60) -> None:
        """Wait until the daemon says that it is "Running", or "Stopped".

        It says "Stopped" a moment too early to start it again: wait for the monitor as well.
        """
        until(
            lambda: self.status == status and (status != "Stopped" or self.monitor is None),
            what=f"{self.name} is {status}",
            timeout_s=timeout_s,
        )

    def wait_booted(self) -> None:
        """Wait until the systemd inside has finished booting, well or badly."""
        words = ("running", "degraded")
        until(
            lambda: self.run("systemctl", "is-system-running").stdout.strip() in words,
            what=f"{self.name} has booted",
            timeout_s=60,
        )

    def wait_listening(self) -> None:
        """Wait until the busybox init has set its traps; before, it hears no `stop` or reboot."""
        until(
            lambda: processes.catches(self.pid, signal.SIGPWR),
            what=f"the init of {self.name} listens",
        )

    # -- where it lies on the host

    @property
    def key(self) -> str:
        """LXC_NAME: its name, with the project before it outside the default project."""
        return record.key_of(self.client.project, self.name)

    @property
    def volume(self) -> str:
        """Its directory in the storage pool."""
        return os.path.realpath(os.path.join(self.client.directory, "containers", self.key))

    @property
    def rootfs(self) -> str:
        """Its root file system as the daemon keeps it; bare for an overlay container."""
        return os.path.join(self.volume, "rootfs")

    @property
    def upper(self) -> str:
        """What an overlay container wrote."""
        return os.path.join(self.volume, "overlay", "upper")

    @property
    def record(self) -> str:
        """The directory of its overlay's state, below /run/pycor-hooks."""
        return os.path.join(record.RUN, record.escape(self.client.directory), self.key)

    @property
    def merged(self) -> str:
        """Where its overlay is mounted while it runs."""
        return os.path.join(self.record, "merged")
