# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers started, stopped, rebooted, copied and deleted at random by several clients at once.

What each client does is planned beforehand, from a seed and nothing else, so that a run can be
repeated; a client has containers of its own, and so knows what each of them must hold. Only how
the clients' commands meet is the machine's. Now and then a client runs two commands on one
container at once, either of which the daemon may then refuse.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from subprocess import SubprocessError
from typing import TYPE_CHECKING, NamedTuple

from lab import live
from lab.client import ClientError
from lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from lab.client import Instance
    from lab.overlays import Overlays

# Verb -> how often it is chosen, and what a container has to be for it.
_VERBS = {
    "launch": (4, "absent"),
    "copy": (12, "absent"),
    "start": (8, "stopped"),
    "write": (2, "running"),
    "stop": (2, "running"),
    "stop --force": (2, "running"),
    "poweroff": (1, "running"),
    "restart": (1, "running"),
    "restart --force": (1, "running"),
    "reboot": (2, "running"),
    "delete": (1, "stopped"),
    "delete --force": (1, "running"),
    "clash": (1, "running"),
}
_AFTERWARDS = {
    **dict.fromkeys(("launch", "start"), "running"),
    **dict.fromkeys(("copy", "stop", "stop --force", "poweroff"), "stopped"),
    **dict.fromkeys(("delete", "delete --force", "clash"), "absent"),
}
_HEEDED_BY_INIT = {"stop", "poweroff", "restart", "reboot"}
# Pairs for "clash". Nobody can tell what state they leave, or whether a reboot is yet to come:
# the container is deleted by force, and its name not used again.
_CLASHES = (
    ("stop --force", "start"),
    ("stop", "restart --force"),
    ("reboot", "stop --force"),
    ("poweroff", "start"),
    ("restart --force", "restart --force"),
)

_NOT_YET = ("Instance is busy running a", "shutting down the container failed")
"""What LXD says while an earlier command or a reboot inside is under way."""
_DONE = {"stop": "The instance is already stopped"}
"""What LXD says where there is nothing to do any more."""


class Operation(NamedTuple):
    """One thing that a client does: ``verb`` as above, ``more`` its words, if any."""

    verb: str
    name: str
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.verb, self.name, *self.more))


def our_log(container: Instance) -> list[str]:
    """What hooks have said in a container's log, at this start and the one before."""
    directory = os.path.join(container.client.directory, "logs", container.key)
    lines = []
    for name in ("lxc.log.old", "lxc.log"):
        with (
            contextlib.suppress(FileNotFoundError),
            open(os.path.join(directory, name), encoding="utf-8", errors="replace") as log,
        ):
            lines += [line.rstrip() for line in log if " pycor-hooks - " in line]
    return lines


class OperationFailed(Exception):
    """One of a client's operations; its cause is the error of the client's command."""


class Plan:
    """What one client does, in its order."""

    def __init__(self, random: Random, names: Sequence[str]) -> None:
        """Begin with no container; ``names`` are those that it may have."""
        self._random = random
        self._states = dict.fromkeys(names, "absent")

    def next(self) -> Operation:
        """The next operation, which presumes that all before it were done."""
        possible = [(verb, name) for verb in _VERBS for name in self._fit_for(verb)]
        weights = [_VERBS[verb][0] for verb, _ in possible]
        ((verb, name),) = self._random.choices(possible, weights)
        more: tuple[str, ...] = ()
        if verb == "copy":
            more = (self._random.choice(self._existing()),)
        elif verb == "clash":
            del self._states[name]
            self._states[f"{name}x"] = "absent"
            return Operation(verb, name, self._random.choice(_CLASHES))
        self._states[name] = _AFTERWARDS.get(verb, self._states[name])
        return Operation(verb, name, more)

    def _existing(self) -> list[str]:
        return [name for name, state in self._states.items() if state != "absent"]

    def _fit_for(self, verb: str) -> list[str]:
        if verb == "copy" and not self._existing():
            return []
        return [name for name, state in self._states.items() if state == _VERBS[verb][1]]


