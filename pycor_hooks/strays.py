# SPDX-License-Identifier: GPL-3.0-or-later
"""What was put into the bare rootfs of a stopped container goes into the container.

The daemon writes image templates there before our pre-start runs, and ``lxc file push`` to a
stopped container puts files there. They are written through the mounted overlay: put straight
into upper, a ``bin/tool`` would replace the base's ``/bin`` link and hide all of ``/usr/bin``.

The container wrote the tree that is written to. Every path is walked one name at a time from a
directory descriptor with O_NOFOLLOW, so no symlink is ever followed.

Imported by the hooks, and only by a start that finds something: standard library only.
"""

from __future__ import annotations

import errno
import os
import stat

from pycor_hooks.errors import OwnSystem, StrayClash
from pycor_hooks.layer import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    HostIds = Callable[[int, int], tuple[int | None, int | None]]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = ".pycor-hooks.new"
_OWN_SYSTEM = ("sbin/init", "usr/sbin/init", "etc/os-release", "usr/lib/os-release")
_METADATA_LIMIT = 1 << 20
_METADATA_KEYS = ("templates:", "when:", "properties:")
_COPY_CHUNK = 1 << 30
_ACCEPTED = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)


class Strays:
    """One container's bare rootfs, and the overlay that its content goes into.

    Args:
        name: the container's, for errors.
        bare: its rootfs in its volume, where nothing is mounted.
        merged: the mounted overlay.
        host_ids: gives (uid, gid) on the host for an owner as stored in ``bare``, each None
            where the container has no such id.
        create_only: paths such as ``/etc/machine-id`` that yield to what the container has.
    """

    def __init__(
        self,
        *,
        name: str,
        bare: str,
        merged: str,
        host_ids: HostIds,
        create_only: set[str],
    ) -> None:
        self._name = name
        self._bare = bare
        self._merged = merged
        self._host_ids = host_ids
        self._create_only = create_only

    def check(self) -> None:
        """Look whether all of it can be moved.

        Raises:
            OwnSystem: the rootfs is not bare but holds an operating system.
            StrayClash: a stray cannot take the place of what the container has.
        """
        for path in _OWN_SYSTEM:
            if _exists_beneath(self._bare, path):
                raise OwnSystem(name=self._name, path=f"{self._bare}/{path}")
        self._walk(self._check)

    def move(self) -> None:
        """Move everything, or nothing where :meth:`check` raises."""
        self.check()
        self._walk(self._move_all)

    def _walk(self, step: Callable[[int, int, str], None]) -> None:
        source, target = os.open(self._bare, _DIRECTORY), os.open(self._merged, _DIRECTORY)
        try:
            step(source, target, "")
        finally:
            os.close(source)
            os.close(target)

    def _check(self, source: int, target: int | None, path: str) -> None:
        """Refuse clashes below one directory; ``target`` is None where the container has none."""
        for name in os.listdir(source):
            here = f"{path}/{name}"
            mine = os.stat(name, dir_fd=source, follow_symlinks=False)
            kind = stat.S_IFMT(mine.st_mode)
            theirs = None if target is None else _lstat(name, target)
            other = None if theirs is None else stat.S_IFMT(theirs.st_mode)
            if kind not in _ACCEPTED:
                self._clash(here, kind, "no use for one")
            if None in self._host_ids(mine.st_uid, mine.st_gid):
                self._clash(here, kind, f"no id for its owner {mine.st_uid}:{mine.st_gid}")
            if other is not None and (kind == stat.S_IFDIR) != (other == stat.S_IFDIR):
                self._clash(here, kind, KINDS[other])
            if kind == stat.S_IFDIR:
                self._check_directory(source, None if other is None else target, name, here)

    def _check_directory(self, source: int, target: int | None, name: str, path: str) -> None:
        below = os.open(name, _DIRECTORY, dir_fd=source)
        beside = None if target is None else os.open(name, _DIRECTORY, dir_fd=target)
        try:
            self._check(below, beside, path)
        finally:
            os.close(below)
            if beside is not None:
                os.close(beside)

    def _clash(self, path: str, kind: int, other: str) -> None:
        raise StrayClash(path=path, kind=KINDS[kind], other=other, bare=self._bare + path)

    def _move_all(self, source: int, target: int, path: str) -> None:
        for name in os.listdir(source):
            mine = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(mine.st_mode):
                self._move_directory(source, target, name, mine, f"{path}/{name}")
                continue
            if not (f"{path}/{name}" in self._create_only and _lstat(name, target)):
                self._copy(source, target, name, mine)
            os.unlink(name, dir_fd=source)

    def _move_directory(
        self, source: int, target: int, name: str, mine: os.stat_result, path: str
    ) -> None:
        if _lstat(name, target) is None:
            _discard_temporary(target)
            os.mkdir(_TEMPORARY, 0o700, dir_fd=target)
            self._dress(os.open(_TEMPORARY, _DIRECTORY, dir_fd=target), mine)
            os.rename(_TEMPORARY, name, src_dir_fd=target, dst_dir_fd=target)
        below, beside = (os.open(name, _DIRECTORY, dir_fd=at) for at in (source, target))
        try:
            self._move_all(below, beside, path)
        finally:
            os.close(below)
            os.close(beside)
        os.rmdir(name, dir_fd=source)

    def _copy(self, source: int, target: int, name: str, mine: os.stat_result) -> None:
        """Put a file or a symlink in place by a rename: a kill leaves the old one or the new."""
        _discard_temporary(target)
        try:
            self._write_temporary(source, target, name, mine)
            os.rename(_TEMPORARY, name, src_dir_fd=target, dst_dir_fd=target)
        except OSError:
            _discard_temporary(target)
            raise

    def _write_temporary(self, source: int, target: int, name: str, mine: os.stat_result) -> None:
        if stat.S_ISLNK(mine.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), _TEMPORARY, dir_fd=target)
            uid, gid = self._host_ids(mine.st_uid, mine.st_gid)
            os.chown(_TEMPORARY, uid or 0, gid or 0, dir_fd=target, follow_symlinks=False)
        else:
            flags = os.O_CLOEXEC | os.O_NOFOLLOW
            reader = os.open(name, flags | os.O_RDONLY, dir_fd=source)
            try:
                writer = os.open(
                    _TEMPORARY, flags | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target
                )
                while os.sendfile(writer, reader, None, _COPY_CHUNK):
                    pass
                os.fsync(writer)
                self._dress(writer, mine)
            finally:
                os.close(reader)

    def _dress(self, descriptor: int, mine: os.stat_result) -> None:
        """Give what was made its owner, mode and times, and close it."""
        try:
            uid, gid = self._host_ids(mine.st_uid, mine.st_gid)
            os.fchown(descriptor, uid or 0, gid or 0)
            os.fchmod(descriptor, stat.S_IMODE(mine.st_mode))
            os.utime(descriptor, ns=(mine.st_atime_ns, mine.st_mtime_ns))
        finally:
            os.close(descriptor)


