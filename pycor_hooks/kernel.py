# SPDX-License-Identifier: GPL-3.0-or-later
"""The system calls that Python lacks: one short function each, a plain OSError on failure.

Imported by the hooks, where start-up time is the product.
No policy lives here. Numbers of calls from 424 on are the same on every architecture; older
calls go through libc's own symbols.
"""

from __future__ import annotations

import errno
import os
import sys
from _struct import Struct  # the C half: struct itself costs a hook 0.1 ms more

from pycor_hooks import libc

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

OVERLAYFS_SUPER_MAGIC = 0x794C7630
BTRFS_SUPER_MAGIC = 0x9123683E

AT_RECURSIVE = 0x8000
CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_NO_AUTOMOUNT = 0x800
_AT_STATX_DONT_SYNC = 0x4000
_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_IDMAP = 0x100000
_STATX_BASIC_STATS = 0x7FF
_STATX_BTIME = 0x800
_STATX_MNT_ID = 0x1000
_STATX_ATTR_MOUNT_ROOT = 0x2000
_AF_UNIX = 1
_SOCK_STREAM = 1
_SOL_SOCKET = 1
_SO_PEERCRED = 21 if os.uname().machine.startswith("ppc") else 17
_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 0x4
_RESOLVE_NO_XDEV = 0x1
_RESOLVE_NO_MAGICLINKS = 0x2
_RESOLVE_NO_SYMLINKS = 0x4
_RESOLVE_BENEATH = 0x8
_RESOLVE_IN_ROOT = 0x10
_IN_MODIFY = 0x2

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_CLONE3 = 435
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442

_ATTRIBUTES = Struct("=Q")
_OWNER = Struct("=IIH")
_TIME = Struct("=qI")
_DEVICE = Struct("=II")
_HANDLE = Struct("=Ii")
_OPEN_HOW = Struct("=QQQ")
_MAX_HANDLE = 128

_libc = libc.Libc()
_syscall = _libc.syscall
_syscall.restype = libc.Long
_libc.setfsuid.restype = _libc.setfsgid.restype = libc.Uint
_mount = _libc.mount
_mount.argtypes = (
    libc.Text,
    libc.Text,
    libc.Text,
    libc.Ulong,
    libc.Text,
)


def _checked(result: int, path: str | None = None) -> int:
    """Turn libc's -1 into an OSError that carries errno and the path."""
    if result == -1:
        code = libc.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2).

    Args:
        source: first column of the mount table, or the directory to bind.
        target: where to mount; named in the error.
        fstype: "overlay", or "" for a bind, a remount or a change of propagation.
        flags: ``MS_*``.
        data: options of the file system, "" for none (NULL).
    """
    _checked(
        _mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode() or None,
            flags,
            os.fsencode(data) or None,
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2); never follows a symlink at the end of ``target``."""
    _checked(_libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), target)


def open_beneath(root: int, path: str, flags: int) -> int:
    """openat2(2) of something that lies below a directory, and can lead nowhere else.

    Args:
        root: descriptor of the directory.
        path: relative; "" for the directory itself. No symlink and no mount point is crossed.
        flags: ``O_*``, without O_CREAT.

    Raises:
        OSError: ELOOP where a symlink stands in the way, EXDEV where a mount does.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    name = os.fsencode(path) or b"."
    return _checked(_syscall(_SYS_OPENAT2, root, name, how, len(how)), path)


def watch_writes(path: str) -> int:
    """inotify(7): a descriptor that can be read once somebody has written to a file."""
    descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        _checked(_libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2) with RESOLVE_IN_ROOT: as if ``root`` were the root directory.

    Args:
        root: descriptor of a directory, such as another process's root.
        path: absolute symlinks and ``..`` in it stay below ``root``.
        flags: ``O_*``, without O_CREAT.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    return _checked(_syscall(_SYS_OPENAT2, root, os.fsencode(path), how, len(how)), path)


def open_tree_clone(path: str, flags: int = 0) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a detached bind mount of ``path``, as a descriptor.

    Args:
        path: what to bind.
        flags: AT_RECURSIVE to have what is mounted below it as well.
    """
    flags |= _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    return _checked(_syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), path)


