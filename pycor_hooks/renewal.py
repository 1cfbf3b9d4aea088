# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring one running container to the new code: restart what is stale, and look how it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import execution, oldcode, procs, restartd, restarting, unitstates
from pycor_hooks.client import Connection
from pycor_hooks.errors import PycorError
from pycor_hooks.host_errors import BaseRuns, ExecFailed
from pycor_hooks.instance import Instance, client_of, flag_of
from pycor_hooks.output import Note
from pycor_hooks.plan import base_of, name_of
from pycor_hooks.sockets import find_daemons

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pycor_hooks.execution import Done
    from pycor_hooks.record import Record
    from pycor_hooks.restarting import Plan
    from pycor_hooks.unitstates import State

ASK = 20.0
"""Seconds that systemd has for an answer."""
RESTART = 180.0
"""Seconds that units have to stop and start; systemd gives each 90 for either, as it comes."""
REEXEC = 20.0
"""Seconds that systemd has to execute itself."""
SETTLE = 1.5
"""Seconds in which a unit that was restarted well may show that it was not."""
LEAVE = 10.0
"""Seconds that the old processes of a unit may take to leave, once new ones do their work."""
TRIES = 3
"""Times that the states are asked for: LXD may lose what a short command has written."""


class Outcome(NamedTuple):
    """What became of one container.

    `said`: for people. `trouble`: "" where there is none. `changed`: whether that came when
    something was restarted, so that others may fare alike. `later`: whether nothing was done, as
    the base runs.
    """

    record: Record
    said: list[str]
    trouble: str
    changed: bool = False
    later: bool = False


def renew(record: Record, *, dry: bool = False) -> Outcome:
    """Bring one container to the new code.

    Args:
        record: of its overlay.
        dry: only say what would be done.
    """
    said: list[str] = []
    renewal = _Renewal(record)
    base = base_of(record)
    try:
        for plan in map(restarting.plan, oldcode.look(base, [record])):
            said += [f"would {what}" for what in _doings(record, plan)] if dry else []
            said += _left(record, plan if dry else renewal.run(plan, said))
    except (OSError, ValueError, PycorError) as error:
        later = isinstance(error, BaseRuns)
        return Outcome(record, _named(record, said), str(error), renewal.changed, later)
    return Outcome(record, _named(record, said), "")


def _named(record: Record, said: Sequence[str]) -> list[str]:
    name = name_of(record)
    return [type(line)(f"{name}: {line}") for line in said]


def _doings(record: Record, plan: Plan) -> Iterator[str]:
    if plan.reexec:
        yield "have systemd execute itself anew"
    scripts = restartd.find(record, plan.units)
    for script in scripts.values():
        yield f"run {script}"
    units = [unit for unit in plan.units if unit not in scripts]
    if units:
        yield f"restart {', '.join(units)}"


def _left(record: Record, plan: Plan) -> Iterator[Note]:
    """What a restart of units does not do, with what does."""
    name = name_of(record)
    if plan.container:
        command = f"{client_of(record.daemon)} restart {record.name}{flag_of(record.project)}"
        who = ", ".join(plan.container)
        if procs.unit(record.init) != restarting.MANAGER:
            who = f"it has no systemd ({who})"
        yield Note(f"needs a restart of the container: {who}: {command}")
    if plan.held:
        who = ", ".join(plan.held)
        yield Note(f"would find the old code again: {who}: pycor-hooks remount {name}")


class _Renewal:
    """The restart of what is stale in one container."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.changed = False

    def run(self, plan: Plan, said: list[str]) -> Plan:
        """Do what is planned, and say it; the plan as it is then: systemd may refuse some.

        Raises:
            BaseRuns: a unit would start from a base that is being changed; nothing was done.
            ExecFailed: something of it did not work, or the container is worse than before.
            PycorError: its daemon does not answer, or refuses.
        """
        if not plan.units and not plan.reexec:
            return plan
        base = base_of(self._record)
        if Instance(*base).running():
            raise BaseRuns(base=base)
        (daemon,) = find_daemons([self._record.daemon])
        with Connection.to_running(daemon, self._record.project) as connection:
            self._connection = connection
            before = self._states()
            units = [unit for unit in plan.units if _may_restart(before.get(unit))]
            refused = set(plan.units) - set(units)
            plan = plan._replace(units=units, container=sorted({*plan.container, *refused}))
            self.changed = True
            if plan.reexec:
                self._reexec(before)
                said.append("systemd has executed itself anew")
            if units:
                self._restart(units, before, said)
        return plan

    def _run(self, *words: str, timeout: float = ASK) -> Done:
        return execution.run(self._connection, self._record.name, words, timeout=timeout)

    def _states(self) -> dict[str, State]:
        for _ in range(TRIES):
            done = self._run(*unitstates.COMMAND)
            try:
                return unitstates.parse(done.output)
            except ValueError:
                continue
        reason = f"no states of units: {_complaint(done)}"
        raise ExecFailed(words="systemctl show", name=self._record.name, reason=reason)

    def _reexec(self, before: dict[str, State]) -> None:
        done = self._run("systemctl", "daemon-reexec", timeout=REEXEC)
        deadline = time.monotonic() + REEXEC
        while oldcode.is_deleted(self._record.init):
            if done.status or time.monotonic() > deadline:
                reason = _complaint(done) or "it still runs its old code"
                raise ExecFailed(
                    words="systemctl daemon-reexec", name=self._record.name, reason=reason
                )
            time.sleep(0.1)
        self._compare(before, [], "systemctl daemon-reexec")

    def _restart(self, units: Sequence[str], before: dict[str, State], said: list[str]) -> None:
        """Restart units, each in the way that the container has for it."""
        scripts = restartd.find(self._record, units)
        for unit, script in scripts.items():
            self._change([unit], before, script)
            said.append(f"restarted {unit} by {script}")
        others = [unit for unit in units if unit not in scripts]
        if others:
            self._change(others, before, "systemctl", "restart", "--", *others)
            said.append(f"restarted {', '.join(others)}")

    def _change(self, units: Sequence[str], before: dict[str, State], *words: str) -> None:
        done = self._run(*words, timeout=RESTART)
        if not done.status:
            self._settle(units)
        command = " ".join(words[:2])
        self._compare(before, units, command)
        if done.status:
            raise ExecFailed(words=command, name=self._record.name, reason=_complaint(done))

    def _compare(self, before: dict[str, State], restarted: Sequence[str], command: str) -> None:
        """Say what is worse than before, if anything is."""
        troubles = list(unitstates.troubles(before, self._states(), restarted))
        if troubles:
            raise ExecFailed(words=command, name=self._record.name, reason="; ".join(troubles))

    def _settle(self, units: Sequence[str]) -> None:
        """Wait until a fault would show, and until who only answers its last requests is gone."""
        time.sleep(SETTLE)
        init, deadline = self._record.init, time.monotonic() + LEAVE
        while time.monotonic() < deadline and any(
            procs.unit(pid) in units and oldcode.is_deleted(pid)
            for pid in procs.of_containers([init])[init]
        ):
            time.sleep(0.1)


def _may_restart(state: State | None) -> bool:
    """Whether systemd would; it does not know what is only a cgroup that is called like a unit."""
    return state is not None and not state.refuses_stop


def _complaint(done: Done) -> str:
    """What a command that failed complained of at first; what systemctl adds are hints."""
    nothing = f"it ended with status {done.status}" if done.status else ""
    return next((line for line in done.errors.splitlines() if line.strip()), nothing)
