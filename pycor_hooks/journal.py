# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a cure, from which another process finishes what a kill interrupted.

A cure leaves the container without a file for some microseconds, and frozen for longer. What is
under way stands in ``overlay/cure/`` of the container's volume, out of its sight, in one of two
files::

    prepared    no whiteout of ours is in upper; the container may be frozen by us
    armed       each of the paths may have a whiteout of ours; the container is frozen

One becomes the other by rename(2). That is not synced: a file system keeps its changes of
metadata in their order, and the whiteouts are such changes, too.

Imported by the hooks, and only where such a directory is found: standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from pycor_hooks import instance, kernel
from pycor_hooks.beneath import Tree, read_regular
from pycor_hooks.errors import BadJournal, CannotFreeze
from pycor_hooks.freezer import Freezer
from pycor_hooks.layer import CURE

_NEW, _PREPARED, _ARMED = "new", "prepared", "armed"
_HEADING = "pycor-hooks cure 1"
_END = "end"
_LIMIT = 64 << 20
_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BOOT = "/proc/sys/kernel/random/boot_id"


class Intent:
    """What one freeze is for.

    Attributes:
        init, init_start: pid and start time of the container's init.
        ours: whether it is us who freeze it.
        paths: to be unlinked, relative to the container's root.
        times: mtime in ns of each directory that they lie in, to be put back.
    """

    __slots__ = ("init", "init_start", "ours", "paths", "times")

    def __init__(
        self, *, init: int, init_start: int, ours: bool, paths: list[str], times: dict[str, int]
    ) -> None:
        self.init = init
        self.init_start = init_start
        self.ours = ours
        self.paths = paths
        self.times = times

    def render(self, here: str) -> bytes:
        """As it stands in the file: lines of text, then entries that NUL ends.

        Args:
            here: which boot and which volume that is, without spaces: what a copy of the volume
                brings along is of another.
        """
        head = f"{_HEADING}\n{here} {self.init} {self.init_start} {int(self.ours)}\n"
        entries = [f"t{mtime} {path}" for path, mtime in self.times.items()]
        entries += [f"p{path}" for path in self.paths]
        return os.fsencode(head + "".join(f"{entry}\0" for entry in [*entries, _END]))


class Journal:
    """The journal of one container, for whoever holds the lock of its overlay.

    Args:
        own: ``overlay`` in the container's volume.

    Raises:
        OSError: it cannot be made there.
        BadJournal: something else is in its place.
    """

    def __init__(self, own: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{own}/{CURE}", 0o700)
        self._place = own
        self._here = _here(own)
        self._own = os.open(own, _PLACE)
        try:
            self._directory = os.open(CURE, _PLACE, dir_fd=self._own)
        except OSError as error:
            os.close(self._own)
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise BadJournal(path=f"{own}/{CURE}", reason="it is not a directory") from error
            raise
        self.armed = False

    def close(self) -> None:
        """Close what is open; the journal stays as it is."""
        os.close(self._directory)
        os.close(self._own)

    def prepare(self, intent: Intent) -> None:
        """Write it, so that it outlives a power failure."""
        self._write(intent, _PREPARED)
        os.fsync(self._own)

    def arm(self, changed: Intent | None = None) -> None:
        """Before the first unlink; ``changed`` where something is not as it was prepared."""
        self.armed = True
        if changed is None:
            self._rename(_PREPARED, _ARMED)
        else:
            self._write(changed, _ARMED)
            os.unlink(_PREPARED, dir_fd=self._directory)

    def disarm(self) -> None:
        """After the last unlink, before anything is thawed."""
        self._rename(_ARMED, _PREPARED)
        self.armed = False

    def remove(self) -> None:
        """When nothing is frozen by us any more."""
        for name in (_NEW, _PREPARED):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._directory)
        os.rmdir(CURE, dir_fd=self._own)

    def read(self) -> tuple[Intent | None, bool]:
        """What another process has left, and whether it was armed."""
        for name in (_ARMED, _PREPARED):
            try:
                text = read_regular(name, _LIMIT, self._directory)
            except FileNotFoundError:
                continue
            if text is None:
                raise BadJournal(path=self._path(name), reason="it is not a file")
            return _parse(text, self._path(name), self._here), name == _ARMED
        return None, False

    def _path(self, name: str) -> str:
        return f"{self._place}/{CURE}/{name}"

    def _write(self, intent: Intent, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_NEW, flags, 0o600, dir_fd=self._directory)
        with open(descriptor, "wb") as file:
            file.write(intent.render(self._here))
            file.flush()
            os.fsync(descriptor)
        self._rename(_NEW, name)
        os.fsync(self._directory)

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)


