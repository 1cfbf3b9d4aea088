# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of a daemon in a mount namespace of its own: what they mount where."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import apart
from lab.apart import Apart
from lab.liblxc import Container, make_base
from lab.starts import IDMAP
from pycor_hooks import kernel, namespaces, record, takedown
from tests.kernel.test_hooks import read, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.host_root


@pytest.fixture
def keeper() -> Iterator[int]:
    """A process that stands for the daemon."""
    with apart.namespace() as process:
        yield process


@pytest.fixture
def web(daemon: Path, base: str, keeper: int) -> Iterator[Apart]:  # noqa: ARG001
    """A container of such a daemon."""
    container = make(str(daemon), "web1", keeper)
    yield container
    container.end()


def make(daemon: str, name: str, keeper: int) -> Apart:
    """A container of such a daemon, whose ids have to be mapped."""
    container = Apart(daemon, name, keeper)
    container.idmap = IDMAP
    return container


def test_the_rootfs_is_there_and_merged_is_here(web: Apart) -> None:
    """From pre-start to start-host the daemon's namespace has the overlay, the host to the end."""
    assert web.pre_start() == 0, web.log()
    assert web.mounts_elsewhere() == [web.rootfs]
    assert [mount.target for mount in web.overlays()] == [web.merged]
    place = os.stat(f"/proc/{web.keeper}/ns/mnt").st_ino
    assert record.read(web.directory).namespace == place
    assert web.hook("start-host") == 0
    assert web.mounts_elsewhere() == []
    assert read(f"{web.merged}/etc/os-release") == "etc/os-release of base\n"
    assert web.hook("post-stop") == 0
    assert (web.overlays(), web.mounts_elsewhere()) == ([], [])
    assert not os.path.exists(web.directory)


def test_volumes_that_only_the_daemon_sees(tmp_path: Path, keeper: int) -> None:
    """A pool that is mounted there and not here: base, layer and strays are found all the same."""
    tmp_path.chmod(0o755)
    with namespaces.of_process(keeper):
        kernel.mount("tmpfs", str(tmp_path), "tmpfs", 0, "mode=0755")
        make_base(tmp_path)
        web = make(str(tmp_path), "web1", keeper)
        write(f"{web.rootfs}/etc-stray", "stray\n")
    try:
        with namespaces.of_process(keeper):
            command, env = Container.command(web, "pre-start", "--base", "base")
        words = ["nsenter", f"--mount=/proc/{os.getpid()}/ns/mnt", "--", *command]
        web.monitor = web.new_monitor()
        assert web.monitor.run(" ".join(words), env) == 0
        assert os.listdir(tmp_path) == []
        assert read(f"{web.merged}/etc-stray") == "stray\n"
        takedown.own(web.directory, web.monitor.pid)
        assert (web.overlays(), web.mounts_elsewhere()) == ([], [])
    finally:
        web.end()