def move_mount(tree: int, target: str) -> None:
    """move_mount(2): attach the detached mount ``tree`` at ``target``."""
    _checked(
        _syscall(
            _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH
        ),
        target,
    )


def idmap_tree(tree: int, userns: int) -> None:
    """mount_setattr(2) with MOUNT_ATTR_IDMAP on a detached mount.

    Args:
        tree: descriptor from :func:`open_tree_clone`.
        userns: descriptor of a user namespace whose map goes from on-disk id to host id.

    Raises:
        OSError: EINVAL where the file system cannot be idmapped, ENOSYS before Linux 5.12.
    """
    attr = (libc.Uint64 * 4)(_MOUNT_ATTR_IDMAP, 0, 0, userns)
    _checked(_syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attr, libc.sizeof(attr)))


def clone_into_userns() -> int:
    """clone3(2) with CLONE_NEWUSER: like fork(2), the child in a user namespace of its own.

    Returns:
        The child's pid, and 0 in the child, which may do nothing but system calls and
        ``os._exit``: the interpreter was not told of the fork.
    """
    args = (libc.Uint64 * 8)(CLONE_NEWUSER, 0, 0, 0, 17, 0, 0, 0)  # 17: SIGCHLD
    return _checked(_syscall(_SYS_CLONE3, args, libc.sizeof(args)))


def unshare(flags: int) -> None:
    """unshare(2): leave what others use for something new; ``flags`` are ``CLONE_*``.

    The calling thread alone has it then.
    """
    _checked(_libc.unshare(flags))


def setns(namespace: int, kind: int) -> None:
    """setns(2): move the calling thread into a namespace.

    Args:
        namespace: descriptor of one, from /proc/PID/ns.
        kind: ``CLONE_NEW*``, what it has to be, 0 for any. With a mount namespace, root and
            working directory become its root, so the thread may not share them: EINVAL.
    """
    _checked(_libc.setns(namespace, kind))


def die_with_parent(signal: int) -> None:
    """prctl(2), PR_SET_PDEATHSIG: get a signal when the thread that made this process ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0))


def set_fs_ids(uid: int, gid: int) -> None:
    """setfsuid(2) and setfsgid(2), with the capabilities kept (prctl PR_SET_SECUREBITS).

    New files are then owned by these ids, while the process stays as privileged as before:
    without SECBIT_NO_SETUID_FIXUP the kernel drops CAP_DAC_OVERRIDE and its like
    (capabilities(7), "Effect of user ID changes on capabilities").

    Raises:
        OSError: EPERM where the kernel did not do it.
    """
    _checked(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    for name, wanted in (("setfsgid", gid), ("setfsuid", uid)):
        set_id = getattr(_libc, name)
        set_id(wanted)
        if set_id(-1) != wanted:  # changes nothing, and tells; no failure is told otherwise
            raise OSError(errno.EPERM, f"{name}({wanted}) did nothing")


def listener(address: bytes) -> tuple[int, int] | None:
    """The process that listens on a unix stream socket, found out by connecting.

    Args:
        address: what follows the family in a sockaddr_un; abstract when it begins with NUL
            (unix(7), and SO_PEERCRED there).

    Returns:
        Its pid, and the effective user id with which it called listen(2); None where nobody
        listens.

    Raises:
        BlockingIOError: somebody listens, whose queue is full: the kernel does not say who.
    """
    kind = _SOCK_STREAM | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = _checked(_libc.socket(_AF_UNIX, kind, 0))
    try:
        sockaddr = _AF_UNIX.to_bytes(2, sys.byteorder) + address
        _checked(_libc.connect(descriptor, sockaddr, len(sockaddr)))
        ucred, size = (libc.Uint * 3)(), libc.Uint(12)
        option = (_SOL_SOCKET, _SO_PEERCRED, ucred, libc.byref(size))
        _checked(_libc.getsockopt(descriptor, *option))
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    finally:
        os.close(descriptor)
    return ucred[0], ucred[1]


class Statx:
    """What statx(2) tells and os.stat does not: is it a mount's root, and when was it born."""

    __slots__ = ("btime_ns", "dev", "gid", "ino", "is_mount_root", "mode", "uid")

    def __init__(self, raw: bytes) -> None:
        self.is_mount_root = bool(_ATTRIBUTES.unpack_from(raw, 8)[0] & _STATX_ATTR_MOUNT_ROOT)
        self.uid, self.gid, self.mode = _OWNER.unpack_from(raw, 20)
        (self.ino,) = _ATTRIBUTES.unpack_from(raw, 32)
        seconds, nanoseconds = _TIME.unpack_from(raw, 80)
        self.btime_ns = seconds * 1_000_000_000 + nanoseconds
        self.dev = os.makedev(*_DEVICE.unpack_from(raw, 136))


