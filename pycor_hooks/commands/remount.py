# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks remount`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from pycor_hooks import (
    converge,
    convergence,
    generations,
    output,
    plan,
    recovery,
    refreshing,
    registry,
    whereabouts,
)
from pycor_hooks.commands import choice, options
from pycor_hooks.errors import PycorError, printable
from pycor_hooks.host_errors import DaemonDown, NeverEnds, NothingNamed
from pycor_hooks.output import Column
from pycor_hooks.patience import Patience
from pycor_hooks.plan import by_base, label, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

REFRESHED = "refreshed"
STALE = "stale"
PENDING = "pending"
FAILED = "failed"
KEYS = ("daemon", "project", "name", "base", "result", "reason")


@click.command("remount")
@options.containers
@options.base
@click.option("--all", "everything", is_flag=True, help="All overlays.")
@options.list_format
@options.daemons
@options.debug
def remount_command(
    names: tuple[str, ...],
    base: str | None,
    style: str,
    directories: tuple[str, ...],
    *,
    everything: bool,
) -> int:
    """Refresh overlays by hand, and cure what their containers hold of the old base.

    Their containers then see the base as it is now. Needed only after changes that the daemon
    does not announce (incus file push into a stopped base), or where no watcher runs.

    \b
    Results:
      refreshed
      stale    refreshed, and something could not be cured: see the reason
      pending  not now: the base runs, or the container ended meanwhile, or its daemon is down
      failed

    Exit status 1 if one is not refreshed.

    \b
    Examples:
      pycor-hooks remount web1 staging/web2
      pycor-hooks remount --base debian
      pycor-hooks remount --all
    """  # noqa: D301 - click wants the character
    if everything == bool(names or base):
        raise NothingNamed
    options.need_root("remount")
    daemons = options.looked_at(directories)
    findings = recovery.recover(daemons)
    for finding in findings:
        click.echo(f"pycor-hooks: {printable(f'{finding.name}: {finding.text}')}", err=True)
    records = registry.records(daemons)
    chosen = choice.containers(records, names, base, directories)
    rows = [row for of, group in by_base(chosen).items() for row in refresh(of, group)]
    output.write(rows, style=style, keys=KEYS, columns=COLUMNS)
    failed = any(finding.failed for finding in findings)
    return int(failed or any(row["result"] != REFRESHED for row in rows))


def refresh(base: Base, records: list[Record]) -> list[dict[str, object]]:
    """Refresh overlays of one base, and let their containers converge.

    Returns:
        A row for each, with KEYS.
    """
    failures = refreshing.refresh_while_stopped(base, records)
    if failures is None:
        return _pending(base, records)
    try:
        with whereabouts.shown(base.daemon, apart=plan.apart(records)):
            return _see_to(base, records, failures)
    except DaemonDown as error:
        return [_row(one, PENDING, str(error)) for one in records]


def _see_to(
    base: Base, records: list[Record], failures: Sequence[refreshing.Failure]
) -> list[dict[str, object]]:
    reasons = {failure.record.directory: str(failure.error) for failure in failures}
    try:
        found = generations.update(base)
        if found is None:
            return _pending(base, records)
        generation: int | None = found.generation
    except FileNotFoundError:
        generation = None  # the base is gone
    except (OSError, PycorError) as error:
        return [_row(one, FAILED, reasons.get(one.directory, str(error))) for one in records]

    history = convergence.History(base)
    patience: Patience[dict[str, object]] = Patience()

    def see_to(one: Record) -> dict[str, object]:
        if one.directory in reasons:
            return _row(one, FAILED, reasons[one.directory])
        try:
            return patience.wait_for(one, lambda: _converge(one, generation, history))
        except NeverEnds as error:
            return _row(one, FAILED, str(error))

    with ThreadPoolExecutor(refreshing.CORES) as pool:
        return list(pool.map(see_to, records))


def _pending(base: Base, records: list[Record]) -> list[dict[str, object]]:
    reason = f"base {base} runs: its overlays are refreshed when it has stopped"
    return [_row(one, PENDING, reason) for one in records]


def _converge(
    one: Record, generation: int | None, history: convergence.History
) -> dict[str, object]:
    try:
        result = converge.converge(one, generation, history.since)
    except (OSError, PycorError) as error:
        return _row(one, FAILED, str(error))
    if result is None:
        return _row(one, PENDING, "it has stopped meanwhile, or its base was started: try again")
    if not result.reasons:
        return _row(one, REFRESHED, None)
    return _row(one, STALE, convergence.describe(result.reasons, name_of(one)))


def _row(one: Record, result: str, reason: str | None) -> dict[str, object]:
    return {
        "daemon": one.daemon,
        "project": one.project,
        "name": one.name,
        "base": label(one.base_project, one.base_name),
        "result": result,
        "reason": reason,
    }


def _style(row: Mapping[str, object]) -> str:
    return "green" if row["result"] == REFRESHED else "bold red"


COLUMNS = [
    Column("NAME", lambda row: label(str(row["project"]), str(row["name"]))),
    Column("BASE", lambda row: str(row["base"])),
    Column("RESULT", lambda row: str(row["result"]), style=_style),
    Column("REASON", lambda row: str(row["reason"] or "")),
]