def settle(own: str) -> bool:
    """Finish what a cure left that was killed; the caller holds the lock of the overlay.

    Every file is there again, nothing that it froze is frozen, and the journal is gone. Where
    the overlay is mounted, it has to be refreshed afterwards. Nothing stays frozen where a
    whiteout cannot be taken away: then the journal stays.

    Args:
        own: ``overlay`` in the container's volume.

    Returns:
        Whether there was anything.

    Raises:
        BadJournal: it is not one of ours.
        OSError: a whiteout cannot be taken away.
    """
    if not os.path.lexists(f"{own}/{CURE}"):
        return False
    journal = Journal(own)
    try:
        intent, armed = journal.read()
        try:
            if intent and armed:
                with Tree(f"{own}/upper") as upper:
                    for path in intent.paths:
                        withdraw(upper, path)
                    put_back_times(upper, intent.times)
                journal.disarm()
        finally:
            if intent and intent.ours:
                _release(intent)
        journal.remove()
    finally:
        journal.close()
    return True


def _release(intent: Intent) -> None:
    """Thaw what a cure froze, if it is that start of the container still."""
    if instance.process_alive(intent.init, intent.init_start):
        with contextlib.suppress(CannotFreeze):  # it is in no such cgroup any more
            Freezer(intent.init).release()


def check(own: str) -> None:
    """Refuse what :func:`settle` would refuse; nothing is changed.

    Raises:
        BadJournal: what is there is not one of ours.
    """
    if os.path.lexists(f"{own}/{CURE}"):
        journal = Journal(own)
        try:
            journal.read()
        finally:
            journal.close()


def is_whiteout(found: os.stat_result | None) -> bool:
    """Whether that is how OverlayFS writes down that a lower file is removed."""
    return found is not None and stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def withdraw(upper: Tree, path: str) -> bool:
    """Remove the whiteout that hides a file of the base; nothing else.

    Returns:
        Whether there was one.
    """
    if not is_whiteout(upper.lstat(path)):
        return False
    upper.unlink(path)
    return True


def put_back_times(upper: Tree, times: dict[str, int]) -> None:
    """Give directories their mtime back, in ns, that the whiteouts have changed.

    One that the container has removed, or that takes no time, is passed over.
    """
    for path, mtime in times.items():
        with contextlib.suppress(OSError):
            descriptor = upper.open(path)
            try:
                os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, mtime))
            finally:
                os.close(descriptor)


def _parse(text: str, path: str, here: str) -> Intent:
    """Take a journal apart; one of an earlier boot, or of another volume, froze nothing here."""
    heading, _, rest = text.partition("\n")
    line, _, entries = rest.partition("\n")
    words = line.split(" ")
    listed = entries.split("\0")
    if heading != _HEADING or len(words) != 4 or listed[-2:] != [_END, ""]:  # noqa: PLR2004
        raise BadJournal(path=path, reason="it is cut off, or of another version")
    times = {}
    paths = []
    try:
        for entry in listed[:-2]:
            if entry[:1] == "p":
                paths.append(entry[1:])
            else:
                mtime, _, directory = entry[1:].partition(" ")
                times[directory] = _time(mtime)
        return Intent(
            init=int(words[1]),
            init_start=int(words[2]),
            ours=words[3] == "1" and words[0] == here,
            paths=paths,
            times=times,
        )
    except ValueError as error:
        raise BadJournal(path=path, reason=str(error)) from error


def _time(text: str) -> int:
    """A time in ns that utimensat(2) can be given; ValueError where it is none."""
    time = int(text)
    if not -(2**63) <= time < 2**63:
        raise ValueError(f"{text} is no time")
    return time


def _here(own: str) -> str:
    """This boot, and the directory, whatever its name."""
    found = kernel.statx(own)
    return f"{_boot()}:{found.dev}:{found.ino}:{found.btime_ns}"


def _boot() -> str:
    with open(_BOOT, "rb") as file:  # no codec to be loaded, which may not be in this namespace
        return file.read().decode().strip()
