# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that tells what of a container could not be converged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import record, stale
from pycor_hooks.stale import Stale, Uncured
from pycor_hooks.staleness import Reason

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> record.Record:
    """A record, and its directory."""
    monkeypatch.setattr(record, "RUN", str(tmp_path))
    made = record.Record(daemon="/var/lib/lxd", project="default", name="web1")
    os.makedirs(made.directory)
    return made


def test_written_and_read(found: record.Record) -> None:
    """Any name comes back, also one that is no text; without anything stale there is no file."""
    paths = [Uncured("/etc/h\udcffsts\n", Reason.MOUNTED), Uncured("/", Reason.REPLACED)]
    assert stale.read(found) is None
    stale.write(found, 7, paths)
    assert stale.read(found) == Stale(7, paths)
    stale.write(found, None, paths[:1])
    assert stale.read(found) == Stale(None, paths[:1])
    stale.write(found, 8, [])
    assert stale.read(found) is None
    assert os.listdir(found.directory) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"generation": 1, "paths": [{"path": "/", "reason": "odd"}]}']
)
def test_not_ours(found: record.Record, text: str) -> None:
    """What is not written by us is told so."""
    with open(f"{found.directory}/stale", "w") as file:
        file.write(text)
    with pytest.raises(ValueError, match=r"stale|Expecting"):
        stale.read(found)
