# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that walk the whole root, and know a file by its device and number.

On one btrfs, base and container are two subvolumes that number their inodes alike.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from lab.gnu import SCRATCH, Gnu

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.overlays import Overlays

# Below a directory of the base, as many directories as the base has files: without care one of
# them has the number of a directory above it, which is how GNU find, rm and du know a loop. And
# as many files.
_DEEP = 700
FILL = f"""
set -e
cd /usr/share
for number in $(seq {_DEEP}); do : >/srv/file-$number; mkdir d; cd d; done
"""
_WALKS = [
    ("find", "/", "-xdev"),
    ("du", "-sx", "/"),
    ("cp", "-ax", "/", f"{SCRATCH}/copy"),
    ("cp", "-a", "/usr", "/srv/copy"),
    ("rm", "-r", f"{SCRATCH}/copy", "/srv/copy"),
    ("rm", "-r", "/usr/share"),
    ("rm", "-r", "--one-file-system", "--no-preserve-root", "/"),
]


class Outcome(NamedTuple):
    """What a program said in the end: to a script, and to its user."""

    command: str
    status: int
    complaints: list[str]


def walk(container: Instance) -> list[Outcome]:
    """Fill a container, then walk and in the end remove its whole root."""
    container.exec("sh", "-c", FILL)
    gnu = Gnu(container)
    found = []
    for words in _WALKS:
        done = gnu(*words)
        found.append(Outcome(" ".join(words), done.returncode, sorted(done.stderr.splitlines())))
    return found


def clashes(gnu: Gnu) -> tuple[list[list[str]], list[list[str]]]:
    """Groups of directories, and groups of files, that have one device and one number."""
    words = ["/", "-xdev", "(", "-type", "d", "-o", "-links", "1", ")"]
    by_number = defaultdict(list)
    done = gnu("find", *words, "-printf", "%y %D:%i %p\\n")
    done.check_returncode()
    for line in done.stdout.splitlines():
        kind, number, path = line.split(" ", 2)
        by_number[kind == "d", number].append(path)
    groups = [(kind, paths) for (kind, _), paths in by_number.items() if len(paths) > 1]
    return [paths for kind, paths in groups if kind], [paths for kind, paths in groups if not kind]


def test_the_whole_root_is_walked_as_an_ordinary_one(overlays: Overlays) -> None:
    """find, du, cp -a and rm -r end as in an ordinary container: no loop, no "same file"."""
    web1, ordinary = overlays.launch("web1"), overlays.client.launch("busybox", "ordinary")
    found = walk(web1)
    assert [outcome for outcome in found[:-1] if outcome.status or outcome.complaints] == []
    assert found == walk(ordinary)
    # what remains are the mount points that the kernel does not let go
    left = {name for name in os.listdir(web1.merged) if os.listdir(f"{web1.merged}/{name}")}
    assert left == set()


def test_the_whole_root_is_listed_once(overlays: Overlays) -> None:
    """Find sees each path that there is, and a copy of the whole root has each of them."""
    web1 = overlays.launch("web1")
    web1.exec("sh", "-c", FILL)
    gnu = Gnu(web1)
    listed = gnu("find", "/", "-xdev", "-printf", "/%P\\n").stdout.splitlines()
    gnu("cp", "-ax", "/", f"{SCRATCH}/copy").check_returncode()
    copied = gnu("find", f"{SCRATCH}/copy", "-printf", "/%P\\n").stdout.splitlines()
    assert len(set(listed)) == len(listed) > 2 * _DEEP
    assert set(copied) == set(listed)
    everywhere = gnu("find", "/")  # processes come and go: its status says nothing
    assert "loop" not in everywhere.stderr


def test_numbers_of_files_may_clash_on_one_btrfs(overlays: Overlays) -> None:
    """A known fact: there two unlike files may have one number; directories never have."""
    web1 = overlays.launch("web1")
    web1.exec("sh", "-c", FILL)
    directories, files = clashes(Gnu(web1))
    assert directories == []
    assert bool(files) == (overlays.daemon.driver == "btrfs")