class Churner:
    """One client at work.

    Attributes:
        written: the lines that each of its containers must hold.
    """

    def __init__(self, overlays: Overlays, plan: Plan, launch: Sequence[str]) -> None:
        """Get ready; ``launch`` are further words for launching a container."""
        self._overlays = overlays
        self._plan = plan
        self._launch = launch
        self._done: list[Operation] = []
        self.written: dict[str, list[str]] = {}

    def work(self, operations: int) -> None:
        """Do the next so many operations.

        Raises:
            OperationFailed: one did; it says which, and what was done before.
        """
        for _ in range(operations):
            operation = self._plan.next()
            self._done.append(operation)
            try:
                self._do(operation)
            except (ClientError, SubprocessError, ValueError, OSError) as error:
                raise OperationFailed(self._history(operation.name)) from error

    def _history(self, name: str) -> str:
        before = "; ".join(str(done) for done in self._done if name in {done.name, *done.more})
        return "\n".join([before, *our_log(self._overlays.client.instance(name))])

    def _do(self, operation: Operation) -> None:
        verb, name, more = operation
        container = self._overlays.client.instance(name)
        if verb == "launch":
            self._overlays.launch(name, *self._launch)
            self.written[name] = []
        elif verb == "copy":
            self._overlays.client("copy", *more, name)
            self.written[name] = list(self.written[more[0]])
        elif verb == "write":
            line = str(len(self._done))
            container.exec("sh", "-c", f"echo {line} >>/root/written")
            self.written[name].append(line)
        elif verb == "clash":
            _clash(container, more)
        else:
            _run(container, verb)
        if _AFTERWARDS.get(verb) == "absent":
            del self.written[name]


def _run(container: Instance, verb: str) -> None:
    """Do it, and wait until the daemon would let the next command have the container."""
    if verb in _HEEDED_BY_INIT:
        container.wait_listening()
    if verb == "reboot":
        before = live.of(container).init
        container.run("reboot")
        until(lambda: _rebooted(container, before), what=f"{container.name} has rebooted")
    elif verb == "poweroff":
        container.run("poweroff")
    else:
        _until_accepted(container, *verb.split())
    if _AFTERWARDS.get(verb) == "stopped":
        container.wait("Stopped")


def _until_accepted(container: Instance, command: str, *flags: str) -> None:
    """Run a command until the daemon, and liblxc, are ready for it.

    One that LXD has called failed may have done its work all the same, a moment later.
    """
    refused: list[str] = []

    def accepted() -> bool:
        done = container.client(command, container.name, *flags, check=False)
        if done.returncode and refused and _DONE.get(command, "\0") in done.stderr:
            return True
        if done.returncode and not any(words in done.stderr for words in _NOT_YET):
            raise ClientError(done)
        refused.append(done.stderr)
        return done.returncode == 0

    until(accepted, what=f"{container.name}: {command}")


def _rebooted(container: Instance, before: int) -> bool:
    """Whether start-host of another start has run; the daemon says that it runs all the time."""
    try:
        return live.of(container).init not in {0, before}
    except FileNotFoundError:
        return False


def _clash(container: Instance, verbs: tuple[str, ...]) -> None:
    """Two at once, and the container is deleted; the daemon may refuse whichever comes second."""

    def attempt(verb: str) -> None:
        if verb in {"reboot", "poweroff"}:
            container.run(verb)
            return
        command, *flags = verb.split()
        container.client(command, container.name, *flags, check=False)

    container.wait_listening()
    with ThreadPoolExecutor() as pool:
        list(pool.map(attempt, verbs))
    if any(" ERROR " in line for line in our_log(container)):
        raise OSError("a hook failed")
    until(lambda: _deleted(container), what=f"{container.name} is deleted")


def _deleted(container: Instance) -> bool:
    container.client("delete", "--force", container.name, check=False)
    return container.name not in {one.name for one in container.client.instances()}
