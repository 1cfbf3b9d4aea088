# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists in their four forms, and lines about the work."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml

from pycor_hooks import output
from pycor_hooks.output import Column, Note

KEYS = ("name", "dirs", "size")
COLUMNS = [
    Column("NAME", lambda row: str(row["name"])),
    Column("SIZE", lambda row: str(row["size"]), right=True),
]
ROWS: list[dict[str, object]] = [
    {"name": "web1", "dirs": ["/a", "/b"], "size": 5, "hidden": 1},
    {"name": "[red]\x1b[31m,\n\udcff", "dirs": [], "size": None, "hidden": 2},
]


def written(style: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The list in one form."""
    output.write(ROWS, style=style, keys=KEYS, columns=COLUMNS)
    return capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON holds the keys that were promised, in ASCII, and gives back what went in."""
    text = written("json", capsys)
    assert text.isascii()
    assert json.loads(text) == [{key: row[key] for key in KEYS} for row in ROWS]


def test_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    """YAML holds the same, in the same order."""
    loaded = yaml.safe_load(written("yaml", capsys))
    assert loaded[0] == {"name": "web1", "dirs": ["/a", "/b"], "size": 5}
    assert list(loaded[0]) == list(KEYS)
    assert loaded[1]["name"].startswith("[red]\x1b[31m,\n")


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """CSV has a header, lists with colons, nothing for null, and no bytes for a terminal."""
    rows = list(csv.reader(io.StringIO(written("csv", capsys))))
    assert rows == [list(KEYS), ["web1", "/a:/b", "5"], [r"[red]\x1b[31m,\n\udcff", "", ""]]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """In a table what a name holds is shown, and neither terminal nor rich acts on it."""
    lines = [line.rstrip() for line in written("table", capsys).splitlines()]
    assert lines == [
        "NAME                    SIZE",
        "web1                       5",
        r"[red]\x1b[31m,\n\udcff  None",
    ]


def test_table_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe has no width: a long path stays on its line."""
    path = "/" + "x" * 500
    output.write([{"name": path, "size": 1}], style="table", keys=KEYS, columns=COLUMNS)
    assert path in capsys.readouterr().out


@pytest.mark.parametrize(
    ("style", "expected"),
    [("table", ""), ("json", "[]\n"), ("csv", "name,dirs,size\r\n"), ("yaml", "[]\n")],
)
def test_empty(style: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A list without rows is a list still, for programs."""
    output.write([], style=style, keys=KEYS, columns=COLUMNS)
    assert capsys.readouterr().out == expected


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What was done goes to standard output, what to know to standard error."""
    assert output.tell(["done \x07", Note("know")])
    assert not output.tell([Note("know")])
    captured = capsys.readouterr()
    assert captured.out == "done \\x07\n"
    assert captured.err == "note: know\nnote: know\n"
