# SPDX-License-Identifier: GPL-3.0-or-later
"""Freeze a container by its cgroup, and thaw it: what somebody else froze stays frozen.

Version 2 (``cgroup.freeze``, Documentation/admin-guide/cgroup-v2.rst) is taken where there is
one, beside version 1 too: the daemons pause by version 1 there, so neither disturbs the other,
and a killed container dies although it is frozen. Else version 1 (``freezer.state``,
Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst). The tree is looked for where systemd
and the distributions mount it.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time

from pycor_hooks import instance, kernel
from pycor_hooks.errors import CannotFreeze

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = "/sys/fs/cgroup"
_UNIFIED = (CGROUPS, f"{CGROUPS}/unified")
_FREEZER = f"{CGROUPS}/freezer"
_PAYLOAD = "lxc.payload"
_POLL = 0.0002


class _Version2:
    """A cgroup of the unified hierarchy."""

    knob = "cgroup.freeze"
    tasks = "cgroup.threads"

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def asked(self) -> bool:
        return _read(f"{self.directory}/{self.knob}") == "1"

    def ask(self, *, freeze: bool) -> None:
        _write(f"{self.directory}/{self.knob}", "1" if freeze else "0")

    def frozen(self) -> bool:
        return "frozen 1" in _read(f"{self.directory}/cgroup.events")


class _Version1:
    """A cgroup of the freezer controller."""

    knob = "freezer.state"
    tasks = "tasks"

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def asked(self) -> bool:
        return _read(f"{self.directory}/freezer.self_freezing") == "1"

    def ask(self, *, freeze: bool) -> None:
        _write(f"{self.directory}/{self.knob}", "FROZEN" if freeze else "THAWED")

    def frozen(self) -> bool:
        return _read(f"{self.directory}/{self.knob}") == "FROZEN"


class Freezer:
    """The freezer of one container.

    Args:
        init: pid of its init.

    Raises:
        CannotFreeze: there is none: the process is gone, or in no cgroup of liblxc.
    """

    def __init__(self, init: int) -> None:
        self._cgroups = list(_cgroups(init))
        if not self._cgroups:
            raise CannotFreeze(reason=f"process {init} is in no cgroup that can be frozen")
        self._own = self._cgroups[0]
        self._writes = -1
        self.ours = False

    def asked(self) -> bool:
        """Whether somebody has frozen it, by the means that would be ours."""
        return self._own.asked()

    def frozen(self) -> bool:
        """Whether all of it is frozen, whoever did it; False when it is gone."""
        try:
            return any(cgroup.frozen() for cgroup in self._cgroups)
        except OSError:
            return False

    def freeze(self, timeout: float) -> None:
        """Freeze it, or let it be frozen as it is.

        Args:
            timeout: seconds until it has to be frozen.

        Raises:
            CannotFreeze: it was not, and is thawed again.
        """
        deadline = time.monotonic() + timeout
        reason = f"a process of it did not stop within {1000 * timeout:.0f} ms"
        try:
            self._watch()
            if not self._own.asked():
                self.ours = True
                self._own.ask(freeze=True)
                self._meddled()  # that was us
            while time.monotonic() < deadline:
                if any(cgroup.frozen() for cgroup in self._cgroups):
                    return
                time.sleep(_POLL)
        except OSError as error:
            reason = error.strerror or str(error)
        self.thaw()
        raise CannotFreeze(reason=reason)

    def thaw(self) -> None:
        """Undo :meth:`freeze`, unless somebody else has frozen or thawed it since."""
        ours, self.ours = self.ours, False
        if ours and not self._meddled():
            self.release()

    def close(self) -> None:
        """Thaw it, and forget about it."""
        self.thaw()
        if self._writes >= 0:
            os.close(self._writes)
            self._writes = -1

    def release(self) -> None:
        """Thaw it, as far as that is by our means."""
        with contextlib.suppress(OSError):  # it is gone, and frozen no more
            self._own.ask(freeze=False)

    def _watch(self) -> None:
        """Begin to take notice of what others write, as far as the host's limits allow it."""
        if self._writes < 0:
            try:
                self._writes = kernel.watch_writes(f"{self._own.directory}/{self._own.knob}")
            except OSError:
                return  # EMFILE: fs.inotify.max_user_instances (inotify(7))

    def _meddled(self) -> bool:
        """Whether somebody has written to the knob since this was last asked."""
        try:
            return self._writes >= 0 and bool(os.read(self._writes, 4096))
        except BlockingIOError:
            return False

    def tasks(self) -> Iterator[int]:
        """Every thread of it, as the host numbers them."""
        return self._listed(self._own.tasks)

    def processes(self) -> Iterator[int]:
        """Every process of it, as the host numbers them."""
        return self._listed("cgroup.procs")

    def _listed(self, name: str) -> Iterator[int]:
        """What a file of each of its cgroups lists."""
        pending = [self._own.directory]  # and no recursion: the container makes what is below
        while pending:
            directory = pending.pop()
            with contextlib.suppress(OSError):  # removed
                with os.scandir(directory) as entries:
                    pending += [each.path for each in entries if each.is_dir()]
                try:
                    found = _read(f"{directory}/{name}").split()
                except OSError:
                    continue  # a domain that is none (EOPNOTSUPP)
                yield from map(int, found)


def cgroups(pid: int) -> list[tuple[str, str]]:
    """The controllers of each hierarchy of cgroups, and where in it a process is (cgroups(7)).

    A container names the cgroups below its own as it likes, in any bytes but those of a newline.
    There are none where the process is gone.
    """
    lines = os.fsdecode(instance.read_of(pid, "cgroup")).split("\n")
    fields = [line.split(":", 2) for line in lines if line]
    return [(controllers, path) for _, controllers, path in fields]


def _cgroups(pid: int) -> Iterator[_Version2 | _Version1]:
    """The cgroups of a container that can be frozen, the one for us first."""
    paths = {controllers: _payload(path) for controllers, path in cgroups(pid)}
    for tree in _UNIFIED:
        directory = tree + paths.get("", "")
        if paths.get("") and os.path.exists(f"{directory}/{_Version2.knob}"):
            yield _Version2(directory)
    directory = _FREEZER + paths.get("freezer", "")
    if paths.get("freezer") and os.path.exists(f"{directory}/{_Version1.knob}"):
        yield _Version1(directory)


def _payload(path: str) -> str:
    """The part of a cgroup's path that ends with the container's own, "" where none does."""
    parts = path.split("/")
    for count, part in enumerate(parts, 1):
        if part.startswith(_PAYLOAD):
            return "/".join(parts[:count])
    return ""


def _read(path: str) -> str:
    with open(path, "rb") as file:  # no codec to be loaded, which may not be in this namespace
        return file.read().decode().strip()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
