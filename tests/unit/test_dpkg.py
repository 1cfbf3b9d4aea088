# SPDX-License-Identifier: GPL-3.0-or-later
"""What dpkg's files in a tree tell, with no dpkg run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import dpkg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: GNU C Library
 Version: 9 is no field, as the line begins with a blank
 .
 Package: neither

Package: removed
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-installed
Version: 2

Version: 1:3
Package: nginx
Status: hold ok installed
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A tree with a dpkg database and a merged /usr, open."""
    (tmp_path / dpkg.LISTS).mkdir(parents=True)
    (tmp_path / dpkg.STATUS).write_text(STATUS)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "bin").symlink_to("/usr/bin")
    (tmp_path / dpkg.LISTS / "libc6:amd64.list").write_text("/.\n/lib\n/lib/ld.so\n/etc/a b\n")
    (tmp_path / dpkg.LISTS / "nginx.list").write_bytes(b"/.\n/bin/nginx\n/usr/\xff\n")
    (tmp_path / dpkg.LISTS / "nginx.md5sums").write_text("/usr/lib/other\n")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_installed(root: int) -> None:
    """Packages that are installed, held ones too, each with its version."""
    assert dict(dpkg.installed(root)) == {"libc6": "2.36-9", "nginx": "1:3"}


def test_owners(root: int) -> None:
    """The package of a path, also where dpkg knows it by a link, and of any name."""
    paths = ["usr/lib/ld.so", "etc/a b", "usr/bin/nginx", "usr/\udcff", "usr/lib/other", "lib"]
    assert dpkg.owners(root, paths) == {
        "usr/lib/ld.so": "libc6",
        "etc/a b": "libc6",
        "usr/bin/nginx": "nginx",
        "usr/\udcff": "nginx",
    }


def test_no_dpkg(tmp_path: Path) -> None:
    """A tree without a database has no packages."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert list(dpkg.installed(descriptor)) == []
    assert dpkg.owners(descriptor, ["usr/lib/ld.so"]) == {}
    os.close(descriptor)


def test_hostile_database(tmp_path: Path, root: int) -> None:
    """What is no regular file is not opened, a link not followed, and nothing waits."""
    status = tmp_path / dpkg.STATUS
    status.unlink()
    os.mkfifo(status)
    listed = tmp_path / dpkg.LISTS / "nginx.list"
    listed.unlink()
    listed.symlink_to("libc6:amd64.list")
    (tmp_path / dpkg.LISTS / "dir.list").mkdir()
    assert list(dpkg.installed(root)) == []
    assert dpkg.owners(root, ["usr/lib/ld.so", "usr/bin/nginx"]) == {"usr/lib/ld.so": "libc6"}
    status.unlink()
    status.symlink_to("/etc/passwd")
    assert list(dpkg.installed(root)) == []


def test_long_lines() -> None:
    """A line is read in pieces: none of them is taken for the end of a package."""
    lines = ["Package: a\n", "Status: install ok installed\n", "X: " + "y" * 100, "z\n"]
    assert list(dpkg.parse_status([*lines, "Version: 1\n"])) == [("a", "1")]
