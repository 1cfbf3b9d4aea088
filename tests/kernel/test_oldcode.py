# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs old code, told from real trees and real processes."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from lab.wait import until
from pycor_hooks import (
    generations,
    instance,
    oldcode,
    overlay,
    procs,
    record,
    stale,
    stalerows,
)
from pycor_hooks.stale import Uncured
from pycor_hooks.staleness import Reason
from tests.kernel.test_generations import of
from tests.kernel.test_hooks import write
from tests.kernel.test_impact import BUSYBOX, TOOL, holding, packaged, replace
from tests.kernel.test_procs import in_namespaces
from tests.kernel.test_watcher import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.liblxc import Container
    from pycor_hooks.oldcode import Found
    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record

__all__ = ["of", "packaged"]

pytestmark = pytest.mark.host_root

CODE = f"/{BUSYBOX}"
OTHER = f"""
mount --bind "$0" "$0"; cd "$0"; mount --bind etc/other {BUSYBOX}; pivot_root . .
/{BUSYBOX} umount -l .; exec /{BUSYBOX} sleep 1000
"""

SCRIPT = "usr/bin/script"
SLEEPING = f"/{BUSYBOX} sleep 1000\n"
INTERPRETING = f"""
mount --bind "$0" "$0"; cd "$0"; pivot_root . .; /{BUSYBOX} umount -l .
exec -a sh /usr/bin/perl /bin/script
"""


@contextlib.contextmanager
def busybox(web: Container) -> Iterator[Record]:
    """A record of the container, in which busybox runs with another file open."""
    with holding(web, TOOL) as found:
        found.init_start = instance.process_start(found.init)
        yield found


def look(base: Base, of_it: Record) -> Found:
    """What is stale in the container."""
    (found,) = oldcode.look(base, [of_it])
    return found


def uncured(base: Base, of_it: Record) -> list[Uncured]:
    """What `stale` tells of the container, beside who runs old code."""
    (found,) = stalerows.look(base, [of_it]).found
    return list(found.uncured)


def test_code_that_the_base_replaced(packaged: str, of: Base, web: Container) -> None:
    """Named with its inode, once the base has stopped, though its name is still there."""
    generations.update(of)
    web.start()
    with busybox(web) as found:
        found.converged = 1
        assert look(of, found) == (found, [], [])
        old = os.stat(f"{packaged}/{BUSYBOX}").st_ino
        replace(packaged, BUSYBOX)
        replace(packaged, TOOL)  # which is merely open
        with running(of):
            assert look(of, found).runners == []
        (runner,) = look(of, found).runners
        assert runner == oldcode.Runner(found.init, None, "busybox", {}, {CODE: old})
        assert generations.update(of) is not None
        (row, pending) = stalerows.rows(stalerows.look(of, [found]))
        assert (row["files"], row["generation"]) == ([CODE], 2)
        assert (pending["files"], pending["reason"]) == (["/"], "pending")
        found.converged = None
        assert look(of, found).uncured == [Uncured("/", Reason.PENDING)]
        found.started_at = time.time() + 1  # it began with what there is now
        assert look(of, found).uncured == []
    web.stop()


def test_a_base_that_changed_unseen(packaged: str, of: Base, web: Container) -> None:
    """Where no watcher has written its manifest since, its containers are told of as pending."""
    web.start()
    with busybox(web) as found:
        found.started_at = time.time() - 1000
        assert uncured(of, found) == [Uncured("/", Reason.PENDING)]  # there is none at all
        generations.update(of)
        found.converged = 1
        assert uncured(of, found) == []
        replace(packaged, TOOL)
        assert uncured(of, found) == [Uncured("/", Reason.PENDING)]
        with running(of):
            assert uncured(of, found) == []
        found.started_at = time.time() + 1  # it began with what there is now
        assert uncured(of, found) == []
    web.stop()


def test_code_that_the_base_deleted(packaged: str, of: Base, web: Container) -> None:
    """It is old as well."""
    generations.update(of)
    web.start()
    with busybox(web) as found:
        os.unlink(f"{packaged}/{BUSYBOX}")
        (runner,) = look(of, found).runners
        assert list(runner.held) == [CODE]
    web.stop()


