# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever cures a container is killed between each two of his steps: nothing is lost or frozen."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from lab import killed
from lab.liblxc import Container
from lab.payload import Payload
from pycor_hooks import converge
from tests.kernel.patient import Patient
from tests.kernel.test_converge import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.host_root

REPLACED, DELETED, HIDDEN, OBSOLETE = "usr/bin/tool", "etc/deleted", "etc/hidden", "srv/file"
FIRST = "opt/file"
PATHS = (DELETED, HIDDEN, FIRST, "srv", OBSOLETE, REPLACED)
OURS = {"etc", "opt", "srv", "usr", "usr/bin"}


class Case:
    """One container after another in the same state: cured once, and its base changed again."""

    def __init__(self, daemon: str, base: str) -> None:
        self._daemon = daemon
        self._base = base
        self._count = 0

    def begin(self) -> Patient:
        """A container with something to unlink, to mirror and to remove; one path is its own."""
        self._count += 1
        web = Container(self._daemon, f"web{self._count}")
        for path in (DELETED, HIDDEN, OBSOLETE, FIRST):
            os.makedirs(os.path.dirname(f"{self._base}/{path}"), exist_ok=True)
            write(f"{self._base}/{path}", "old\n")
        payload = Payload(web.name)
        payload.__enter__()
        patient = Patient(web, self._base, payload)
        for path in (REPLACED, OBSOLETE):
            patient.hold(path)
            patient.replace(path, "first\n")
        patient.converge(*PATHS)
        payload.kill()
        os.unlink(f"{web.merged}/{HIDDEN}")
        for path in (REPLACED, DELETED, FIRST):
            patient.hold(path)
        os.unlink(f"{self._base}/{DELETED}")
        shutil.rmtree(f"{self._base}/srv")
        for path in (REPLACED, HIDDEN, FIRST):
            patient.replace(path)
        os.chmod(f"{self._base}/usr/bin", 0o711 + self._count % 2)
        return patient

    def words(self, patient: Patient) -> list[str]:
        """What cures it, as a process that can be killed."""
        return ["lab.converging", patient.web.directory, self._base, *PATHS]


@pytest.fixture
def case(daemon: Path, base: str) -> Case:
    """Containers on one base."""
    return Case(str(daemon), base)


def recorded(case: Case) -> list[str]:
    """The steps of a cure that nobody kills."""
    patient = case.begin()
    found = killed.steps(*case.words(patient))
    assert_converged(patient)
    end(patient)
    return found


def watcher(patient: Patient) -> None:
    """The watcher starts again: it finishes what it finds, then converges."""
    converge.settle(patient.record)
    assert not os.path.exists(f"{patient.own}/cure")
    assert patient.payload.frozen() == []
    for path in (REPLACED, FIRST, HIDDEN):
        assert (patient.sees(path) is None) == (path == HIDDEN)
    assert patient.converge(*PATHS).reasons == {}
    assert_converged(patient)


def next_start(patient: Patient) -> None:
    """Nobody does, and the container is killed and started again."""
    web = patient.web
    web.kill_init()
    patient.payload.kill(thaw=False)
    web.kill_monitor()
    web.start()
    assert_converged(patient)
    assert set(patient.upper()) == {"etc", HIDDEN}


def assert_converged(patient: Patient) -> None:
    """It sees the base, but for what it has deleted itself; there is no journal."""
    seen = {path: patient.sees(path) for path in PATHS if path != "srv"}
    gone = dict.fromkeys((DELETED, HIDDEN, OBSOLETE))
    assert seen == {**gone, FIRST: "new\n", REPLACED: "new\n"}
    assert not os.path.exists(f"{patient.own}/cure")
    assert set(patient.upper()) <= {*OURS, HIDDEN}


def end(patient: Patient) -> None:
    """Stop it; nothing is left of what was copied up."""
    patient.stop()
    patient.payload.__exit__(None, None, None)
    patient.web.end()
    assert patient.upper() == ["etc", HIDDEN]
    assert set(os.listdir(patient.own)) == {"upper", "work"}


@pytest.mark.parametrize("after", [watcher, next_start])
def test_killed_between_each_two_steps(after: Callable[[Patient], None], case: Case) -> None:
    """After a kill at any step, the watcher or the next start leave every file in its place."""
    found = recorded(case)
    assert len(found) > 30
    for number, step in enumerate(found, 1):
        patient = case.begin()
        assert killed.run(number, *case.words(patient)) == killed.KILLED, step
        try:
            after(patient)
            end(patient)
        except AssertionError as error:
            raise AssertionError(f"killed before {step}") from error
