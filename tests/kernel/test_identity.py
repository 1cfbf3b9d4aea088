# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells a base's tree from another one in its place."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pycor_hooks.instance import identity_of

if TYPE_CHECKING:
    from pathlib import Path


def test_files_in_the_tree_may_change(tmp_path: Path) -> None:
    """The tree is the same one whatever changes in it, and another one for other owners."""
    before = identity_of(str(tmp_path))
    (tmp_path / "new").touch()
    tmp_path.chmod(0o711)
    assert identity_of(str(tmp_path)) == before
    try:
        os.chown(tmp_path, 1000, 1000)
    except OSError:
        return  # in a user namespace with one id
    assert identity_of(str(tmp_path)) != before


def test_a_directory_made_again(tmp_path: Path) -> None:
    """A directory in the place of another is another tree, with the same inode number too."""
    tree = tmp_path / "rootfs"
    tree.mkdir()
    before = identity_of(str(tree))
    tree.rmdir()
    tree.mkdir()
    assert identity_of(str(tree)) != before


@pytest.mark.host_root
def test_a_subvolume_made_again(tmp_path: Path) -> None:
    """A btrfs subvolume made again from the same snapshot is another tree, told by its handle.

    Its device number may be the old one again; that is nobody's to promise while others mount.
    """
    disk, top = tmp_path / "disk", tmp_path / "top"
    disk.touch()
    os.truncate(disk, 128 << 20)
    top.mkdir()
    subprocess.run(["mkfs.btrfs", "--quiet", disk], check=True)
    mount = ["mount", "-o", "loop", str(disk), str(top)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a btrfs here")
    try:
        _btrfs("create", top / "image")
        (top / "image" / "rootfs").mkdir()
        _btrfs("snapshot", top / "image", top / "base")
        held = os.open(top / "base" / "rootfs", os.O_RDONLY)  # as an overlay holds it
        before = identity_of(f"{top}/base/rootfs")
        _btrfs("delete", top / "base")
        _btrfs("snapshot", top / "image", top / "base")
        after = identity_of(f"{top}/base/rootfs")
        os.close(held)
    finally:
        subprocess.run(["umount", top], check=True)
    (_, *same, handle), (_, *same_again, another) = (each.split(":") for each in (before, after))
    assert handle != another
    assert same == same_again, "no need for a handle any more"


def _btrfs(*words: str | os.PathLike[str]) -> None:
    subprocess.run(["btrfs", "subvolume", *words], check=True, stdout=subprocess.DEVNULL)
