# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that may never end is given up, and not begun again while it goes on."""

from __future__ import annotations

import threading

import pytest

from lab.wait import until
from pycor_hooks import patience
from pycor_hooks.host_errors import NeverEnds
from pycor_hooks.patience import Patience
from tests.unit.test_status import recorded

WEB1, WEB2 = recorded(), recorded(name="web2")


def test_what_ends() -> None:
    """Its result is given back, its error raised, and the next one begins anew."""
    waiting: Patience[int] = Patience()
    assert waiting.wait_for(WEB1, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        waiting.wait_for(WEB1, lambda: 1 // 0)
    assert waiting.wait_for(WEB1, lambda: 8) == 8


def test_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, let alone while it goes on, and keeps no other waiting."""
    monkeypatch.setattr(patience, "LONGEST", 0.05)
    waiting: Patience[int] = Patience()
    free, ended = threading.Event(), threading.Event()

    def slow() -> int:
        free.wait(30)
        ended.set()
        return 7

    for work in (slow, lambda: 8):
        with pytest.raises(NeverEnds, match="a process of web1"):
            waiting.wait_for(WEB1, work)
    assert waiting.wait_for(WEB2, lambda: 9) == 9
    free.set()
    assert ended.wait(30)
    until(lambda: _answer(waiting) == 8, what="it is begun again", timeout_s=10)


def _answer(waiting: Patience[int]) -> int:
    try:
        return waiting.wait_for(WEB1, lambda: 8)
    except NeverEnds:
        return 0