def _discard_temporary(directory: int) -> None:
    """Remove what a kill left half made; not a directory that holds something."""
    found = _lstat(_TEMPORARY, directory)
    if found and stat.S_ISDIR(found.st_mode):
        os.rmdir(_TEMPORARY, dir_fd=directory)
    elif found:
        os.unlink(_TEMPORARY, dir_fd=directory)


def create_only_paths(volume: str) -> set[str]:
    """The templates of the container's image that may not replace a file.

    Args:
        volume: the directory that holds the instance's metadata.yaml, in block style as the
            daemons and ``pycor-hooks profile`` write it.

    Returns:
        Paths in the container; the daemons take them without the first slash as well. The
        daemon judges ``create_only`` by the bare rootfs, so it writes such a file again at
        every start, once it was moved away.
    """
    # An imported instance may have a fifo there, which nobody may wait for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(f"{volume}/metadata.yaml", flags)
    except FileNotFoundError:
        return set()
    with open(descriptor, "rb") as file:
        lines = os.fsdecode(file.read(_METADATA_LIMIT)).splitlines()
    paths = set()
    path = ""
    for line in lines:
        text = line.strip().replace('"', "").replace("'", "")
        if text.endswith(":") and text not in _METADATA_KEYS:
            path = os.path.normpath("/" + text[:-1].lstrip("/"))
        elif text == "create_only: true":
            paths.add(path)
    return paths


def _exists_beneath(root: str, path: str) -> bool:
    """Whether ``path`` exists below ``root``, with no symlink followed."""
    descriptor = os.open(root, _DIRECTORY)
    try:
        *parents, name = path.split("/")
        for parent in parents:
            below = os.open(parent, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return _lstat(name, descriptor) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    finally:
        os.close(descriptor)


def _lstat(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
