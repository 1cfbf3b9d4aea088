# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's log during one call; other files stand for it: to write to it disturbs others."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from pycor_hooks.kernellog import KernelLog

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

COMPLAINT = b"4,7,8,-;overlayfs: upperdir is in-use as upperdir/workdir of another mount"


def log_from(descriptor: int) -> KernelLog:
    """A log that is read from a file of ours."""
    log = KernelLog()
    log._descriptor = descriptor
    return log


@pytest.mark.parametrize("records", [[], [b"6,1,2,-;usb"] * 3])
@pytest.mark.parametrize("last", [b"", COMPLAINT])
def test_a_complaint_among_other_records(records: list[bytes], last: bytes) -> None:
    """Each read gives one record, and none when there is no more."""
    kernel, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, reader:
        reader.setblocking(False)
        for record in [*records, *filter(None, [last])]:
            kernel.send(record)
        assert log_from(reader.fileno()).may_tell_of_a_shared_upper() is bool(last)


def test_a_log_that_never_ends() -> None:
    """Somebody who writes faster than we read keeps no start waiting: it is looked closer."""
    with open("/dev/zero", "rb") as flood:
        assert log_from(flood.fileno()).may_tell_of_a_shared_upper()


def test_lost_records(mocker: MockerFixture) -> None:
    """What was overwritten before it was read may have been a complaint (EPIPE)."""
    read = mocker.patch.object(os, "read", side_effect=BrokenPipeError)
    told = log_from(0).may_tell_of_a_shared_upper()
    mocker.stop(read)
    assert told


def test_a_log_that_may_not_be_read(mocker: MockerFixture) -> None:
    """In a user namespace there is nothing to go by."""
    mocker.patch.object(os, "open", side_effect=PermissionError)
    with KernelLog() as log:
        assert not log.may_tell_of_a_shared_upper()
