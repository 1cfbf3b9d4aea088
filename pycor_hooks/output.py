# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists for people and for programs: a table, or JSON, CSV or YAML with the same keys.

All four go to standard output; what is said about the work goes to standard error, so that
a program can read the one without the other.
rich and yaml are imported where they are used: `status --format json` is run by monitoring, often.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, NamedTuple

import click

from pycor_hooks.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

FORMATS = ("table", "json", "csv", "yaml")
# Wide enough for any row: a pipe has no width, and rich would cut the table at 80.
PIPE_WIDTH = 10_000


class Note(str):
    """A line that says what to know or to do, among lines that say what was done."""

    __slots__ = ()


def tell(lines: Iterable[str], *, aside: bool = False) -> bool:
    """Print lines as they come, notes to standard error; ``aside``: all of them.

    Returns:
        Whether any of them says that something was done.
    """
    done = False
    for line in lines:
        note = isinstance(line, Note)
        click.echo(printable(f"note: {line}" if note else line), err=note or aside)
        done = done or not note
    return done


class Column(NamedTuple):
    """A column of the table.

    `heading` stands above it, `cell` makes its text from a row,
    `right` aligns it to the right, `style` gives a rich style for a row ("" for none).
    """

    heading: str
    cell: Callable[[Mapping[str, object]], str]
    right: bool = False
    style: Callable[[Mapping[str, object]], str] = lambda _row: ""


def text(key: str) -> Callable[[Mapping[str, object]], str]:
    """The cell that shows a field of the row; "-" for null."""
    return lambda row: "-" if row[key] is None else str(row[key])


def write(
    rows: Sequence[Mapping[str, object]],
    *,
    style: str,
    keys: Sequence[str],
    columns: Sequence[Column],
) -> None:
    """Print a list.

    Args:
        rows: each with all of `keys`; values are what JSON can hold.
        style: one of FORMATS.
        keys: the fields of JSON, CSV and YAML, in this order.
        columns: those of the table; it is not printed where there are no rows.
    """
    if style == "table":
        if rows:
            write_table(rows, columns)
        return
    picked = [{key: row[key] for key in keys} for row in rows]
    click.echo({"json": as_json, "csv": as_csv, "yaml": as_yaml}[style](picked, keys), nl=False)


def as_json(rows: Sequence[Mapping[str, object]], _keys: Sequence[str]) -> str:
    """A JSON array of objects, in ASCII: a path that is not UTF-8 keeps its bytes as an escape."""
    return json.dumps(rows, indent=2) + "\n"


def as_csv(rows: Sequence[Mapping[str, object]], keys: Sequence[str]) -> str:
    """CSV with a header (RFC 4180).

    A list is joined with colons, null is empty, and what a terminal would act on is escaped.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(keys)
    for row in rows:
        writer.writerow([_csv_cell(row[key]) for key in keys])
    return text.getvalue()


def as_yaml(rows: Sequence[Mapping[str, object]], _keys: Sequence[str]) -> str:
    """A YAML list of mappings."""
    import yaml  # noqa: PLC0415 - see the top

    return str(yaml.safe_dump(list(rows), sort_keys=False))


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    text = ":".join(map(str, value)) if isinstance(value, list) else str(value)
    return printable(text)


def write_table(rows: Sequence[Mapping[str, object]], columns: Sequence[Column]) -> None:
    """Print a table with rich; what a container or an operator named is shown, never obeyed."""
    from rich.console import Console  # noqa: PLC0415 - see the top
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify = "right" if column.right else "left"
        table.add_column(column.heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(printable(c.cell(row)), style=c.style(row)) for c in columns))
    console.print(table)
