# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recorded below /run/pycor-hooks: a directory, a state file and a lock per overlay.

The mount table is the truth of what is mounted; the state file says what the table cannot: which
instance, which base, which start made it. Both are gone after a reboot. The layout::

    /run/pycor-hooks/                 0700: what containers wrote, setuid files too, is for root
      DAEMON/                         the daemon's directory, escaped as systemd-escape does
        KEY/                          LXC_NAME; flock(2) on this directory is the overlay's lock
          merged/                     the overlay's mount point
          state                       KEY=VALUE lines, replaced by rename; its mtime is the time
                                      of the last refresh
          stale                       what could not be converged with the base (stale.py)
      .watch/PID                      what a watcher shows of itself; no daemon begins with a dot

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import fcntl
import os
import time

from pycor_hooks.errors import BadState, StillHeld
from pycor_hooks.record import RUN, Record, escape, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

LOCK_TIMEOUT = 20.0


class Lock:
    """The lock of one overlay: flock(2) on its directory, which is made when it is not there.

    The directory may be removed by whoever held the lock before; then it is made anew, so that
    the lock is always on the directory that the path names now.
    """

    def __init__(self, directory: str, *, timeout: float = LOCK_TIMEOUT) -> None:
        """Prepare the lock; ``with`` takes it.

        Args:
            directory: of the overlay, below RUN.
            timeout: seconds to wait for another holder.
        """
        self.directory = directory
        self._timeout = timeout
        self._descriptor = -1

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self._timeout
        while True:
            descriptor = _open_directory(self.directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, self.directory):
                    self._descriptor = descriptor
                    return self
                os.close(descriptor)
            except BlockingIOError:
                os.close(descriptor)
                if time.monotonic() > deadline:
                    raise StillHeld(
                        path=self.directory,
                        holder="another hook or command (lock)",
                        remedy="see who with: fuser -v " + self.directory,
                    ) from None
                time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _open_directory(directory: str) -> int:
    while True:
        try:
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            _make_directory(directory)


def _make_directory(directory: str) -> None:
    try:
        for path in (RUN, os.path.dirname(directory), directory):
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
    except (FileExistsError, FileNotFoundError):
        return  # another process made it, or removed its parent: the caller tries again


def _is_at(descriptor: int, path: str) -> bool:
    """Whether the open directory is the one that the path names now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def directories(daemons: list[str] | None = None) -> list[str]:
    """The directories of all overlays, or of those of some daemons.

    Args:
        daemons: directories such as ``/var/lib/lxd``; None for all that there are.
    """
    try:
        names = os.listdir(RUN) if daemons is None else [escape(path) for path in daemons]
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        if name.startswith("."):
            continue
        try:
            keys = os.listdir(f"{RUN}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        found += [f"{RUN}/{name}/{key}" for key in sorted(keys)]
    return found


def records(daemons: list[str] | None = None) -> list[Record]:
    """The records of all overlays; a directory without a sound state file is left out."""
    found = []
    for directory in directories(daemons):
        try:
            found.append(read(directory))
        except (FileNotFoundError, NotADirectoryError, BadState):
            continue
    return found
