# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a container, seen from the host: which unit each belongs to, what it uses.

Everything is read from /proc. Paths, units and commands are the container's words: show them with
errors.printable, and reach for a path only from a descriptor of the container's tree.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import instance, kernel
from pycor_hooks.freezer import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NS_GET_PARENT = 0xB702  # ioctl_ns(2)
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")
_DELETED = b" (deleted)"
_NESTED = 2  # parts of a cgroup's path: the host's, and the container's


class Used(NamedTuple):
    """A file or directory that a process has mapped, open, or as its executable.

    `path` as the container has it, of when it was opened; `dev` and `ino` as stat(2) gives them
    through the overlay (before Linux 6.13, for what is mapped, those of the layer's file);
    `mapped` tells it from what is only open; `deleted` that the name is gone since.
    """

    path: str
    dev: int
    ino: int
    mapped: bool
    deleted: bool


def of_containers(inits: Iterable[int]) -> dict[int, list[int]]:
    """The processes of containers, in one pass over /proc.

    A process belongs to the container in whose pid namespace it is, or in one below that (what
    the container runs in namespaces of its own); no process can leave it (pid_namespaces(7)).

    Args:
        inits: pid of each container's init, as the host numbers them.

    Returns:
        The pids of each, its init among them; none where that is gone.
    """
    found: dict[int, list[int]] = {init: [] for init in inits}
    owners: dict[int, int | None] = {_here(): None}
    for init in found:
        namespace = _namespace(init)
        if namespace is not None:
            owners.setdefault(namespace, init)
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        namespace = _namespace(pid)
        if namespace is None:
            continue
        if namespace not in owners:
            owners[namespace] = _owner(pid, owners)
        owner = owners[namespace]
        if owner is not None:
            found[owner].append(pid)
    return found


def _here() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _namespace(pid: int) -> int | None:
    """The pid namespace of a process; None where it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def _owner(pid: int, owners: dict[int, int | None]) -> int | None:
    """The init of the container that a process is in, through namespaces below its own."""
    try:
        descriptor = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        while True:
            namespace = os.fstat(descriptor).st_ino
            if namespace in owners:
                return owners[namespace]
            parent = fcntl.ioctl(descriptor, _NS_GET_PARENT)
            os.close(descriptor)
            descriptor = parent
    except OSError:  # EPERM: beyond it is what we cannot see
        return None
    finally:
        os.close(descriptor)


def unit(pid: int) -> str | None:
    """The systemd unit of a container that a process belongs to; None without one.

    Of several below each other, as in a user's session, it is the system manager's. One of a
    container that the container runs belongs to none: that has a manager, and units, of its own.
    """
    places = cgroups(pid)
    if _is_nested(places):
        return None
    for controllers, path in places:
        if controllers in {"", "name=systemd"}:
            inside = _payloads(path)[-1].split("/")[1:]
            found = next((part for part in inside if part.endswith(_UNITS)), None)
            if found:
                return found
    return None


def is_nested(pid: int) -> bool:
    """Whether a process is in a container that the container runs."""
    return _is_nested(cgroups(pid))


def _is_nested(places: Iterable[tuple[str, str]]) -> bool:
    return any(len(_payloads(path)) > _NESTED for _, path in places)


def _payloads(path: str) -> list[str]:
    """A path of a cgroup, cut where each container of liblxc begins."""
    return path.split("/lxc.payload")


def command(pid: int) -> str:
    """The name of a process (proc_pid_comm(5)), "" where it is gone."""
    return os.fsdecode(instance.read_of(pid, "comm")).removesuffix("\n")


def executable(pid: int) -> str:
    """The path of what a process executes, "" where it is gone."""
    for _, path in _links(pid, ("exe",)):
        return os.fsdecode(path.removesuffix(_DELETED))
    return ""


def used(pid: int) -> Iterator[Used]:
    """What a process has mapped, open, and as its executable, each file once of either kind."""
    seen = set()
    executable = _linked(pid, ("exe",), mapped=True)
    for one in (*_mapped(pid), *executable, *_linked(pid, _open(pid), mapped=False)):
        if one not in seen:
            seen.add(one)
            yield one


def held(pid: int) -> Iterator[str]:
    """The paths of what a process uses, as often as it does; those left out whose names are gone.

    Nothing is kept, however many there are, and no file system is asked.
    """
    yield from (one.path for one in _mapped(pid) if not one.deleted)
    for _, path in _links(pid, itertools.chain(("exe",), _open(pid))):
        if not path.endswith(_DELETED):
            yield os.fsdecode(path)


def code(pid: int) -> Iterator[Used]:
    """What a process executes: its executable, and what it has mapped to be executed."""
    seen = set()
    for one in (*_linked(pid, ("exe",), mapped=True), *_mapped(pid, executable=True)):
        if (one.path, one.ino) not in seen:  # their devices may differ, see Used
            seen.add((one.path, one.ino))
            yield one


def _mapped(pid: int, *, executable: bool = False) -> Iterator[Used]:
    """The lines of proc_pid_maps(5) that name a file, or those of them that may be executed."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as lines:
            for line in lines:
                fields = line.rstrip(b"\n").split(None, 5)
                if len(fields) < 6 or (executable and b"x" not in fields[1]):  # noqa: PLR2004
                    continue
                if fields[5].startswith(b"/"):
                    major, minor = (int(number, 16) for number in fields[3].split(b":"))
                    path = fields[5].replace(rb"\012", b"\n")
                    yield _used(path, os.makedev(major, minor), int(fields[4]), mapped=True)
    except OSError:
        return  # it is gone, or has no memory of its own


def _open(pid: int) -> Iterator[str]:
    """The links in /proc/PID to what it has open, works in, and has as its root."""
    yield from ("cwd", "root")
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        yield from (f"fd/{each.name}" for each in descriptors)


def _linked(pid: int, names: Iterable[str], *, mapped: bool) -> Iterator[Used]:
    """What links in /proc/PID lead to."""
    for link, path in _links(pid, names):
        with contextlib.suppress(OSError):
            found = kernel.statx_of_target(link)
            yield _used(path, found.dev, found.ino, mapped=mapped)


def _links(pid: int, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Links in /proc/PID, and their paths; sockets, pipes and the like have none."""
    for name in names:
        link = f"/proc/{pid}/{name}"
        with contextlib.suppress(OSError):
            path = os.readlink(os.fsencode(link))
            if path.startswith(b"/"):
                yield link, path


def _used(path: bytes, dev: int, ino: int, *, mapped: bool) -> Used:
    deleted = path.endswith(_DELETED)
    return Used(os.fsdecode(path.removesuffix(_DELETED)), dev, ino, mapped, deleted)
