# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks status`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pycor_hooks import output, status, usage, whereabouts
from pycor_hooks.commands import choice, options
from pycor_hooks.errors import printable
from pycor_hooks.host_errors import DaemonDown
from pycor_hooks.instance import Instance
from pycor_hooks.output import Column
from pycor_hooks.plan import label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pycor_hooks.record import Record

UNITS = ("B", "kB", "MB", "GB", "TB")
AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@click.command("status")
@options.containers
@click.option("--size", is_flag=True, help="Measure each container's own layer (slow).")
@options.list_format
@options.daemons
@options.debug
def status_command(
    names: tuple[str, ...], style: str, directories: tuple[str, ...], *, size: bool
) -> int:
    """Show the live overlays.

    \b
    States:
      mounted   all is well
      detached  the base was deleted, replaced or re-owned: restart the container, once the base
                is there
      orphaned  the container has ended: the watcher, or watch --once, takes it down
      missing   recorded, but not mounted: restart the container
      unrecorded  mounted, but its record is lost: the watcher, or watch --once, makes it anew
    GENERATION is that of the base which the container has come to; "1 of 2" where something of
    an older one is in use still: see stale.
    Exit status 1 if one is not mounted, or a size could not be measured.

    \b
    Examples:
      pycor-hooks status
      pycor-hooks status web1 staging/web2 --size
      pycor-hooks status --format json | jq -r '.[] | select(.state != "mounted").name'
    """  # noqa: D301 - click wants the character
    seen = status.look(options.looked_at(directories))
    rows = status.rows(seen)
    if names:
        rows = choice.pick(names, ((_key(row), row) for row in rows))
    unmeasured = _measure(rows, seen.records) if size else False
    output.write(rows, style=style, keys=status.KEYS, columns=_columns(rows, size=size))
    return int(unmeasured or any(row["state"] != status.MOUNTED for row in rows))


def _key(row: Mapping[str, object]) -> tuple[str, str]:
    return str(row["project"]), str(row["name"])


def _measure(rows: Sequence[status.Row], records: Sequence[Record]) -> bool:
    """Fill in the sizes; whether one could not be had."""
    apart = {one.merged: one for one in records if one.namespace}
    failed = False
    for row in rows:
        if row["upperdir"] is None:
            continue
        try:
            row["upper_bytes"] = _size(row, apart.get(str(row["merged"])))
        except (OSError, DaemonDown) as error:
            failed = True
            reason = error.strerror if isinstance(error, OSError) else error
            where = printable(f"{label(*_key(row))}: cannot measure {row['upperdir']}")
            click.echo(f"pycor-hooks: {where}: {reason}", err=True)
    return failed


def _size(row: status.Row, apart: Record | None) -> int:
    """The size of one layer; ``apart`` is its record where its daemon alone sees its volume."""
    if apart is None:
        return usage.upper_bytes(str(row["upperdir"]))
    container = Instance(apart.daemon, apart.project, apart.name)
    with whereabouts.volume_of(container, apart=True) as volume:
        return usage.upper_bytes(f"{volume}/overlay/upper")


def _columns(rows: Sequence[Mapping[str, object]], *, size: bool) -> list[Column]:
    """The table's columns: what fits beside each other, the rest is in the other formats."""
    now = time.time()
    columns = [
        Column("NAME", lambda row: label(*_key(row))),
        Column("BASE", output.text("base")),
        Column("BASE IS", output.text("base_state")),
        Column("STATE", output.text("state"), style=_state_style),
        Column("PID", output.text("pid"), right=True),
        Column("UP", lambda row: age(row["started_at"], now), right=True),
        Column("REFRESHED", lambda row: age(row["refreshed_at"], now), right=True),
        Column("GENERATION", _generation, right=True),
    ]
    if size:
        columns.insert(5, Column("SIZE", lambda row: amount(row["upper_bytes"]), right=True))
    if len({row["daemon"] for row in rows}) > 1:
        columns.insert(0, Column("DAEMON", output.text("daemon")))
    return columns


def _generation(row: Mapping[str, object]) -> str:
    """The generation that the container has converged to, and the base's where it is another."""
    base, own = (output.text(key)(row) for key in ("generation", "converged"))
    return base if own == base else f"{own} of {base}"


def _state_style(row: Mapping[str, object]) -> str:
    return "green" if row["state"] == status.MOUNTED else "bold red"


def age(moment: object, now: float) -> str:
    """How long ago an ISO 8601 time is: 45s, 12m, 3h, 20d; "-" for None."""
    if moment is None:
        return "-"
    seconds = max(0, int(now - datetime.fromisoformat(str(moment)).timestamp()))
    size, unit = next(((size, unit) for size, unit in AGES if seconds >= size), AGES[-1])
    return f"{seconds // size}{unit}"


def amount(count: object) -> str:
    """A number of bytes in decimal units: 12kB, 3.4MB; "-" for None."""
    if not isinstance(count, int):
        return "-"
    number = float(count)
    for unit in UNITS:
        if number < 1000 or unit == UNITS[-1]:  # noqa: PLR2004 - decimal units
            break
        number /= 1000
    return f"{number:.0f}{unit}" if number >= 10 or unit == "B" else f"{number:.1f}{unit}"  # noqa: PLR2004
