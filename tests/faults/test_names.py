# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that are not UTF-8 or at the length limit, paths of 4,000 bytes: nothing breaks."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab import names, starts, tree
from lab.tree import changes, describe
from pycor_hooks import usage
from pycor_hooks.watcher import once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.inhabited import Inhabited
    from lab.tally import Tally

pytestmark = [pytest.mark.host_root, pytest.mark.usefixtures("own_run")]
mapped_ids = pytest.mark.parametrize("web", ["mapped ids"], indirect=True)

FAULT = "names not UTF-8 or at the limit, paths of 4,000 bytes"


@pytest.fixture
def stopped(web: Inhabited) -> Iterator[Inhabited]:
    """The container, stopped; what it has is removed by a tool that knows no limits."""
    web.stop()
    yield web
    web.end()
    subprocess.run(["rm", "-rf", f"{web.daemon}/storage-pools"], check=True)


def test_a_change_at_the_end_of_a_long_path_is_noticed(tmp_path: Path) -> None:
    """What watches a base in these tests overlooks nothing for its name."""
    names.make(str(tmp_path), b"before")
    before = describe(str(tmp_path))
    names.make(str(tmp_path), b"after")
    changed = {line.partition(": size")[0] for line in changes(before, describe(str(tmp_path)))}
    assert len(changed) == len(names.ODD) + len(names.LONG)
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


@mapped_ids
def test_in_the_base(stopped: Inhabited, tally: Tally) -> None:
    """A base with such files is seen as it is, before an update and after."""
    base = f"{stopped.daemon}/containers/base/rootfs"
    with tally.injected(FAULT):
        names.make(base, b"old")
        before = describe(os.path.realpath(base))
        stopped.start()
        root = f"/proc/{stopped.init.pid}/root" if stopped.init else ""
        assert names.contents(f"{root}/.") == {b"old"}
        tally.lost(FAULT, changes(before, describe(os.path.realpath(base))))
        replace(base, b"new")
        assert once([stopped.daemon]) == 0
        assert names.contents(f"{root}/.") == {b"new"}
        stopped.stop()


def replace(root: str, content: bytes) -> None:
    """Replace the files, as dpkg does: by new ones."""
    for name in names.LONG:
        subprocess.run([b"rm", b"-rf", os.fsencode(root) + b"/" + name], check=True)
    for name in names.ODD:
        os.unlink(os.fsencode(root) + b"/" + name)
    names.make(root, content)


@mapped_ids
def test_in_the_bare_rootfs(stopped: Inhabited, tally: Tally) -> None:
    """What was pushed into the stopped container arrives, and replaces what came before."""
    with tally.injected(FAULT, times=2):
        for content in (b"first", b"second"):
            names.make(stopped.rootfs, content)
            pushed = describe(stopped.rootfs)
            stopped.start()
            stopped.stop()
            assert os.listdir(stopped.rootfs) == []
            tally.lost(FAULT, changes(files(pushed), files(describe(stopped.upper))))
            assert names.contents(stopped.upper) == {content}


def files(entries: dict[str, tree.Entry]) -> dict[str, tree.Entry]:
    """Those that are no directories, whose times are their own."""
    return {path: entry for path, entry in entries.items() if entry.content}


@mapped_ids
def test_in_the_container(stopped: Inhabited, tally: Tally) -> None:
    """What the container writes is measured, and there at its next start."""
    with tally.injected(FAULT):
        stopped.start()
        with starts.as_its_root(stopped):
            names.make(stopped.merged, b"own")
        written = describe(stopped.upper)
        command = ["du", "--summarize", "--block-size=1", stopped.upper]
        measured = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        assert usage.upper_bytes(stopped.upper) == int(measured.split()[0])
        stopped.stop()
        tally.lost(FAULT, changes(written, describe(stopped.upper)))
        stopped.start()
        assert names.contents(stopped.merged) == {b"own"}
        stopped.stop()
