# SPDX-License-Identifier: GPL-3.0-or-later
"""How it is told that a file of the base is newer than the container's own."""

from __future__ import annotations

import pytest

from pycor_hooks import masking
from pycor_hooks.masking import Times

OWN = Times(born=50, changed=90, modified=60, handle=b"a")
BASE = Times(born=None, changed=40, modified=30, handle=b"a")


@pytest.mark.parametrize(
    ("base", "own", "newer"),
    [
        ({}, {}, False),
        ({"handle": b"b"}, {}, True),  # another file than the one that was copied
        ({"handle": b"b"}, {"handle": b""}, False),  # it was no copy
        ({"handle": b""}, {}, False),  # a file system without handles
        ({"changed": 50}, {}, False),
        ({"changed": 51}, {}, True),
        ({"changed": 51, "handle": b""}, {"handle": b""}, True),
        ({"changed": 89}, {"born": None}, False),  # no birth: what was changed last is certain
        ({"changed": 91}, {"born": None}, True),
        ({"modified": 60}, {}, False),
        ({"modified": 61}, {}, True),  # the volume was copied, and is born anew
    ],
)
def test_newer(base: dict[str, object], own: dict[str, object], *, newer: bool) -> None:
    """By the file that was copied, by the times that nobody can set, by those that copies keep."""
    why = masking.newer(BASE._replace(**base), OWN._replace(**own))  # type: ignore[arg-type]
    assert bool(why) is newer


@pytest.mark.parametrize(
    ("own", "base", "says"),
    [
        ({"a": "1"}, {"a": "1"}, None),
        ({"a": "1", "mine": "1"}, {"a": "1"}, None),
        ({"a": "1", "b": "1"}, {"a": "1"}, "the base has b no more (here 1)"),
        ({"a": "1"}, {"a": "2"}, "the base has a 2 (here 1)"),
        ({}, {"a": "2"}, "the base has a 2 (here none)"),
        (
            {},
            {"a": "1", "b": "1", "c": "1", "d": "1"},
            "the base has a 1 (here none), b 1 (here none), c 1 (here none), … 4 in all",
        ),
    ],
)
def test_packages(own: dict[str, str], base: dict[str, str], says: str | None) -> None:
    """A package database hides a newer one where the base has others, of any time."""
    found = masking.compare_packages(own, base, {"mine"})
    assert found == (says and f"package database: {says}")
