# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a cure as a file: written, read again, and not believed where it is odd."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycor_hooks import journal, layer
from pycor_hooks.errors import BadState
from pycor_hooks.journal import Intent, Journal
from pycor_hooks.parents import Parents

if TYPE_CHECKING:
    from pathlib import Path

HERE = "boot:8:1:2:3"
PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def intent(paths: list[str], times: dict[str, int]) -> Intent:
    """An intent of a container whose init is process 7."""
    return Intent(init=7, init_start=8, ours=True, paths=paths, times=times)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """``overlay`` in a volume."""
    (tmp_path / "upper").mkdir()
    return str(tmp_path)


@given(st.lists(PATHS), st.dictionaries(PATHS, st.integers(-(2**63), 2**63 - 1)))
def test_round_trip(paths: list[str], times: dict[str, int]) -> None:
    """Whatever a path holds, it comes back."""
    read = journal._parse(os.fsdecode(intent(paths, times).render(HERE)), "armed", HERE)
    assert (read.paths, read.times) == (paths, times)
    assert (read.init, read.init_start, read.ours) == (7, 8, True)


@given(st.text())
def test_garbage(text: str) -> None:
    """What is no journal is refused by name, and never anything else."""
    with pytest.raises(BadState):
        journal._parse(text, "armed", HERE)


@pytest.mark.parametrize("time", [2**63, -(2**63) - 1, 10**30])
def test_no_time(time: int) -> None:
    """A time that no file can have is refused: it could not be given back."""
    with pytest.raises(BadState, match="is no time"):
        journal._parse(os.fsdecode(intent([], {"etc": time}).render(HERE)), "armed", HERE)


def test_cut_off() -> None:
    """A journal that misses its end is refused: what it does not tell would be lost."""
    whole = os.fsdecode(intent(["a", "b"], {"": 1}).render(HERE))
    for length in range(len(whole)):
        with pytest.raises(BadState):
            journal._parse(whole[:length], "armed", HERE)


def frozen_by(own: str) -> bool:
    """Whether a journal says that it is us who froze a process of this boot, in this volume."""
    book = Journal(own)
    try:
        found, _ = book.read()
    finally:
        book.close()
    assert found is not None
    return found.ours


def test_of_an_earlier_boot_or_another_volume(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was frozen before a reboot is not thawed, nor what the volume's original froze.

    Another process has that pid; a copy that was made in the middle of a cure has its journal.
    """
    book = Journal(own)
    book.prepare(intent(["a"], {}))
    book.close()
    copy = f"{tmp_path}/copy"
    shutil.copytree(own, copy)
    assert (frozen_by(own), frozen_by(copy)) == (True, False)
    monkeypatch.setattr(journal, "_boot", lambda: "another")
    assert not frozen_by(own)


def test_a_journal_is_there_until_it_is_removed(own: str) -> None:
    """It is prepared, armed, disarmed, and leaves nothing."""
    book = Journal(own)
    assert os.listdir(f"{own}/{layer.CURE}") == []
    book.prepare(intent(["a"], {}))
    book.arm()
    assert (book.armed, os.listdir(f"{own}/{layer.CURE}")) == (True, ["armed"])
    book.disarm()
    book.remove()
    book.close()
    assert os.listdir(own) == ["upper"]


def test_another_intent_when_it_is_armed(own: str) -> None:
    """What turned out to be the container's own is not in the armed journal."""
    book = Journal(own)
    book.prepare(intent(["a", "b"], {}))
    book.arm(intent(["b"], {}))
    found, armed = book.read()
    assert found is not None
    assert (found.paths, armed) == (["b"], True)
    book.close()


def test_settle_takes_whiteouts_only(own: str) -> None:
    """A file, or a device that is no whiteout, stays, whatever the journal says."""
    if os.geteuid():
        pytest.skip("a whiteout needs root")
    upper = f"{own}/upper"
    os.mknod(f"{upper}/whiteout", 0o20000, 0)
    os.mknod(f"{upper}/null", 0o20666, os.makedev(1, 3))
    with open(f"{upper}/file", "w") as file:
        file.write("own\n")
    book = Journal(own)
    book.prepare(intent(["whiteout", "null", "file", "missing", "../upper/file"], {}))
    book.arm()
    book.close()
    assert journal.settle(own)
    assert sorted(os.listdir(upper)) == ["file", "null"]
    assert os.listdir(own) == ["upper"]
    assert not journal.settle(own)


def test_settle_of_what_was_only_prepared(own: str) -> None:
    """Before it is armed a whiteout is the container's own, and stays."""
    if os.geteuid():
        pytest.skip("a whiteout needs root")
    os.mknod(f"{own}/upper/whiteout", 0o20000, 0)
    book = Journal(own)
    book.prepare(intent(["whiteout"], {}))
    book.close()
    assert journal.settle(own)
    assert os.listdir(f"{own}/upper") == ["whiteout"]


def test_settle_of_hostile_journals(own: str, tmp_path: Path) -> None:
    """Where an import put something else in its place, nothing is followed, waited for or kept."""
    before = os.listdir("/proc/self/fd")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "prepared").write_text("the host's\n")
    os.symlink(outside, f"{own}/{layer.CURE}")
    with pytest.raises(BadState, match=r"cure is not .* not a directory"):
        journal.settle(own)
    assert (outside / "prepared").read_text() == "the host's\n"
    os.unlink(f"{own}/{layer.CURE}")
    os.mkdir(f"{own}/{layer.CURE}")
    os.mkfifo(f"{own}/{layer.CURE}/armed")
    with pytest.raises(BadState, match="it is not a file"):
        journal.settle(own)
    os.unlink(f"{own}/{layer.CURE}/armed")
    os.mkdir(f"{own}/{layer.CURE}/prepared")
    with pytest.raises(BadState, match="it is not a file"):
        journal.settle(own)
    os.mkdir(f"{own}/{layer.PARENTS}")
    assert Parents(own).known == {}
    assert os.listdir("/proc/self/fd") == before
