# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks stale`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from pycor_hooks import lost, output, registry, stalerows
from pycor_hooks.commands import choice, options
from pycor_hooks.commands.status import age
from pycor_hooks.errors import PycorError, printable
from pycor_hooks.host_errors import DaemonDown
from pycor_hooks.output import Column
from pycor_hooks.plan import by_base, label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pycor_hooks.record import Record
    from pycor_hooks.stalerows import Row


@click.command("stale")
@options.containers
@options.base
@click.option("--paths", is_flag=True, help="In the table, a line for every file.")
@options.list_format
@options.daemons
@options.debug
def stale_command(
    names: tuple[str, ...],
    base: str | None,
    style: str,
    directories: tuple[str, ...],
    *,
    paths: bool,
) -> int:
    """Show who still runs code that an update has replaced or deleted.

    A row for each unit of a container, or process without one, that does, as needrestart in the
    container would name it (but for modules that a script has loaded); and for each path that
    could not be cured, with the reason.
    JSON, CSV and YAML have the same keys for both: "reason" is null for the first kind, and
    "unit", "pid" and "command" are for the second. "files" is a list always; "since" and
    "generation" say which update did it, and are null where the container replaced the file by
    itself, or it was too long ago. It works with the daemon down, but for one that keeps its
    volumes to itself (the snap's): then what was noted before is shown, and the rest named.
    Exit status 0 if nothing is stale, 1 if something is, or cannot be looked at.

    \b
    Examples:
      pycor-hooks stale
      pycor-hooks stale web1 staging/web2 --paths
      pycor-hooks stale --base debian --format json | jq -r '.[].unit | values' | sort | uniq -c
    """  # noqa: D301 - click wants the character
    options.need_root("stale")
    rows, failed = look(chosen(names, base, directories))
    show(rows, style, paths=paths)
    return int(failed or bool(rows))


def chosen(names: Sequence[str], base: str | None, directories: Sequence[str]) -> list[Record]:
    """The containers that were named, all where none was; also those whose record is lost."""
    daemons = options.looked_at(directories)
    records = [*registry.records(daemons), *lost.records(daemons)]
    return choice.containers(records, names, base, directories)


def look(records: Iterable[Record]) -> tuple[list[Row], bool]:
    """The rows of some containers, and whether one base could not be looked at, as was said."""
    rows: list[Row] = []
    troubles = []
    for base, on_it in sorted(by_base(records).items()):
        try:
            seen = stalerows.look(base, on_it)
        except (OSError, ValueError, PycorError) as error:
            troubles.append(f"{base}: {error}")
            continue
        rows += stalerows.rows(seen)
        if not seen.there:
            troubles.append(f"{base}: {DaemonDown(directory=base.daemon)}")
    for text in troubles:
        click.echo(f"pycor-hooks: {printable(text)}", err=True)
    return rows, bool(troubles)


def show(rows: Sequence[Row], style: str, *, paths: bool = False) -> None:
    """Print the list; ``paths``: the table has a line for every file."""
    if paths and style == "table":
        rows = list(_by_file(rows))
    output.write(rows, style=style, keys=stalerows.KEYS, columns=_columns(rows, paths=paths))


def _by_file(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        for path in _files(row):
            yield row | {"files": [path]}


def _columns(rows: Iterable[Row], *, paths: bool) -> list[Column]:
    now = time.time()
    columns = [
        Column("INSTANCE", lambda row: label(str(row["project"]), str(row["instance"]))),
        Column("UNIT", output.text("unit")),
        Column("PID", output.text("pid"), right=True),
        Column("COMMAND", output.text("command")),
        Column("FILE", lambda row: _files(row)[0]) if paths else Column("FILES", _count_or_path),
        Column("SINCE", lambda row: age(row["since"], now), right=True),
        Column("GENERATION", output.text("generation"), right=True),
        Column("REASON", lambda row: str(row["reason"] or ""), style=lambda _row: "bold red"),
        Column("WHAT TO DO", lambda row: str(row["remedy"])),
    ]
    if len({row["daemon"] for row in rows}) > 1:
        columns.insert(0, Column("DAEMON", output.text("daemon")))
    return columns


def _count_or_path(row: Mapping[str, object]) -> str:
    """How many files of a unit are old; or the path that could not be cured."""
    files = _files(row)
    return files[0] if row["reason"] else str(len(files))


def _files(row: Mapping[str, object]) -> list[str]:
    files = row["files"]
    return files if isinstance(files, list) else []
