# SPDX-License-Identifier: GPL-3.0-or-later
"""Two manifests, and what became of each path between them."""

from __future__ import annotations

import itertools
import stat
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycor_hooks import entryfile, manifest
from pycor_hooks.errors import BadState
from pycor_hooks.manifest import ADDED, CHANGED, DELETED, REPLACED, Entry

if TYPE_CHECKING:
    from pathlib import Path

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def entry(path: str, mode: int = FILE, **fields: int) -> Entry:
    """An entry of root's, inode 5 unless told."""
    target = "elsewhere" if mode == LINK else ""
    whole = Entry(path, mode, 0, 0, ino=5, ctime_ns=7, size=9, target=target)
    return whole._replace(**fields)  # type: ignore[arg-type]


# Names that sort around the slash, and one that is not UTF-8.
names = st.sampled_from(["a", "a!", "a.b", "b", "é", "\udcff", "\U0001f600", "-"])
paths = st.lists(names, max_size=3).map("/".join)
entries = st.builds(entry, paths, st.sampled_from([FILE, DIRECTORY, LINK]), ino=st.integers(1, 2))
trees = st.lists(entries, unique_by=lambda one: one.path).map(
    lambda found: sorted(found, key=lambda one: manifest.order(one.path))
)


def kinds(old: list[Entry], new: list[Entry]) -> list[tuple[str, str]]:
    """Path and kind of each change."""
    return [(change.path, change.kind) for change in manifest.compare(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (None, entry("a"), ADDED),
        (entry("a"), None, DELETED),
        (entry("a"), entry("a", ino=6), CHANGED),
        (entry("a"), entry("a", ctime_ns=8), CHANGED),
        (entry("a"), entry("a", uid=1), CHANGED),
        (entry("a"), entry("a", gid=1), CHANGED),
        (entry("a"), entry("a", size=1), CHANGED),
        (entry("a"), entry("a", FILE | 0o100), CHANGED),
        (entry("a"), entry("a", LINK), CHANGED),
        (entry("a", LINK), entry("a", LINK)._replace(target="here"), CHANGED),
        (entry("a", DIRECTORY), entry("a", DIRECTORY, ino=6), REPLACED),
        (entry("a", DIRECTORY), entry("a", LINK), REPLACED),
        (entry("a"), entry("a", DIRECTORY), REPLACED),
        (entry("a", DIRECTORY), entry("a", DIRECTORY | 0o020), CHANGED),
        (entry("a", DIRECTORY), entry("a", DIRECTORY, gid=1), CHANGED),
    ],
)
def test_kinds(old: Entry | None, new: Entry | None, kind: str) -> None:
    """Each field counts, and a directory that is another one is said to be."""
    (change,) = manifest.compare([old] if old else [], [new] if new else [])
    assert change == ("a", kind, old, new)


def test_times_of_a_directory() -> None:
    """A directory is not changed by the names that come and go in it."""
    old = [entry("", DIRECTORY), entry("a", DIRECTORY), entry("a/b")]
    new = [entry("", DIRECTORY), entry("a", DIRECTORY, ctime_ns=8, size=8192), entry("a/c")]
    assert kinds(old, new) == [("a/b", DELETED), ("a/c", ADDED)]


def test_a_directory_that_became_a_link() -> None:
    """What was in it is deleted, each by itself, right after it."""
    old = [entry("", DIRECTORY), entry("a", DIRECTORY), entry("a/b"), entry("a!")]
    new = [entry("", DIRECTORY), entry("a", LINK), entry("a!")]
    assert kinds(old, new) == [("a", REPLACED), ("a/b", DELETED)]


@given(trees, trees)
def test_compare_is_what_a_look_at_every_path_gives(old: list[Entry], new: list[Entry]) -> None:
    """The merge of two streams misses nothing, invents nothing, and keeps the order."""
    before, after = ({one.path: one for one in tree} for tree in (old, new))
    wanted = [
        change
        for path in sorted(before.keys() | after.keys(), key=manifest.order)
        for change in manifest.change(before.get(path), after.get(path))
    ]
    assert list(manifest.compare(old, new)) == wanted
    assert {change.path for change in wanted if change.kind == ADDED} == after.keys() - before


@given(st.lists(trees, min_size=1, max_size=4))
def test_what_some_generations_have_touched(generations: list[list[Entry]]) -> None:
    """Each path that one of them changed, once and in order, with what is there in the end."""
    steps = itertools.pairwise(generations)
    histories = [list(manifest.compare(old, new)) for old, new in steps]
    paths = {change.path for history in histories for change in history}
    last = {one.path: one for one in generations[-1]}
    wanted = [(path, last.get(path)) for path in sorted(paths, key=manifest.order)]
    assert [(one.path, one.new) for one in manifest.touched(histories)] == wanted


@pytest.mark.parametrize(
    ("steps", "altered"),
    [
        ([entry("a"), entry("a", FILE | 0o111)], True),
        ([entry("a"), entry("a", uid=1)], True),
        ([entry("a", DIRECTORY), entry("a", DIRECTORY | 0o020), entry("a", DIRECTORY)], True),
        ([entry("a"), entry("a", size=8)], False),
        ([entry("a"), entry("a", FILE | 0o111, ino=8)], False),
        ([entry("a"), entry("a", LINK)], False),
        ([entry("a"), None], False),
    ],
)
def test_what_was_altered_in_its_place(steps: list[Entry | None], *, altered: bool) -> None:
    """Another mode or owner of the same file or directory, be it what it was before in the end."""
    trees = [[one] if one else [] for one in steps]
    histories = [manifest.compare(old, new) for old, new in itertools.pairwise(trees)]
    assert [one.altered for one in manifest.touched(histories)] == [altered]


@given(trees, trees)
def test_files_hold_what_was_put_in_them(old: list[Entry], new: list[Entry]) -> None:
    """Entries and changes are read as they were written, whatever their names."""
    changes = list(manifest.compare(old, new))
    with TemporaryDirectory() as directory:
        path = f"{directory}/file"
        with entryfile.begun(path, "magic") as file:
            assert list(entryfile.copied(file, old)) == old
        with entryfile.opened(path, "magic") as (_, file):
            assert list(entryfile.entries(file)) == old
        with entryfile.begun(path, "magic") as file:
            for change in changes:
                entryfile.put_change(file, change)
        with entryfile.opened(path, "magic") as (_, file):
            assert list(entryfile.changes(file)) == changes


def test_cut_off_file(tmp_path: Path) -> None:
    """A file that ends too early, at whatever byte, is never taken for a short manifest."""
    path = tmp_path / "manifest"
    with entryfile.begun(str(path), "magic 1") as file:
        entryfile.put(file, entry("a", LINK))
    whole = path.read_bytes()
    for length in range(len(whole.rstrip(b"\0"))):
        path.write_bytes(whole[:length])
        with pytest.raises(BadState), entryfile.opened(str(path), "magic") as (_, cut):
            list(entryfile.entries(cut))