def test_code_that_the_container_replaced(packaged: str, of: Base, web: Container) -> None:
    """As apt in a container does it: old by the kernel's word, at any time, since no update."""
    generations.update(of)
    web.start()
    with busybox(web) as found:
        old = os.stat(f"{packaged}/{BUSYBOX}").st_ino
        replace(web.merged, BUSYBOX)
        for state in (contextlib.nullcontext(), running(of)):
            with state:
                (runner,) = look(of, found).runners
                assert (runner.gone, runner.held) == ({CODE: old}, {})
        assert oldcode.is_deleted(found.init)
        (row,) = stalerows.rows(stalerows.look(of, [found]))
        assert (row["generation"], row["since"]) == (None, None)
    web.stop()


def test_code_of_the_container_s_own(packaged: str, of: Base, web: Container) -> None:
    """What upper has is not the base's to replace."""
    generations.update(of)
    web.start()
    shutil.copy(f"{web.merged}/{BUSYBOX}", f"{web.merged}/{BUSYBOX}.own")
    os.rename(f"{web.merged}/{BUSYBOX}.own", f"{web.merged}/{BUSYBOX}")
    with busybox(web) as found:
        replace(packaged, BUSYBOX)
        overlay.refresh(web.merged)
        assert look(of, found).runners == []
    web.stop()


def test_code_of_another_tree(packaged: str, of: Base, web: Container) -> None:
    """Nor is what has the same path in a mount namespace of the process's own."""
    generations.update(of)
    web.start()
    shutil.copy(f"{web.merged}/{BUSYBOX}", f"{web.merged}/etc/other")
    words = ("unshare", "--mount", "sh", "-ec", OTHER, web.merged)
    with in_namespaces(*words) as pids, open(f"{web.merged}/{BUSYBOX}", "rb"):
        found = record.read(web.directory)
        found.init, found.init_start = pids[0], instance.process_start(pids[0])
        replace(packaged, BUSYBOX)
        assert [used.path for used in procs.code(pids[0])][:1] == [CODE]
        assert look(of, found).runners == []
    web.stop()


def scripts(base: Base, of_it: Record) -> list[str]:
    """The scripts that somebody in the container runs an old one of."""
    return [path for runner in look(base, of_it).runners for path in runner.scripts]


@contextlib.contextmanager
def interpreting(web: Container) -> Iterator[Record]:
    """A record of the container, whose init is an interpreter with a script."""
    words = ("unshare", "--mount", "bash", "-ec", INTERPRETING, web.merged)
    with in_namespaces(*words) as pids:
        found = record.read(web.directory)
        found.init, found.init_start = pids[0], instance.process_start(pids[0])
        found.converged = 2
        yield found


def test_script_that_the_base_replaced(packaged: str, of: Base, web: Container) -> None:
    """Old for who began before that update was over, and for nobody else."""
    shutil.copy("/bin/busybox", f"{packaged}/usr/bin/perl")
    write(f"{packaged}/{SCRIPT}", SLEEPING)
    generations.update(of)
    web.start()
    with interpreting(web) as found:
        assert scripts(of, found) == []
        write(f"{packaged}/{SCRIPT}.new", SLEEPING)
        os.rename(f"{packaged}/{SCRIPT}.new", f"{packaged}/{SCRIPT}")
        overlay.refresh(web.merged)
        with running(of):
            assert scripts(of, found) == []
        assert scripts(of, found) == [f"/{SCRIPT}"]
        with interpreting(web) as meanwhile:
            assert scripts(of, meanwhile) == []
            began = instance.time_of(meanwhile.init_start + 1)
            until(lambda: time.time() > began, what="its tick of the clock is over")
            generations.update(of)
            assert scripts(of, meanwhile) == [f"/{SCRIPT}"]
        (row,) = stalerows.rows(stalerows.look(of, [found]))
        assert (row["files"], row["generation"]) == ([f"/{SCRIPT}"], 2)
        assert row["remedy"] == "restart container web1"
        with running(of):
            assert scripts(of, found) == [f"/{SCRIPT}"]
    with interpreting(web) as found:
        assert scripts(of, found) == []
        write(f"{web.merged}/{SCRIPT}", SLEEPING)  # as apt in the container does
        assert scripts(of, found) == [f"/{SCRIPT}"]
    web.stop()


