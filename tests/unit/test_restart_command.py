# SPDX-License-Identifier: GPL-3.0-or-later
"""What `restart` shows while it works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycor_hooks.commands import restart
from pycor_hooks.output import Note
from pycor_hooks.renewal import Outcome
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    import pytest

OUTCOME = Outcome(recorded(), ["web1: restarted [b]a.service", Note("web1: more")], "bad \x1b[2J")


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody looks: what was done on standard output, the rest on standard error."""
    assert list(restart._shown([OUTCOME], 1, "table")) == [OUTCOME]
    said = capsys.readouterr()
    assert said.out == "web1: restarted [b]a.service\n"
    assert said.err == "note: web1: more\npycor-hooks: web1: bad \\x1b[2J\n"


def test_beside_a_list_for_programs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it on standard error, on a terminal too: the list alone is on standard output."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert list(restart._shown([OUTCOME], 1, "json")) == [OUTCOME]
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("web1: restarted [b]a.service\nnote: web1: more\n")


def test_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line stands by itself above the bar, and is not obeyed."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert list(restart._shown([OUTCOME], 1, "table")) == [OUTCOME]
    out = capsys.readouterr().out.replace("\r", "\n").replace("\x1b[2K", "")
    lines = {line.rstrip() for line in out.splitlines()}
    assert {
        "web1: restarted [b]a.service",
        "web1: more",
        "pycor-hooks: web1: bad \\x1b[2J",
    } <= lines
