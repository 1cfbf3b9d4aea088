# SPDX-License-Identifier: GPL-3.0-or-later
"""What an upper hides of its base."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab.tree import deep
from pycor_hooks.attributes import of
from pycor_hooks.beneath import Tree
from pycor_hooks.hiding import Hiding, Upper
from pycor_hooks.parents import Parents

if TYPE_CHECKING:
    from pathlib import Path

DEEP = "/".join("d" * 900)
"""Deeper than two frames for each directory would let Python go."""


def test_a_path_of_an_upper(tmp_path: Path) -> None:
    """It hides what it has, and what lies below a file; not what it merges or has nothing of."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    with Tree(str(tmp_path)) as upper:
        hiding = Hiding(upper)
        asked = ("", "dir", "dir/file", "dir/file/below", "dir/none", "none", "none/below")
        merged, hidden, absent = Upper.MERGES, Upper.HIDES, Upper.ABSENT
        expected = [merged, merged, hidden, hidden, absent, absent, absent]
        assert [hiding.of(path) for path in asked] == expected


def test_a_deep_upper(tmp_path: Path) -> None:
    """It may be as deep as the container likes."""
    with deep(str(tmp_path), DEEP.split("/"), make=True):
        pass
    parents = Parents(str(tmp_path))
    with Tree(str(tmp_path)) as upper:
        assert Hiding(upper).of(f"{DEEP}/none") is Upper.ABSENT
        assert Hiding(upper).of(DEEP) is Upper.MERGES
        for end in range(1, len(DEEP) + 1, 2):
            descriptor = upper.open(DEEP[:end])
            parents.add(DEEP[:end], of(descriptor))
            os.close(descriptor)
        assert parents.holds_nothing_own("d", upper)
