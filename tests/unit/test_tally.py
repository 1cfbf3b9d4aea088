# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of faults: what it counts, and when it fails a case."""

from __future__ import annotations

import pytest

from lab.tally import Tally


def test_nothing_injected() -> None:
    """Without a fault there is no table."""
    assert Tally().lines() == []


def test_survived() -> None:
    """A fault that raises is counted as injected, and not as survived."""
    tally = Tally()
    with tally.injected("EIO", times=3):
        pass
    with pytest.raises(OSError, match="disk"), tally.injected("EIO"):
        raise OSError("disk")
    assert tally.lines()[1].split() == ["EIO", "4", "3", "0"]


def test_lost() -> None:
    """What was lost is counted, named, and fails the case."""
    tally = Tally()
    tally.lost("EIO", [])
    with pytest.raises(AssertionError, match="mount: /run/x"):
        tally.lost("EIO", ["mount: /run/x", "file: y"])
    assert tally.lines()[1].split() == ["EIO", "0", "0", "2"]


def test_leaked_afterwards() -> None:
    """A leak that was found after the case counts for the last fault that it injected."""
    tally = Tally()
    tally.leaked_afterwards()
    assert tally.lines() == []
    for fault in ("EIO", "ENOSPC"):
        with tally.injected(fault):
            pass
    tally.leaked_afterwards()
    assert [line.split()[-1] for line in tally.lines()[1:]] == ["0", "1"]
