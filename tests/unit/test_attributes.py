# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes of a directory: the same for two layers that store ids differently."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab.images import acl
from pycor_hooks import attributes
from pycor_hooks.attributes import Attributes

if TYPE_CHECKING:
    from pathlib import Path

ACCESS = "system.posix_acl_access"
NOBODY = 0xFFFFFFFF


def sample(uid: int, acl_uid: int) -> Attributes:
    """A directory with an ACL, of a layer whose ids begin somewhere."""
    entries = [
        *((0x01, 7, NOBODY), (0x02, 5, acl_uid), (0x04, 5, NOBODY), (0x08, 4, acl_uid + 1)),
        *((0x10, 7, NOBODY), (0x20, 0, NOBODY)),
    ]
    xattrs = {ACCESS: acl(*entries), "user.sample": b"x"}
    return Attributes(mode=0o750, uid=uid, gid=uid, mtime_ns=5, xattrs=xattrs)


def test_shifted() -> None:
    """Owner, group, and the users and groups of ACLs move along; all else stays."""
    assert str(sample(0, 1000).shifted(100000)) == str(sample(100000, 101000))
    assert str(sample(100000, 101000).shifted(-100000)) == str(sample(0, 1000))


def test_given_and_read_again(tmp_path: Path) -> None:
    """What a directory is given it has, and nothing that it had before."""
    directory = os.open(tmp_path, os.O_RDONLY)
    os.setxattr(directory, "user.before", b"x")
    like = Attributes(
        mode=0o1711,
        uid=os.getuid(),
        gid=os.getgid(),
        mtime_ns=10**18 + 7,
        xattrs={"user.sample": b"y"},
    )
    like.give(directory)
    assert str(attributes.of(directory)) == str(like)
    os.close(directory)


def test_overlay_has_its_own(tmp_path: Path) -> None:
    """What OverlayFS notes in attributes is no attribute of the directory."""
    directory = os.open(tmp_path, os.O_RDONLY)
    before = str(attributes.of(directory))
    os.setxattr(directory, "user.overlay.origin", b"x")
    assert str(attributes.of(directory)) == before
    assert not attributes.is_opaque(directory)
    os.setxattr(directory, "user.overlay.opaque", b"x")
    assert not attributes.is_opaque(directory)
    os.setxattr(directory, "user.overlay.opaque", b"y")
    assert attributes.is_opaque(directory)
    os.close(directory)
