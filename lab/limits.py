# SPDX-License-Identifier: GPL-3.0-or-later
"""Host limits that some dozens of containers run into, raised for a while and put back.

The kernel's defaults stop at about 20 systemd containers of one id map; the daemons' own
production-setup pages list the values. Several labs may run at once: the first one notes what
it found, the last one puts it back, and a lock that all of them share says who is the last.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED = {
    "fs/inotify/max_user_instances": 4096,
    "fs/inotify/max_user_watches": 1048576,
    "kernel/keys/maxkeys": 4000,
    "kernel/keys/maxbytes": 2000000,
    "vm/max_map_count": 262144,
}

NOTE = "/run/pycor-hooks-lab.limits"


def _read(name: str) -> int:
    with open(f"/proc/sys/{name}", encoding="ascii") as value:
        return int(value.read())


def write(name: str, number: int) -> None:
    """Set the sysctl ``name``, with slashes."""
    with open(f"/proc/sys/{name}", "w", encoding="ascii") as value:
        value.write(str(number))


def _note(descriptor: int) -> dict[str, int]:
    text = os.pread(descriptor, 4096, 0)
    return json.loads(text) if text else {}


@contextlib.contextmanager
def raised(note: str = NOTE) -> Iterator[None]:
    """Raise what is lower than WANTED while the block runs; never lower anything."""
    descriptor = _open_locked(note)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # held to the end: "I am one of the labs"
        found = _note(descriptor)
        for name, number in WANTED.items():
            now = _read(name)
            if now < number:
                found.setdefault(name, now)
                write(name, number)
        os.pwrite(descriptor, json.dumps(found).encode(), 0)
        fcntl.lockf(descriptor, fcntl.LOCK_UN)
        yield
    finally:
        _put_back(descriptor, note)
        os.close(descriptor)


def _open_locked(note: str) -> int:
    """The note, held by the short lock (fcntl(2)'s, which is independent of flock(2)'s)."""
    while True:
        descriptor = os.open(note, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # the last lab removed it while we waited


def _put_back(descriptor: int, note: str) -> None:
    """Undo the note, unless another lab lives; keep what an administrator set since."""
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    for name, number in _note(descriptor).items():
        if _read(name) == WANTED[name]:
            write(name, number)
    os.unlink(note)
