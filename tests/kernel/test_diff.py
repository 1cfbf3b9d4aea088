# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container has of its own, told from its layers, against what the overlay shows."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from lab.liblxc import Container, make_base
from lab.tree import deep
from pycor_hooks import kernel, layerdiff
from pycor_hooks.layerdiff import ADDED, DELETED, MODIFIED
from tests.kernel.test_hooks import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST_ROOT = 100000


@pytest.fixture
def merged(web: Container) -> Iterator[str]:
    """The container's tree, while it runs."""
    web.start()
    yield web.merged
    web.stop()


def told(web: Container, base: str, shift: int = 0) -> dict[str, str]:
    """Each path that differs, and how."""
    found = [(one.path, one.change) for one in layerdiff.differences(web.upper, base, shift)]
    assert found == sorted(found, key=lambda one: one[0].split("/") if one[0] else [])
    assert len(dict(found)) == len(found)
    return dict(found)


def compared(merged: str, base: str, shift: int = 0) -> dict[str, str]:
    """The same, by looking at every path of both trees."""
    mine, theirs = _described(merged, 0), _described(base, shift)
    changes = dict.fromkeys(mine.keys() - theirs, ADDED)
    changes |= dict.fromkeys(theirs.keys() - mine, DELETED)
    return changes | {
        path: MODIFIED for path in mine.keys() & theirs if mine[path] != theirs[path]
    }


def _described(root: str, shift: int) -> dict[str, tuple[object, ...]]:
    """Type, mode, owner and content of each path of a tree."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, directories, files in os.walk(root):
        for name in (".", *directories, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            key = os.path.relpath(path, root).removeprefix(".")
            owner = status.st_uid + shift, status.st_gid + shift
            found[key] = (status.st_mode, *owner, content, _xattrs(path))
    return found


def _xattrs(path: str) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }


def fill(base: str) -> None:
    """Give a base some directories with files, links and fifos in them."""
    for directory in ("usr/share/doc", "usr/share/app/lib", "srv"):
        os.makedirs(f"{base}/{directory}")
        for name in ("a", "b", "c!", "\udcff"):
            write(f"{base}/{directory}/{name}", "of the base\n")
        os.symlink("a", f"{base}/{directory}/link")
        os.mkfifo(f"{base}/{directory}/fifo")


# -- what a container may do to a path


def rewrite(path: str) -> None:
    """Write to a file."""
    with open(path, "a") as file:
        file.write("own\n")


def copy_up(path: str) -> None:
    """Copy a file or directory up without changing it."""
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode))


def same_again(path: str) -> None:
    """Put a file with the same content in the place of one."""
    shutil.copy2(path, f"{path}.new")
    os.chown(f"{path}.new", os.stat(path).st_uid, os.stat(path).st_gid)
    os.rename(f"{path}.new", path)


def remove(path: str) -> None:
    """Remove whatever is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def make_anew(path: str) -> None:
    """Remove it, and make a directory there."""
    remove(path)
    os.mkdir(path)
    write(f"{path}/a", "own\n")


def make_link(path: str) -> None:
    """Remove it, and make a link there."""
    remove(path)
    os.symlink("/etc", path)


def chmod(path: str) -> None:
    """Change its mode."""
    os.chmod(path, 0o700)


def chown(path: str) -> None:
    """Change its owner."""
    os.chown(path, HOST_ROOT + 7, HOST_ROOT + 8)


def mark(path: str) -> None:
    """Give it an extended attribute."""
    os.setxattr(path, "user.mark", b"own")


def add_below(path: str) -> None:
    """Make a file in it, or beside it."""
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    write(f"{directory}/added", "own\n")


def move(path: str) -> None:
    """Rename it; a directory of the base gives EXDEV."""
    with contextlib.suppress(OSError):
        os.rename(path, f"{path}.moved")


ALL: list[Callable[[str], None]] = [
    *(rewrite, copy_up, same_again, remove, make_anew, make_link),
    *(chmod, chown, mark, add_below, move),
]


@pytest.mark.host_root
@pytest.mark.parametrize("owner", [0, HOST_ROOT])
def test_any_changes(daemon: Path, owner: int) -> None:
    """Whatever a container does, it is told exactly what a look at both trees tells."""
    base = make_base(daemon)
    fill(base)
    chance = random.Random(owner)
    for number in range(12):
        web = Container(str(daemon), f"web{number}")
        if owner:
            web.idmap = tuple(f"{kind} 0 {owner} 65536" for kind in "ug")
        with contextlib.closing(_Ended(web)):
            web.start()
            done = [_change(web.merged, chance, owner) for _ in range(chance.randint(1, 9))]
            wanted = compared(web.merged, base, owner)
            assert told(web, base) == wanted, done
            web.stop()
            assert told(web, base) == wanted, done


