# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of containers, as /proc shows them to the host."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lab.payload import Payload
from lab.wait import until
from pycor_hooks import kernel, lost, procs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_mock import MockerFixture

pytestmark = pytest.mark.host_root

SLEEP = re.compile(rb"(/usr/bin/busybox\0)?sleep\0")
IN_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--")


@contextlib.contextmanager
def in_namespaces(*words: str) -> Iterator[list[int]]:
    """Run a command in a pid namespace; the pids of all that this started, but for the first."""
    process = subprocess.Popen([*IN_NAMESPACE, *words])
    try:
        until(lambda: _sleeps(process.pid), what=f"{words} sleeps")
        yield _descendants(process.pid)
    finally:
        process.kill()
        process.wait()


def _descendants(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = [int(word) for word in file.read().split()]
    return children + [below for child in children for below in _descendants(child)]


def _sleeps(pid: int) -> bool:
    return any(SLEEP.match(_arguments(below)) for below in _descendants(pid))


def _arguments(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
    return b""


def test_processes_of_containers() -> None:
    """Each has those in its pid namespace, and those in namespaces below that; no other's."""
    script = " ".join((*IN_NAMESPACE, "sleep", "infinity"))
    with (
        in_namespaces("sh", "-c", f"{script}; true") as outer,
        in_namespaces("sleep", "infinity") as single,
    ):
        assert len(outer) == 3  # the shell, unshare, and sleep in a namespace below
        found = procs.of_containers([outer[0], single[0]])
        assert found == {outer[0]: sorted(outer), single[0]: single}
    until(
        lambda: procs.of_containers([outer[0]]) == {outer[0]: []},
        what="those that are gone belong to nobody",
    )


def test_own_namespace_is_no_container() -> None:
    """An init in our own pid namespace has no processes that could be told from the host's."""
    assert procs.of_containers([os.getpid()]) == {os.getpid(): []}


def test_used(tmp_path: Path) -> None:
    """What is mapped and what is open, once each, by path, with the numbers that stat gives."""
    names = ["plain", "with blank", "line\nend", "back\\012slash", "\udcff"]
    for name in names:
        (tmp_path / name).write_text("content")
    pid = os.getpid()
    with contextlib.ExitStack() as stack:
        for name in names:
            file = stack.enter_context(open(tmp_path / name, "r+b"))
            stack.enter_context(mmap.mmap(file.fileno(), 0))
            stack.enter_context(open(tmp_path / name, "rb"))
        ours = [one for one in procs.used(pid) if one.path.startswith(f"{tmp_path}/")]
        os.unlink(tmp_path / "plain")
        deleted = {one for one in procs.used(pid) if one.path == f"{tmp_path}/plain"}
    opened = {one.path: (one.dev, one.ino) for one in ours if not one.mapped}
    numbers = {
        f"{tmp_path}/{name}": (status.st_dev, status.st_ino)
        for name in names[1:]
        for status in [os.stat(tmp_path / name)]
    }
    assert {path: opened[path] for path in numbers} == numbers
    assert len(opened) == len(names)
    mapped = {one.path: (one.dev, one.ino) for one in ours if one.mapped}
    del opened[f"{tmp_path}/back\\012slash"]  # in maps it cannot be told from a line end
    assert mapped.items() >= opened.items()
    assert {(one.mapped, one.deleted) for one in deleted} == {(True, True), (False, True)}


def test_executable() -> None:
    """The executable is there, and is mapped."""
    executable = os.path.realpath("/proc/self/exe")
    status = os.stat(executable)
    used = procs.Used(executable, status.st_dev, status.st_ino, mapped=True, deleted=False)
    assert used in set(procs.used(os.getpid()))


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no FUSE here")
def test_file_system_that_never_answers(tmp_path: Path) -> None:
    """What a process has open in one whose server is mute keeps nobody waiting."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    kernel.mount("mute", str(tmp_path), "fuse", 0, options)
    place = os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)
    process = subprocess.Popen(["sleep", "infinity"], stdin=place)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: {one.path for one in procs.used(process.pid)})
        try:
            assert str(tmp_path) in found.result(timeout=5)
        finally:
            os.close(device)  # which ends every wait for it
            process.kill()
            process.wait()
            os.close(place)
            kernel.umount(str(tmp_path))


def test_whose_root_an_overlay_is_asks_no_file_system(mocker: MockerFixture) -> None:
    """It may be in one whose server is mute: what the kernel remembers is enough."""
    asked = mocker.spy(os, "stat")
    device = os.lstat("/").st_dev
    assert lost.inhabitant(f"{os.major(device)}:{os.minor(device)}") == 1
    assert [
        call.args[0] for call in asked.call_args_list if str(call.args[0]).endswith("/root")
    ] == []


def test_a_process_that_is_gone() -> None:
    """It uses nothing, and has neither unit nor name."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert list(procs.used(process.pid)) == []
    assert (procs.unit(process.pid), procs.command(process.pid)) == (None, "")


@pytest.mark.parametrize(
    ("below", "unit"),
    [
        ("system.slice/nginx.service", "nginx.service"),
        ("system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("init.scope", "init.scope"),
        ("user.slice/user-0.slice/user@0.service/app.slice/x.service", "user@0.service"),
        ("user.slice/user-0.slice", None),
        ("", None),
        ("lxc.payload.inner/system.slice/nginx.service", None),
    ],
)
def test_unit(below: str, unit: str | None) -> None:
    """The unit is that of the container's system manager, whatever the cgroup is called.

    A container in the container has a manager of its own, whose units are not the container's.
    """
    with Payload("web.service") as payload:
        process = payload.run("sleep", "infinity")
        places = [place for place in (payload.version2, payload.version1) if place]
        parts = below.split("/") if below else []
        made = [
            f"{place}/{'/'.join(parts[: n + 1])}" for place in places for n in range(len(parts))
        ]
        for directory in made:
            os.mkdir(directory)
        try:
            for place in places:
                with open(f"{place}/{below}/cgroup.procs", "w") as file:
                    file.write(str(process.pid))
            assert procs.unit(process.pid) == unit
        finally:
            payload.kill()
            for directory in reversed(made):
                os.rmdir(directory)
