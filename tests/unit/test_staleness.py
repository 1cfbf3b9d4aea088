# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done about a path that the base has changed, and what is said about it."""

from __future__ import annotations

import errno
import stat

import pytest

from pycor_hooks.convergence import describe
from pycor_hooks.hiding import Upper
from pycor_hooks.staleness import File, Reason, Seen, Verdict, agree, is_below, judge, of_errno

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
OLD, NEW = File(FILE, 1), File(FILE, 2)
OLD_DIRECTORY, NEW_DIRECTORY = File(DIRECTORY, 3), File(DIRECTORY, 4)


@pytest.mark.parametrize(
    ("base", "merged", "upper", "expected"),
    [
        (NEW, NEW, Upper.ABSENT, Verdict.LEAVE),
        (None, None, Upper.ABSENT, Verdict.LEAVE),
        (NEW_DIRECTORY, OLD_DIRECTORY, Upper.ABSENT, Verdict.LEAVE),
        (NEW, OLD, Upper.ABSENT, Verdict.CURE),
        (None, OLD, Upper.ABSENT, Verdict.CURE),
        (NEW_DIRECTORY, OLD, Upper.ABSENT, Verdict.CURE),
        (File(LINK, 1), OLD, Upper.ABSENT, Verdict.CURE),
        (NEW, OLD, Upper.HIDES, Verdict.LEAVE),
        (NEW, None, Upper.HIDES, Verdict.LEAVE),
        (None, OLD, Upper.HIDES, Verdict.LEAVE),
        (NEW, OLD_DIRECTORY, Upper.MERGES, Verdict.LEAVE),
        (NEW, OLD_DIRECTORY, Upper.ABSENT, Reason.DIRECTORY),
        (None, OLD_DIRECTORY, Upper.ABSENT, Reason.DIRECTORY),
        (NEW, None, Upper.ABSENT, Reason.BELOW),
    ],
)
def test_judge(
    base: File | None, merged: File | None, upper: Upper, expected: Verdict | Reason
) -> None:
    """A file is cured, a directory reported, and what upper hides is left."""
    assert judge(Seen("a/b", base, merged, upper), old_directories=()) is expected


@pytest.mark.parametrize(
    ("base", "merged", "upper", "expected"),
    [
        (NEW, OLD, Upper.ABSENT, Reason.BELOW),
        (None, OLD, Upper.ABSENT, Reason.BELOW),
        (NEW, None, Upper.ABSENT, Reason.BELOW),
        (NEW, OLD, Upper.HIDES, Verdict.LEAVE),
        (NEW, NEW, Upper.ABSENT, Verdict.LEAVE),
    ],
)
def test_judge_in_an_old_directory(
    base: File | None, merged: File | None, upper: Upper, expected: Verdict | Reason
) -> None:
    """What comes from an old directory cannot be cured by unlinking it."""
    assert judge(Seen("a/b/c", base, merged, upper), old_directories={"a"}) is expected
    directory = Seen("a", NEW_DIRECTORY, OLD_DIRECTORY, upper)
    assert judge(directory, old_directories={"a"}) is Reason.DIRECTORY


def test_agree() -> None:
    """Files are the same by inode and type; two directories are not told apart here."""
    assert agree(OLD, File(FILE | stat.S_ISUID, 1))
    assert not agree(OLD, File(LINK, 1))
    assert agree(OLD_DIRECTORY, NEW_DIRECTORY)
    assert not agree(OLD, None)


def test_is_below() -> None:
    """A path lies below its parents, and not below itself or a name that begins alike."""
    assert is_below("a/b/c", {"a/b"})
    assert is_below("a/b/c", {"a"})
    assert not is_below("a/b", {"a/b", "a/bc"})
    assert not is_below("ab", {"a"})


def test_reasons_are_complete() -> None:
    """Each reason has a word of its own, a text and a remedy that names the container."""
    assert len({reason.word for reason in Reason}) == len(Reason)
    for reason in Reason:
        assert "{" not in reason.remedy("web1")
        assert "web1" in reason.remedy("web1")


def test_of_errno() -> None:
    """What the kernel says becomes a reason; what it never said before is one, too."""
    assert of_errno(errno.EDQUOT) is Reason.NO_SPACE
    assert of_errno(errno.EBUSY) is Reason.MOUNTED
    assert of_errno(errno.EOVERFLOW) is Reason.UNMAPPED
    assert of_errno(errno.EIO) is Reason.FAILED
    assert of_errno(None) is Reason.FAILED


def test_describe() -> None:
    """One line counts what is stale by reason, and has the remedy of the most frequent one."""
    assert describe({}, "web1") == ""
    line = describe({"a": Reason.MOUNTED, "b": Reason.BELOW, "c": Reason.BELOW}, "web1")
    assert line.startswith("3 paths stay stale (2 below, 1 mounted): ")
    assert Reason.BELOW.remedy("web1") in line
    assert describe({"a": Reason.MOUNTED}, "web1").startswith("1 path stays stale (1 mounted): ")
