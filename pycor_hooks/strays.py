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

from pycor_hooks.beneath import read_regular
from pycor_hooks.descent import OPEN, Pair, Place, lstat
from pycor_hooks.errors import NoSpace, OwnSystem, StrayClash, StrayFailed
from pycor_hooks.layer import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    HostIds = Callable[[int, int], tuple[int | None, int | None]]

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
        self._at = ""

    def check(self) -> None:
        """Look whether all of it can be moved.

        Raises:
            OwnSystem: the rootfs is not bare but holds an operating system.
            StrayClash: a stray cannot take the place of what the container has.
            StrayFailed: one cannot be looked at.
        """
        self._named(self._look)

    def move(self) -> None:
        """Move everything, or nothing where :meth:`check` raises.

        Raises:
            NoSpace, StrayFailed: one could not be read or written; those before it are moved.
        """
        self.check()
        self._named(self._move)

    def _named(self, step: Callable[[], None]) -> None:
        """Do a step, whose errors are given the path where they happened."""
        try:
            step()
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                own = f"{os.path.dirname(self._bare)}/overlay"
                raise NoSpace(path=own, error=error.strerror) from error
            path = self._bare + self._at
            raise StrayFailed(path=path, error=error.strerror, code=error.errno) from error

    def _look(self) -> None:
        for path in _OWN_SYSTEM:
            if _exists_beneath(self._bare, path):
                raise OwnSystem(name=self._name, path=f"{self._bare}/{path}")
        with Place(self._bare) as source, Place(self._merged) as target:
            self._descend(Pair(source, target), self._check, Pair.leave)

    def _move(self) -> None:
        with Place(self._bare) as source, Place(self._merged) as target:
            self._descend(Pair(source, target), self._take, self._remove_emptied)

    def _descend(
        self, pair: Pair, visit: Callable[[Pair, str], bool], leave: Callable[[Pair], None]
    ) -> None:
        """Visit everything in the bare rootfs.

        Args:
            pair: the roots.
            visit: called for each name, with the directory that it is in; whether it entered it.
            leave: called for each directory that was entered, when all in it was visited.
        """
        pending = [os.listdir(pair.source.fd)]
        while pending:
            if pending[-1]:
                name = pending[-1].pop()
                self._at = pair.path_of(name)
                if visit(pair, name):
                    pending.append(os.listdir(pair.source.fd))
            else:
                pending.pop()
                if pending:
                    leave(pair)

    def _check(self, pair: Pair, name: str) -> bool:
        """Refuse a clash."""
        mine = os.stat(name, dir_fd=pair.source.fd, follow_symlinks=False)
        kind = stat.S_IFMT(mine.st_mode)
        theirs = pair.target_of(name)
        other = None if theirs is None else stat.S_IFMT(theirs.st_mode)
        if kind not in _ACCEPTED:
            self._clash(kind, "no use for one")
        if None in self._host_ids(mine.st_uid, mine.st_gid):
            self._clash(kind, f"no id for its owner {mine.st_uid}:{mine.st_gid}")
        if other is not None and (kind == stat.S_IFDIR) != (other == stat.S_IFDIR):
            self._clash(kind, KINDS[other])
        if kind != stat.S_IFDIR:
            return False
        pair.enter(name)
        return True

    def _clash(self, kind: int, other: str) -> None:
        path = self._at
        raise StrayClash(path=path, kind=KINDS[kind], other=other, bare=self._bare + path)

    def _take(self, pair: Pair, name: str) -> bool:
        """Move a file or a link, make or merge a directory."""
        mine = os.stat(name, dir_fd=pair.source.fd, follow_symlinks=False)
        if stat.S_ISDIR(mine.st_mode):
            if pair.target_of(name) is None:
                self._make_directory(pair.target.fd, name, mine)
            pair.enter(name)
            return True
        if not (self._at in self._create_only and pair.target_of(name)):
            self._copy(pair.source.fd, pair.target.fd, name, mine)
        os.unlink(name, dir_fd=pair.source.fd)
        return False

    def _remove_emptied(self, pair: Pair) -> None:
        name = pair.names[-1]
        pair.leave()
        os.rmdir(name, dir_fd=pair.source.fd)

    def _make_directory(self, target: int, name: str, mine: os.stat_result) -> None:
        """Make it under another name, so that a kill leaves it out or whole."""
        _discard_temporary(target)
        os.mkdir(_TEMPORARY, 0o700, dir_fd=target)
        made = os.open(_TEMPORARY, OPEN, dir_fd=target)
        try:
            self._dress(made, mine)
        finally:
            os.close(made)
        os.rename(_TEMPORARY, name, src_dir_fd=target, dst_dir_fd=target)

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
                try:
                    while os.sendfile(writer, reader, None, _COPY_CHUNK):
                        pass
                    os.fsync(writer)
                    self._dress(writer, mine)
                finally:
                    os.close(writer)
            finally:
                os.close(reader)

    def _dress(self, descriptor: int, mine: os.stat_result) -> None:
        """Give what was made its owner, mode and times."""
        uid, gid = self._host_ids(mine.st_uid, mine.st_gid)
        os.fchown(descriptor, uid or 0, gid or 0)
        os.fchmod(descriptor, stat.S_IMODE(mine.st_mode))
        os.utime(descriptor, ns=(mine.st_atime_ns, mine.st_mtime_ns))


def _discard_temporary(directory: int) -> None:
    """Remove what a kill left half made; not a directory that holds something."""
    found = lstat(_TEMPORARY, directory)
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
    try:  # an imported instance may have anything there
        metadata = read_regular(f"{volume}/metadata.yaml", _METADATA_LIMIT)
    except FileNotFoundError:
        return set()
    paths = set()
    path = ""
    for line in (metadata or "").splitlines():
        text = line.strip().replace('"', "").replace("'", "")
        if text.endswith(":") and text not in _METADATA_KEYS:
            path = os.path.normpath("/" + text[:-1].lstrip("/"))
        elif text == "create_only: true":
            paths.add(path)
    return paths


def _exists_beneath(root: str, path: str) -> bool:
    """Whether ``path`` exists below ``root``, with no symlink followed."""
    descriptor = os.open(root, OPEN)
    try:
        *parents, name = path.split("/")
        for parent in parents:
            below = os.open(parent, OPEN, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return lstat(name, descriptor) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    finally:
        os.close(descriptor)
