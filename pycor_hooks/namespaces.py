# SPDX-License-Identifier: GPL-3.0-or-later
"""The two mount namespaces of a container on a base, which are one on most hosts.

In the *monitor's* the daemon keeps its volumes, and liblxc finds the container's root. In the
*host's*, which is our own, lie all state and the overlays as watcher and commands see them. A
daemon from a snap, or from a unit with PrivateMounts=, has a namespace of its own; a refresh of
the snap leaves old monitors in an old one.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import errno
import os

from pycor_hooks import instance, kernel

_OURS = "/proc/thread-self/ns/mnt"
_GONE = "The mount namespace is gone"


class Place:
    """A mount namespace to work in: ``with place:``, which costs nothing where it is our own.

    While inside, nothing can be imported, and paths are those of that namespace. Afterwards the
    working directory of the calling thread is the root directory.

    Attributes:
        identity: 0 for our own, else the inode of ``/proc/PID/ns/mnt``, which no other namespace
            has while this one exists (namespaces(7)).
    """

    __slots__ = ("_home", "_process", "identity")

    def __init__(self, process: str, identity: int) -> None:
        self.identity = identity
        self._process = process
        self._home = -1

    def __enter__(self) -> None:
        if not self.identity:
            return
        self._home = open_own()
        try:
            theirs = os.open(f"/proc/{self._process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.fstat(theirs).st_ino != self.identity:
                    raise FileNotFoundError(errno.ENOENT, _GONE, f"mnt:[{self.identity}]")
                kernel.unshare(kernel.CLONE_FS)  # a thread of the watcher shares its root
                kernel.setns(theirs, kernel.CLONE_NEWNS)
            finally:
                os.close(theirs)
        except OSError:
            os.close(self._home)
            raise

    def __exit__(self, *_: object) -> None:
        if self.identity:
            kernel.setns(self._home, kernel.CLONE_NEWNS)
            os.close(self._home)


HOST = Place("self", 0)


def open_own() -> int:
    """The mount namespace of the calling thread, as a descriptor."""
    return os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)


def of_process(pid: int) -> Place:
    """The namespace of a process.

    Raises:
        OSError: it is gone, or is another user's.
    """
    ours = os.stat(_OURS).st_ino
    theirs = os.stat(f"/proc/{pid}/ns/mnt").st_ino
    return HOST if ours == theirs else Place(str(pid), theirs)


def recorded(identity: int) -> Place:
    """The namespace that was recorded of a start, by whichever of our processes is in it now.

    The number of one that is gone is soon another's, who may be anybody.

    Args:
        identity: see :class:`Place`.

    Returns:
        Our own where it is gone: with it went all that was mounted there.
    """
    for process in filter(str.isdigit, os.listdir("/proc")) if identity else ():
        try:
            theirs = os.stat(f"/proc/{process}/ns/mnt").st_ino
            if theirs == identity and instance.is_ours(process):
                return Place(process, identity)
        except OSError:
            continue
    return HOST