def _change(merged: str, chance: random.Random, owner: int) -> tuple[str, str]:
    """Do something to some path, as the container's root; both are told."""
    paths = sorted(path for path in _described(merged, 0) if path)
    action, path = chance.choice(ALL), chance.choice(paths)
    kernel.set_fs_ids(owner, owner)
    try:
        with contextlib.suppress(IsADirectoryError, FileNotFoundError):
            if not os.path.islink(f"{merged}/{path}") and "fifo" not in path:
                action(f"{merged}/{path}")
    finally:
        kernel.set_fs_ids(0, 0)
    return action.__name__, path


class _Ended:
    """Ends a container whatever happened to it."""

    def __init__(self, web: Container) -> None:
        self._web = web

    def close(self) -> None:
        if self._web.init:
            self._web.stop()
        self._web.end()


def test_nothing_of_its_own(web: Container, base: str, merged: str) -> None:
    """Copies that are no different are no change, nor is what only has other times."""
    for path in ("etc/hostname", "usr/bin", "usr/bin/tool"):
        copy_up(f"{merged}/{path}")
        os.utime(f"{merged}/{path}", (1, 1))
    same_again(f"{merged}/etc/os-release")
    assert os.listdir(web.upper)
    assert told(web, base) == {}


def test_deleted_directory(web: Container, base: str, merged: str) -> None:
    """All that was in it is deleted, each by itself."""
    shutil.rmtree(f"{merged}/usr")
    assert told(web, base) == dict.fromkeys(("usr", "usr/bin", "usr/bin/tool"), DELETED)


@pytest.mark.parametrize("prefix", ["user", "trusted"])
def test_directory_made_anew(web: Container, base: str, merged: str, prefix: str) -> None:
    """An opaque directory hides all of the base's, by whichever name it is marked."""
    shutil.rmtree(f"{merged}/usr")
    os.makedirs(f"{merged}/usr/bin")
    write(f"{merged}/usr/bin/own", "own\n")
    os.removexattr(f"{web.upper}/usr", "user.overlay.opaque")
    os.setxattr(f"{web.upper}/usr", f"{prefix}.overlay.opaque", b"y")
    assert told(web, base) == {"usr/bin/own": ADDED, "usr/bin/tool": DELETED}


@pytest.mark.parametrize("prefix", ["user", "trusted"])
def test_whiteout_by_an_attribute(web: Container, base: str, prefix: str) -> None:
    """A file that is a whiteout by its attribute, in a directory that says so, is one."""
    web.start()
    web.stop()
    os.mkdir(f"{web.upper}/etc")
    for name in ("hostname", "os-release", "nothing"):
        write(f"{web.upper}/etc/{name}", "")
    os.setxattr(f"{web.upper}/etc/hostname", f"{prefix}.overlay.whiteout", b"")
    os.setxattr(f"{web.upper}/etc/nothing", f"{prefix}.overlay.whiteout", b"")
    as_files = {"etc/hostname": MODIFIED, "etc/os-release": MODIFIED, "etc/nothing": ADDED}
    assert told(web, base) == as_files
    os.setxattr(f"{web.upper}/etc", f"{prefix}.overlay.opaque", b"x")
    assert told(web, base) == {"etc/hostname": DELETED, "etc/os-release": MODIFIED}


def test_whiteout_of_nothing(web: Container, base: str, merged: str) -> None:
    """What the base has no more, or never had, cannot be missing."""
    os.unlink(f"{merged}/usr/bin/tool")
    os.unlink(f"{base}/usr/bin/tool")
    assert told(web, base) == {}


def test_hostile_tree(web: Container, base: str, tmp_path: Path) -> None:
    """Links lead nowhere, mounts are not entered, fifos and devices not opened."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "tool").write_text("secret")
    web.start()
    web.stop()
    os.symlink(outside, f"{web.upper}/usr")
    os.makedirs(f"{web.upper}/etc/below")
    os.mkfifo(f"{web.upper}/etc/hostname")
    os.mknod(f"{web.upper}/etc/os-release", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.mkdir(f"{web.upper}/mounted")
    kernel.mount(str(outside), f"{web.upper}/mounted", "", kernel.MS_BIND)
    try:
        found = told(web, base)
    finally:
        kernel.umount(f"{web.upper}/mounted")
    assert found == {
        "etc/below": ADDED,
        "etc/hostname": MODIFIED,
        "etc/os-release": MODIFIED,
        "mounted": ADDED,
        "usr": MODIFIED,
        "usr/bin": DELETED,
        "usr/bin/tool": DELETED,
    }


def test_too_deep(web: Container, base: str) -> None:
    """A layer deeper than any system is refused, with no descriptor left open."""
    web.start()
    web.stop()
    before = len(os.listdir("/proc/self/fd"))
    with deep(web.upper, ["d"] * (layerdiff.MAX_DEPTH + 1), make=True):
        pass
    with pytest.raises(OSError, match="directories deep"):
        told(web, base)
    assert len(os.listdir("/proc/self/fd")) == before
