# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks restart`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from pycor_hooks import output, rollout
from pycor_hooks.commands import options, stale
from pycor_hooks.errors import printable
from pycor_hooks.host_errors import Stopped
from pycor_hooks.plan import label, name_of
from pycor_hooks.renewal import renew

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pycor_hooks.record import Record
    from pycor_hooks.renewal import Outcome


@click.command("restart")
@options.containers
@options.base
@click.option("--dry-run", "dry", is_flag=True, help="Only say what would be done.")
@click.option(
    "--serial",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Containers at a time.",
)
@options.list_format
@options.daemons
@options.debug
def restart_command(  # noqa: PLR0913 - an argument per option
    names: tuple[str, ...],
    base: str | None,
    serial: int,
    style: str,
    directories: tuple[str, ...],
    *,
    dry: bool,
) -> int:
    """Restart the units that still run replaced or deleted code, as `stale` shows them.

    systemd itself is re-executed (systemctl daemon-reexec). What needrestart leaves alone by
    default (dbus, logind, gettys, display managers, networks, VPNs, docker, libvirt and the like),
    sessions, what has no unit, and a container without systemd are named: they come to the new
    code when the container is restarted. One container after the other, or --serial at a time;
    if a unit fails that was well before, no further container is begun. Nothing is restarted
    while the base runs.
    In the end it shows what is stale still, as `stale` does: in JSON, CSV or YAML, that alone is
    on standard output. Exit status 0 if nothing is, 1 also where only a
    restart of the container is left, or with --dry-run where there is something to do.

    \b
    Examples:
      pycor-hooks restart --dry-run
      pycor-hooks restart web1
      pycor-hooks restart --base debian --serial 4
      pycor-hooks restart web1 --format json | jq -r '.[] | .unit + ": " + .remedy'
    """  # noqa: D301 - click wants the character
    options.need_root("restart")
    records = stale.chosen(names, base, directories)
    rows, failed = stale.look(records)
    wanted = {(row["daemon"], row["project"], row["instance"]) for row in rows if row["pid"]}
    todo = [one for one in records if (one.daemon, one.project, one.name) in wanted]
    outcomes = rollout.roll_out(todo, serial, partial(renew, dry=dry))
    begun = list(_shown(outcomes, len(todo), style))
    left = [one for one in todo if one.directory not in {each.record.directory for each in begun}]
    if not dry and begun:
        rows, failed = stale.look(records)
    stale.show(rows, style)
    if left:
        raise Stopped(left=_names(left))
    return int(failed or bool(rows) or any(outcome.trouble for outcome in begun))


def _names(records: Sequence[Record]) -> str:
    return ", ".join(name_of(one) for one in records)


def _shown(outcomes: Iterable[Outcome], total: int, style: str) -> Iterator[Outcome]:
    """Tell each outcome as it comes: above a bar on a terminal, as plain lines elsewhere."""
    if style != "table" or not sys.stdout.isatty():
        for outcome in outcomes:
            output.tell(outcome.said, aside=style != "table")
            click.echo("".join(f"{line}\n" for line in _trouble(outcome)), err=True, nl=False)
            yield outcome
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress  # noqa: PLC0415 - see output
    from rich.text import Text  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("containers", total=total)
        for outcome in outcomes:
            for line in (*outcome.said, *_trouble(outcome)):
                progress.print(Text(printable(line)))
            progress.advance(task)
            yield outcome


def _trouble(outcome: Outcome) -> list[str]:
    """The line about a container in trouble, if it is."""
    name = label(outcome.record.project, outcome.record.name)
    text = printable(f"pycor-hooks: {name}: {outcome.trouble}")
    return [text] if outcome.trouble else []
