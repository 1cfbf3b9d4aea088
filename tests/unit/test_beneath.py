# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that lead nowhere in a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pycor_hooks.beneath import Tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", ["x" * 256, f"{'x' * 256}/y", f"{'x' * 1024}/y", "x/" * 3000])
def test_names_longer_than_any(path: str, tmp_path: Path) -> None:
    """A file system of a container's may have them (FUSE: 1,024 bytes); here nothing has."""
    with Tree(str(tmp_path)) as tree:
        assert tree.lstat(path) is None
        assert tree.list(path) == []
