# SPDX-License-Identifier: GPL-3.0-or-later
"""Which paths of an overlay are mount points, told from mount tables."""

from __future__ import annotations

import os

import pytest

from pycor_hooks import mountpoints
from pycor_hooks.mountpoints import OutOfTime, of_tasks, on

OVERLAY, OTHER = "0:50", "0:60"
WANTED = {"etc/hosts", "usr/bin/a b", "srv/app/file", "mnt"}


def line(mount: int, parent: int, device: str, root: str, target: str) -> str:
    """One line of mountinfo."""
    return f"{mount} {parent} {device} {root} {target} rw - fs source rw\n"


ROOT = line(10, 1, OVERLAY, "/", "/")


def found(*lines: str, root: str = "/") -> set[str]:
    """What is found in a table."""
    return on([ROOT, *lines] if root == "/" else list(lines), WANTED, OVERLAY, root)


def test_on_the_overlay() -> None:
    """A mount whose parent is the overlay is one on a path of it, whatever is mounted there."""
    assert found(line(11, 10, OTHER, "/x", "/etc/hosts")) == {"etc/hosts"}
    assert found(line(11, 10, OVERLAY, "/etc/hostname", "/etc/hosts")) == {"etc/hosts"}
    assert found(line(11, 10, OTHER, "/", "/usr/bin/a\\040b")) == {"usr/bin/a b"}
    assert found(line(11, 10, OTHER, "/", "/proc")) == set()


def test_on_something_else() -> None:
    """A mount on another file system is none of ours, though it has the path of one."""
    nested = [line(11, 10, OTHER, "/", "/etc"), line(12, 11, OTHER, "/", "/etc/hosts")]
    assert found(*nested) == set()


def test_in_a_directory_that_is_bound() -> None:
    """A mount in a directory of the overlay that is bound elsewhere is one in that directory."""
    bound = [
        line(11, 10, OTHER, "/", "/tmp"),
        line(12, 11, OVERLAY, "/srv/app", "/tmp/app"),
        line(13, 12, OTHER, "/", "/tmp/app/file"),
    ]
    assert found(*bound) == {"srv/app/file"}
    assert found(*reversed(bound)) == {"srv/app/file"}


def test_below_a_root_directory() -> None:
    """A process that does not see the parent is taken to have mounted on the overlay."""
    chrooted = line(11, 10, OTHER, "/", "/file")
    assert found(chrooted, root="/srv/app") == {"srv/app/file"}
    assert found(line(11, 10, OTHER, "/", "/hosts"), root="/srv/app") == set()


def test_too_many_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that cannot be told in bounded memory is not told."""
    monkeypatch.setattr(mountpoints, "MAX_BINDS", 3)
    binds = [line(number, 10, OVERLAY, "/srv", f"/mnt/{number}") for number in range(20, 24)]
    with pytest.raises(OutOfTime):
        found(*binds)


def test_of_tasks() -> None:
    """The tables of tasks are read; one that is gone is passed over."""
    assert of_tasks([0, os.getpid()], {"proc"}, OVERLAY, lambda: True) <= {"proc"}


def test_out_of_time() -> None:
    """Who asks to stop is obeyed, in the middle of a table, too."""
    with pytest.raises(OutOfTime):
        of_tasks([os.getpid()], WANTED, OVERLAY, lambda: False)
    answers = iter([True, False])
    with pytest.raises(OutOfTime):
        of_tasks([os.getpid()], WANTED, OVERLAY, lambda: next(answers))
