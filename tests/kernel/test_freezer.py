# SPDX-License-Identifier: GPL-3.0-or-later
"""The freezer of a container, in both versions of cgroups, while others freeze and thaw it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from lab.payload import Payload
from lab.wait import until
from pycor_hooks import freezer, procs
from pycor_hooks.errors import CannotFreeze
from pycor_hooks.freezer import Freezer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.host_root


@pytest.fixture
def payload() -> Iterator[Payload]:
    """A container's cgroup, with nothing in it."""
    with Payload("freezer") as made:
        yield made


@pytest.fixture(params=[1, 2])
def version(
    request: pytest.FixtureRequest, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> int:
    """The version that this host is to have, and no other."""
    number: int = request.param
    if not (payload.version1 if number == 1 else payload.version2):
        pytest.skip(f"no cgroups of version {number} here")
    if number == 1:
        monkeypatch.setattr(freezer, "_UNIFIED", ())
    else:
        monkeypatch.setattr(freezer, "_FREEZER", "/nonexistent")
    return number


def ticks(pid: int) -> int:
    """How much processor time a process has used, in clock ticks (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))


def runs(pid: int) -> bool:
    """Whether a process that never rests goes on."""
    before = ticks(pid)
    with contextlib.suppress(TimeoutError):
        return bool(until(lambda: ticks(pid) > before, what="it runs", timeout_s=0.5))
    return False


def test_freeze_and_thaw(payload: Payload, version: int) -> None:
    """All processes stop, also those in cgroups below, and go on."""
    busy = payload.run("sh", "-c", "while :; do :; done")
    with contextlib.closing(Freezer(busy.pid)) as made:
        made.freeze(1)
        assert made.frozen()
        assert payload.frozen() == [version]
        assert not runs(busy.pid)
        assert list(made.tasks()) == [busy.pid]
        made.thaw()
        assert payload.frozen() == []
        assert runs(busy.pid)


@pytest.mark.parametrize("version", [2], indirect=True)
def test_what_is_in_cgroups_below(payload: Payload, version: int) -> None:
    """Tasks of cgroups that the container has made are found, and frozen."""
    inside = payload.run("sleep", "infinity")
    os.mkdir(f"{payload.version2}/below")
    with open(f"{payload.version2}/below/cgroup.procs", "w") as file:
        file.write(str(inside.pid))
    with contextlib.closing(Freezer(inside.pid)) as made:
        made.freeze(1)
        assert list(made.tasks()) == [inside.pid]
    assert payload.frozen() == []
    payload.kill()
    until(lambda: removed(f"{payload.version2}/below"), what=f"version {version} is empty")


@pytest.mark.parametrize("name", [b"\xff", b"a\rb", "\u2028".encode(), b"lxc.payload.other"])
@pytest.mark.parametrize("version", [2], indirect=True)
def test_a_cgroup_by_any_name(payload: Payload, version: int, name: bytes) -> None:
    """A container that is in a cgroup below its own, called as it likes, is frozen as a whole."""
    inside = payload.run("sleep", "infinity")
    below = f"{payload.version2}/{os.fsdecode(name)}"
    os.mkdir(below)
    with open(f"{below}/cgroup.procs", "w") as file:
        file.write(str(inside.pid))
    with contextlib.closing(Freezer(inside.pid)) as made:
        made.freeze(1)
        assert list(made.tasks()) == [inside.pid]
        assert payload.frozen() == [version]
    assert procs.unit(inside.pid) is None
    payload.kill()
    until(lambda: removed(below), what="it is empty")


def removed(directory: str) -> bool:
    """Remove a cgroup, once nobody is in it."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    return not os.path.exists(directory)


def test_what_an_operator_froze(payload: Payload, version: int) -> None:
    """What was frozen before stays frozen afterwards."""
    inside = payload.run("sleep", "infinity")
    payload.freeze(version=version)
    with contextlib.closing(Freezer(inside.pid)) as made:
        assert made.asked()
        made.freeze(1)
        made.thaw()
    assert payload.frozen() == [version]


def test_an_operator_freezes_meanwhile(payload: Payload, version: int) -> None:
    """Who freezes it while we do has it frozen afterwards."""
    inside = payload.run("sleep", "infinity")
    with contextlib.closing(Freezer(inside.pid)) as made:
        made.freeze(1)
        payload.freeze(version=version)
        made.thaw()
    assert payload.frozen() == [version]


def test_an_operator_thaws_meanwhile(payload: Payload, version: int) -> None:
    """Who thaws it while we freeze it has it thawed, and is noticed."""
    inside = payload.run("sleep", "infinity")
    with contextlib.closing(Freezer(inside.pid)) as made:
        made.freeze(1)
        payload.thaw()
        until(lambda: not made.frozen(), what=f"version {version} thaws")


def test_paused_by_the_other_version(payload: Payload) -> None:
    """Where a host has both, a container that is paused by version 1 stops for us, too.

    When it is resumed meanwhile it stays stopped until we are done.
    """
    if not (payload.version1 and payload.version2):
        pytest.skip("this host has not both")
    busy = payload.run("sh", "-c", "while :; do :; done")
    payload.freeze(version=1)
    with contextlib.closing(Freezer(busy.pid)) as made:
        made.freeze(1)
        assert payload.frozen() == [1, 2]
        with open(f"{payload.version1}/freezer.state", "w") as file:
            file.write("THAWED")
        until(made.frozen, what="version 2 takes over")
        assert not runs(busy.pid)
        payload.freeze(version=1)
    assert payload.frozen() == [1]


def test_an_empty_cgroup_elsewhere(payload: Payload) -> None:
    """A process that is in no container's cgroup is never frozen: it may be the host's."""
    del payload
    with pytest.raises(CannotFreeze, match="no cgroup that can be frozen"):
        Freezer(os.getpid())
    with pytest.raises(CannotFreeze):
        Freezer(0)


def test_time_is_limited(payload: Payload, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that does not stop in time is let go on."""
    busy = payload.run("sh", "-c", "while :; do :; done")
    with contextlib.closing(Freezer(busy.pid)) as made:
        for cgroup in made._cgroups:
            monkeypatch.setattr(cgroup, "frozen", lambda: False)
        began = time.monotonic()
        with pytest.raises(CannotFreeze, match="did not stop within 100 ms"):
            made.freeze(0.1)
        assert time.monotonic() - began < 5
        assert payload.frozen() == [], version
        assert runs(busy.pid)