def statx(path: str) -> Statx:
    """statx(2) of ``path`` itself: a symlink is not followed, nothing is automounted."""
    return Statx(_statx(path, _AT_SYMLINK_NOFOLLOW, _STATX_BASIC_STATS | _STATX_BTIME))


def statx_of_target(path: str) -> Statx:
    """statx(2) of what a link in /proc leads to, as the kernel remembers it.

    It may be in a file system whose server is a container's, and never answers: that is not asked
    (AT_STATX_DONT_SYNC).
    """
    return Statx(_statx(path, _AT_STATX_DONT_SYNC, _STATX_BASIC_STATS | _STATX_BTIME))


def mount_id(path: str) -> int:
    """The id, as in the mount table, of the mount that ``path`` leads to (Linux 5.8)."""
    return int(_ATTRIBUTES.unpack_from(_statx(path, _AT_SYMLINK_NOFOLLOW, _STATX_MNT_ID), 144)[0])


def _statx(path: str, flags: int, mask: int) -> bytes:
    buffer = libc.buffer(256)
    _checked(
        _libc.statx(_AT_FDCWD, os.fsencode(path), flags | _AT_NO_AUTOMOUNT, mask, buffer), path
    )
    return bytes(buffer)


def file_handle(path: str) -> bytes:
    """name_to_handle_at(2): what a file system tells this inode by from all that it ever had.

    Args:
        path: a symlink at its end is not followed.

    Returns:
        Type and bytes of the handle, which mean something to the file system only; nothing
        where it has no handles (EOPNOTSUPP).
    """
    buffer = libc.buffer(_HANDLE.size + _MAX_HANDLE, _HANDLE.pack(_MAX_HANDLE, 0))
    mount_id = libc.Int()
    try:
        _checked(
            _libc.name_to_handle_at(_AT_FDCWD, os.fsencode(path), buffer, libc.byref(mount_id), 0),
            path,
        )
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return b""
        raise
    length, _ = _HANDLE.unpack_from(buffer)
    return bytes(buffer)[4 : _HANDLE.size + length]


def exists(path: str) -> bool:
    """Whether there is something at ``path``, a dangling symlink too.

    Raises:
        OSError: it cannot be told. os.path takes every error for a no.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_mount_root(path: str) -> bool:
    """Whether something is mounted at ``path``; a path that does not exist has nothing mounted."""
    try:
        return statx(path).is_mount_root
    except (FileNotFoundError, NotADirectoryError):
        return False


def fs_magic(path: str) -> int:
    """The f_type of statfs(2), for instance OVERLAYFS_SUPER_MAGIC."""
    buffer = (libc.Ulong * 32)()
    _checked(_libc.statfs(os.fsencode(path), buffer), path)
    return int(buffer[0])