def test_what_is_noted_while_the_base_runs(packaged: str, of: Base, web: Container) -> None:
    """Code of which a converge has said that it stays stale is old, whatever the base does now."""
    generations.update(of)
    web.start()
    with busybox(web) as found:
        replace(packaged, BUSYBOX)
        stale.write(found, 2, [Uncured(CODE, Reason.REPORTED)])
        with running(of):
            seen = look(of, found)
        assert seen.uncured == [Uncured(CODE, Reason.REPORTED)]
        assert [list(runner.held) for runner in seen.runners] == [[CODE]]
    web.stop()


def test_base_that_was_replaced(packaged: str, of: Base, web: Container) -> None:
    """All of the container is old then, which is one path, and not a row for every process."""
    generations.update(of)
    web.start()
    with busybox(web) as found:
        shutil.move(packaged, f"{packaged}.old")
        shutil.copytree(f"{packaged}.old", packaged, symlinks=True)
        assert look(of, found) == (found, [], [Uncured("/", Reason.REPLACED)])
    web.stop()


@pytest.mark.usefixtures("packaged")
def test_container_that_is_gone(of: Base, web: Container) -> None:
    """Nothing is told of it, nor of a process that has the pid of its init now."""
    web.start()
    with busybox(web) as found:
        found.init_start += 1
        assert oldcode.look(of, [found]) == []
    web.stop()


@pytest.fixture
def place() -> Iterator[str]:
    """A directory on disk, of no temporary name."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as path:
        yield path


@contextlib.contextmanager
def executed(descriptor: int) -> Iterator[None]:
    """Have a file mapped to be executed; it is closed."""
    os.ftruncate(descriptor, mmap.PAGESIZE)
    with mmap.mmap(descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        os.close(descriptor)
        yield


def deleted(path: str) -> int:
    """A descriptor of a file that has no name any more."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o700)
    os.unlink(path)
    return descriptor


@pytest.mark.parametrize(
    "name", ["library.so", "with space", "orcexec", "nested/tmp", "jna12.tmpl", "memfd:x"]
)
def test_deleted_code(place: str, name: str) -> None:
    """A file that was mapped to be executed and then deleted is old code."""
    path = f"{place}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with executed(deleted(path)):
        assert list(oldcode.runner_of(os.getpid()).gone) == [path]
    assert not oldcode.is_deleted(os.getpid())


@pytest.mark.parametrize("name", ["orcexec.AbC1", "#1234", "jna12.tmp"])
def test_compiled_while_it_runs(place: str, name: str) -> None:
    """What some runtimes write, map and delete is no code that an update replaced."""
    with executed(deleted(f"{place}/{name}")):
        assert not oldcode.is_deleted(os.getpid())


@pytest.mark.parametrize("directory", ["/tmp", "/var/tmp", "/run", "/dev/shm"])
def test_temporary_files(directory: str) -> None:
    """Nor is what lies in a place for what passes."""
    try:
        with executed(deleted(f"{directory}/pycor-{os.getpid()}")):
            assert not oldcode.is_deleted(os.getpid())
    except PermissionError:
        pytest.skip(f"nothing may be executed from {directory}")


def test_memory_without_a_file() -> None:
    """Nor is memory that only looks like a file: memfd, and what is shared by a fork."""
    with (
        executed(os.memfd_create("runc")),
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    ):
        assert not oldcode.is_deleted(os.getpid())


def test_deleted_data(place: str) -> None:
    """A deleted log that is open, or data that is mapped, is no code."""
    descriptor = deleted(f"{place}/log")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    with mmap.mmap(descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ):
        assert not oldcode.is_deleted(os.getpid())
    os.close(descriptor)
