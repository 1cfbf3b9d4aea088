# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stop of a base would bring, told from real trees and real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import dpkg, generations, impact, record
from pycor_hooks.host_errors import NoManifest
from tests.kernel.test_generations import of
from tests.kernel.test_hooks import write
from tests.kernel.test_procs import in_namespaces
from tests.kernel.test_watcher import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.liblxc import Container
    from pycor_hooks.impact import Row
    from pycor_hooks.plan import Base

__all__ = ["of"]

pytestmark = pytest.mark.host_root

TOOL = "usr/bin/tool"
BUSYBOX = "usr/bin/busybox"
ENTER = f"""
mount --bind "$0" "$0"; cd "$0"; pivot_root . .; /{BUSYBOX} umount -l .
exec 9<"$1"; exec /{BUSYBOX} sleep 1000
"""


@pytest.fixture
def packaged(base: str) -> str:
    """The base, with a busybox to run, and a dpkg database that knows its tool."""
    shutil.copy("/bin/busybox", f"{base}/{BUSYBOX}")
    os.makedirs(f"{base}/{dpkg.LISTS}")
    write(f"{base}/{dpkg.LISTS}/tool.list", "/.\n/bin\n/bin/tool\n")
    status(base, "1")
    return base


def status(base: str, version: str) -> None:
    """Have the package tool in a version."""
    text = f"Package: tool\nStatus: install ok installed\nVersion: {version}\n"
    write(f"{base}/{dpkg.STATUS}", text)


def replace(base: str, path: str) -> None:
    """Put another file in the place of one."""
    write(f"{base}/{path}.new", "new\n")
    os.rename(f"{base}/{path}.new", f"{base}/{path}")


@contextlib.contextmanager
def holding(web: Container, path: str) -> Iterator[record.Record]:
    """A record of the container whose init, in a pid namespace of its own, has a file open."""
    with in_namespaces("unshare", "--mount", "sh", "-ec", ENTER, web.merged, path) as pids:
        found = record.read(web.directory)
        found.init = pids[0]
        yield found


def told(base: Base, *records: record.Record) -> list[tuple[object, ...]]:
    """What the rows say, of files of packages and who uses them."""
    rows: list[Row] = impact.rows(impact.look(base, records))
    keys = ("package", "version", "new_version", "changed", "instance", "command", "files")
    return [tuple(row[key] for key in keys) for row in rows if row["package"]]


def test_impact_while_the_base_runs(packaged: str, of: Base, web: Container) -> None:
    """What has changed so far, with both versions, and who holds the old file."""
    generations.update(of)
    web.start()
    with holding(web, TOOL) as found, running(of):
        assert told(of, found) == []
        replace(packaged, TOOL)
        status(packaged, "2")
        assert told(of, found) == [("tool", "1", "2", 1, "web1", "busybox", [f"/{TOOL}"])]
    assert os.listdir(web.upper) == []
    web.stop()


def test_what_the_container_has_of_its_own(packaged: str, of: Base, web: Container) -> None:
    """A file that upper has, or that the container deleted, is no business of the base's."""
    generations.update(of)
    web.start()
    with holding(web, TOOL) as found:
        os.utime(f"{web.merged}/{TOOL}")
        write(f"{packaged}/{TOOL}", "in place\n")
        assert told(of, found) == [("tool", "1", "1", 1, None, None, None)]
    web.stop()
    shutil.rmtree(f"{web.upper}/usr")
    web.start()
    with holding(web, BUSYBOX) as found:
        os.unlink(f"{web.merged}/{BUSYBOX}")
        replace(packaged, BUSYBOX)
        assert [row["instance"] for row in impact.rows(impact.look(of, [found]))] == [None] * 2
    web.stop()


def test_file_that_the_base_deleted(packaged: str, of: Base, web: Container) -> None:
    """Who runs what the base has deleted is named, though no package has it any more."""
    generations.update(of)
    web.start()
    with holding(web, TOOL) as found:
        os.unlink(f"{packaged}/{BUSYBOX}")
        (row,) = impact.rows(impact.look(of, [found]))
    assert (row["package"], row["deleted"], row["files"]) == (None, 1, [f"/{BUSYBOX}"])
    web.stop()


def test_old_file_that_was_converged(packaged: str, of: Base, web: Container) -> None:
    """Who runs what an earlier update has replaced is not hit by the next one."""
    generations.update(of)
    web.start()
    with holding(web, BUSYBOX) as found:
        replace(packaged, BUSYBOX)
        generations.update(of)
        replace(packaged, BUSYBOX)
        (row,) = impact.rows(impact.look(of, [found]))
    assert (row["changed"], row["instance"]) == (1, None)
    web.stop()


def test_without_a_manifest(base: str, of: Base) -> None:
    """Where there is nothing to compare with, or nothing at all, that is said."""
    with pytest.raises(NoManifest, match="base base has no manifest yet, so it cannot be told"):
        impact.look(of, [])
    shutil.rmtree(base)
    with pytest.raises(NoManifest, match="has no rootfs"):
        impact.look(of, [])
