# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever gives paths back is killed before each of his steps: each is the one or the other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import killed
from lab.liblxc import Container
from lab.payload import Payload
from pycor_hooks import converge, drop
from tests.kernel.patient import Patient
from tests.kernel.test_converge import write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.host_root

MODIFIED, DELETED, ADDED = "usr/bin/tool", "etc/hostname", "usr/bin/added"
PATHS = (MODIFIED, DELETED, ADDED)
OWN = {MODIFIED: "own\n", DELETED: None, ADDED: "own\n"}
OF_BASE = {MODIFIED: "usr/bin/tool of base\n", DELETED: "etc/hostname of base\n", ADDED: None}


def begin(daemon: str, base: str, number: int) -> Patient:
    """A container that has modified, deleted and added a file."""
    web = Container(daemon, f"web{number}")
    payload = Payload(web.name)
    payload.__enter__()
    patient = Patient(web, base, payload)
    for path in (MODIFIED, ADDED):
        write(f"{web.merged}/{path}")
    os.unlink(f"{web.merged}/{DELETED}")
    return patient


def end(patient: Patient) -> None:
    """Stop it; nothing is left of its own, nor of what was done."""
    patient.stop()
    patient.payload.__exit__(None, None, None)
    patient.web.end()
    assert set(patient.upper()) <= {"etc", "usr", "usr/bin"}
    assert set(os.listdir(patient.own)) == {"upper", "work"}


def test_killed_before_each_step(daemon: Path, base: str) -> None:
    """The watcher finishes what he finds; each file is there, own or the base's; then again."""
    patient = begin(str(daemon), base, 0)
    found = killed.steps("lab.dropping", patient.web.directory, *PATHS)
    assert {path: patient.sees(path) for path in PATHS} == OF_BASE
    end(patient)
    for number, step in enumerate(found, 1):
        patient = begin(str(daemon), base, number)
        words = ("lab.dropping", patient.web.directory, *PATHS)
        assert killed.run(number, *words) == killed.KILLED, step
        converge.settle(patient.record)
        assert not os.path.exists(f"{patient.own}/cure"), step
        assert patient.payload.frozen() == [], step
        for path in PATHS:
            assert patient.sees(path) in {OWN[path], OF_BASE[path]}, step
        assert (
            drop.from_running(patient.record, [path for path in PATHS if differs(patient, path)])
            == {}
        )
        assert {path: patient.sees(path) for path in PATHS} == OF_BASE, step
        end(patient)


def differs(patient: Patient, path: str) -> bool:
    """Whether a path is not the base's yet."""
    return patient.sees(path) != OF_BASE[path]
