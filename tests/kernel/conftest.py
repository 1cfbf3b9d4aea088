# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel tests run in a mount namespace of their own, with a /run and a /var/lib of their own."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from lab.liblxc import Container, make_base
from lab.mounts import own_mounts
from lab.payload import Payload
from pycor_hooks import generations, instance, kernel, mountinfo, pulse, record
from tests.kernel.patient import Patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="package", autouse=True)
def namespace() -> Iterator[None]:
    """Move the whole test process into a new mount namespace, and back in the end."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(own_mounts())
        except PermissionError as error:
            pytest.skip(f"cannot make a mount namespace: {error.strerror}")
        yield


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test: no overlay that it mounted is left, and nothing is recorded."""
    before = {mount.mount_id for mount in mountinfo.read()}
    yield
    pulse.hide()  # a watcher that was killed leaves its file to the next one
    left = [
        mount.target
        for mount in mountinfo.read()
        if mount.source == "pycor-hooks" and mount.mount_id not in before
    ]
    recorded = os.listdir(record.RUN) if os.path.isdir(record.RUN) else []
    for target in reversed(left):
        kernel.umount(target, kernel.MNT_DETACH)
    assert (left, recorded) == ([], [])


@pytest.fixture
def daemon(tmp_path: Path) -> Path:
    """A made-up daemon's directory."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def pool(daemon: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The pool of the base: its containers' own, or, as a parameter, a file system of its own."""
    name: str | None = getattr(request, "param", None)
    if name is None:
        yield "pool"
        return
    path = f"{daemon}/storage-pools/{name}"
    os.makedirs(path)
    kernel.mount("tmpfs", path, "tmpfs", 0, "mode=0755")
    yield name
    kernel.umount(path, kernel.MNT_DETACH)


@pytest.fixture
def base(daemon: Path, pool: str) -> Iterator[str]:
    """The rootfs of the base called ``base``; what is kept of it is gone afterwards."""
    yield make_base(daemon, pool=pool)
    generations.remove(str(daemon))
    assert not os.path.exists(instance.STATE)


@pytest.fixture
def web(daemon: Path, base: str) -> Iterator[Container]:  # noqa: ARG001 - it has to be there
    """A container on that base; its processes are ended after the test."""
    container = Container(str(daemon), "web1")
    yield container
    container.end()


@pytest.fixture
def patient(web: Container, base: str) -> Iterator[Patient]:
    """A running container in a cgroup of its own; stopped after the test, it leaves nothing."""
    with Payload(web.name) as payload:
        patient = Patient(web, base, payload)
        yield patient
        if web.init:
            assert payload.frozen() == []
            patient.stop()
    assert set(os.listdir(patient.own)) == {"upper", "work"}
