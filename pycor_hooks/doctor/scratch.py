# SPDX-License-Identifier: GPL-3.0-or-later
"""A place to try things in: a directory of ours, and mounts that nobody else sees.

What is tried is mounted in a child's own mount namespace, which is a slave of the host's: nothing
of it reaches the host, and the kernel drops it when the child ends, however that happens. What
can stay behind is the directory; it is locked while it is in use, and the next run removes those
whose lock nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

from pycor_hooks import kernel
from pycor_hooks.doctor.check import FAIL, Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PREFIX = ".pycor-hooks-doctor-"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def directory(place: str) -> Iterator[str]:
    """Make an empty directory, and remove it afterwards.

    Args:
        place: a directory that only root can write to, on the file system to try.

    Raises:
        OSError: nothing can be made there.
    """
    sweep(place)
    path, lock = _make(place)
    try:
        yield path
    finally:
        shutil.rmtree(path)
        os.close(lock)


def sweep(place: str) -> None:
    """Remove what a run that was killed left behind."""
    for name in os.listdir(place):
        path = f"{place}/{name}"
        if name.startswith(PREFIX) and not kernel.is_mount_root(path):
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path)
                os.close(lock)


def _make(place: str) -> tuple[str, int]:
    """Make a directory and lock it; anew where another run swept it away in between."""
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=place)
        lock = _lock(path)
        if lock is not None:
            return path, lock


def _lock(path: str) -> int | None:
    """The lock of a directory, None where another process has it, or has removed it."""
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def apart(what: Callable[[], Iterable[Check]]) -> list[Check]:
    """Run checks in a child with a mount namespace of its own.

    Args:
        what: may mount as it likes, and needs to clean up nothing but processes of its own.

    Returns:
        What it has found; what it was about to say when it died is a FAIL.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _answer(writer, what)
    os.close(writer)
    with open(reader, "rb") as answer:
        rows = [Check(*json.loads(line)) for line in answer]
    _, status = os.waitpid(child, 0)
    if status:
        end = os.waitstatus_to_exitcode(status)
        rows.append(_broken(f"the trial ended with {end}"))
    return rows


def _answer(writer: int, what: Callable[[], Iterable[Check]]) -> None:
    """In the child: write each check as a line of JSON, and end."""
    status = 1
    try:
        kernel.die_with_parent(signal.SIGKILL)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE)
        for one in what():
            os.write(writer, json.dumps(one).encode() + b"\n")
        status = 0
    except Exception as error:  # noqa: BLE001 - the parent says it
        os.write(writer, json.dumps(_broken(f"{type(error).__name__}: {error}")).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _broken(cause: str) -> Check:
    return Check("trial", "this host", FAIL, cause, "please report it")
