# SPDX-License-Identifier: GPL-3.0-or-later
"""Which LXD and Incus daemons this host has, and which of them run, without starting one.

A daemon is known by its state directory; its API is `DIRECTORY/unix.socket`.
That socket may belong to systemd (`lxd.socket`, `incus.socket`): connecting to it starts a daemon
which its operator has stopped. So whether a daemon runs is asked of the socket which it makes for
its guests: that one is never passed in by systemd, and nobody listens on it any more as soon as
the process is gone, a SIGKILL included
(seen on LXD 5.0.2 and Incus 6.0.4; endpoints.go and devlxd.go, dev_incus.go in newer ones).
`/proc/net/unix` would tell as well, and whatever any user wrote into the name of a socket.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pycor_hooks import instance, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

USUAL_PLACES = (("lxd", "/var/lib/lxd"), ("incus", "/var/lib/incus"))
SNAP_PLACE = "/var/snap/lxd/common/lxd"
SNAP_PID = "/var/snap/lxd/common/lxd.pid"
# The guests' socket, below the state directory, of either kind.
GUEST_SOCKETS = {"lxd": "devlxd/sock", "incus": "guestapi/sock"}
PROCESSES = {"lxd": b"lxd", "incus": b"incusd"}


@dataclass(frozen=True, slots=True)
class Daemon:
    """One LXD or Incus daemon of this host.

    `kind` is "lxd" or "incus", `directory` the state directory (absolute).
    """

    kind: str
    directory: str

    @property
    def socket(self) -> str:
        """The path of the API's socket."""
        return f"{self.directory}/unix.socket"


def named_directories(directories: Sequence[str], environ: Mapping[str, str]) -> list[str] | None:
    """Return the state directories that the operator names, None where he leaves it to us.

    `directories` are those of `--daemon`; they override LXD_DIR and INCUS_DIR of `environ`.
    """
    chosen = list(directories) or [
        environ[name] for name in ("LXD_DIR", "INCUS_DIR") if environ.get(name)
    ]
    unique = dict.fromkeys(os.path.abspath(directory) for directory in chosen)
    return list(unique) or None


def find_daemons(
    directories: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> list[Daemon]:
    """Return the daemons to work for: the named ones, else those with a socket in a usual place.

    A named daemon is returned whether or not its directory or socket is there now.
    """
    named = named_directories(directories, environ)
    if named is not None:
        incus = environ.get("INCUS_DIR") and os.path.abspath(environ["INCUS_DIR"])
        return [Daemon(_kind_of(each, is_incus=each == incus), each) for each in named]
    places = (*USUAL_PLACES, ("lxd", SNAP_PLACE))
    found = [Daemon(kind, directory) for kind, directory in places]
    return [daemon for daemon in found if os.path.exists(daemon.socket)]


def is_listening(daemon: Daemon) -> bool:
    """Tell whether a process of this daemon is there to answer.

    Raises:
        OSError: its directory cannot be looked into.
    """
    return find_process(daemon) is not None


def find_process(daemon: Daemon) -> int | None:
    """Return the pid of a daemon, None where it does not run.

    In a mount namespace of its own its guests' socket is on a file system that the host does not
    see: then each process of its name is asked by way of its own root.

    Raises:
        OSError: its directory cannot be looked into.
    """
    guest_socket = f"{daemon.directory}/{GUEST_SOCKETS[daemon.kind]}"
    try:
        found = kernel.listener(os.fsencode(guest_socket) + b"\0")
    except BlockingIOError:  # it is busy, and does not say who it is
        return next(_processes(daemon), 0)
    if found is not None:
        return found[0]
    return next((pid for pid in _processes(daemon) if _listens(pid, guest_socket)), None)


def _processes(daemon: Daemon) -> Iterator[int]:
    """Our own user's processes of a daemon's name, the likeliest first; not those of containers.

    A user of the host may give his a daemon's name, and have them listen in a root of his own.
    """
    if daemon.directory == SNAP_PLACE:
        with contextlib.suppress(OSError, ValueError), open(SNAP_PID, "rb") as file:
            recorded = int(file.read(32))
            if instance.is_ours(str(recorded)):
                yield recorded
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{process}/comm", "rb") as file:
                named = file.read().strip() == PROCESSES[daemon.kind]
            if named and instance.is_ours(process):
                yield int(process)


def _listens(pid: int, path: str) -> bool:
    """Tell whether a process of our own user listens on a unix socket that it sees at a path."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        directory = kernel.open_in_root(root, os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
        try:
            name = f"/proc/self/fd/{directory}/{os.path.basename(path)}"
            return kernel.listener(os.fsencode(name) + b"\0") == (pid, os.geteuid())
        finally:
            os.close(directory)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(root)


def _kind_of(directory: str, *, is_incus: bool) -> str:
    """Tell the kind by what is in the directory, and before its first start by its name."""
    for kind, guest_socket in GUEST_SOCKETS.items():
        if os.path.isdir(os.path.join(directory, os.path.dirname(guest_socket))):
            return kind
    return "incus" if is_incus or "incus" in os.path.basename(directory) else "lxd"
