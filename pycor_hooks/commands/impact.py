# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks impact`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import click

from pycor_hooks import impact, manifest, output, plan, registry, whereabouts
from pycor_hooks.commands import choice, options
from pycor_hooks.errors import PycorError, printable
from pycor_hooks.output import Column
from pycor_hooks.plan import Base, by_base, label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pycor_hooks.impact import Row
    from pycor_hooks.record import Record

OF_NONE = "(no package)"


@click.command("impact")
@click.option("--base", metavar="[PROJECT/]NAME", help="This base.  [default: all that are used]")
@options.list_format
@options.daemons
@options.debug
def impact_command(base: str | None, style: str, directories: tuple[str, ...]) -> int:
    """Show what the stop of a base would bring.

    What has changed in it so far, by package, and which units of which containers use the old
    files. Once the base has stopped, what is started anew uses the new files, and what runs keeps
    the old ones until it is restarted. Nothing is changed by this.
    Exit status 1 if a base could not be looked at.

    \b
    Examples:
      pycor-hooks impact
      pycor-hooks impact --base debian
      pycor-hooks impact --format json | jq -r '.[] | select(.instance).unit' | sort | uniq -c
    """  # noqa: D301 - click wants the character
    options.need_root("impact")
    rows: list[Row] = []
    failed = False
    for of, records in _bases(base, directories).items():
        try:
            with whereabouts.shown(of.daemon, apart=plan.apart(records) or None):
                rows += impact.rows(impact.look(of, records))
        except (OSError, PycorError) as error:
            failed = True
            click.echo(f"pycor-hooks: {printable(str(error))}", err=True)
    if style == "table":
        _write_tables(rows)
    else:
        output.write(rows, style=style, keys=impact.KEYS, columns=())
    return int(failed)


def _bases(base: str | None, directories: Sequence[str]) -> dict[Base, list[Record]]:
    """The bases to tell about, each with the overlays that are live on it."""
    used = by_base(registry.records(options.looked_at(directories)))
    if base is None:
        return used
    return {of: used.get(of, []) for of in choice.bases(base, directories, used)}


def _write_tables(rows: Sequence[Row]) -> None:
    """One of what has changed, and below it one of who uses that."""
    packages = {(row["daemon"], row["base"], row["package"]): row for row in rows}
    output.write(list(packages.values()), style="table", keys=(), columns=PACKAGES)
    users = list(_by_unit(row for row in rows if row["instance"] is not None))
    if users:
        click.echo()
    output.write(users, style="table", keys=(), columns=USERS)


def _by_unit(rows: Iterable[Row]) -> Iterator[Row]:
    """A row for each unit, with all that it uses of whichever package."""

    def unit(row: Row) -> tuple[str, ...]:
        keys = ("daemon", "project", "instance", "unit")
        return (*(str(row[key]) for key in keys), f"{row['pid']:>10}" if not row["unit"] else "")

    for _, group in groupby(sorted(rows, key=unit), key=unit):
        same = list(group)
        files = {path for row in same for path in _list(row["files"])}
        packages = [str(row["package"] or OF_NONE) for row in same]
        yield same[0] | {"files": sorted(files), "packages": packages}


def _list(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def _count(key: str) -> Column:
    return Column(key.upper(), lambda row: str(row[key] or "-"), right=True)


PACKAGES = [
    Column("BASE", output.text("base")),
    Column("PACKAGE", lambda row: str(row["package"] or OF_NONE)),
    Column("VERSION", output.text("version")),
    Column("NEW VERSION", output.text("new_version")),
    *map(_count, manifest.KINDS),
]
USERS = [
    Column("INSTANCE", lambda row: label(str(row["project"]), str(row["instance"]))),
    Column("UNIT", output.text("unit")),
    Column("PID", output.text("pid"), right=True),
    Column("COMMAND", output.text("command")),
    Column("FILES", lambda row: str(len(_list(row["files"]))), right=True),
    Column("OF", lambda row: ", ".join(_list(row["packages"]))),
]
