# SPDX-License-Identifier: GPL-3.0-or-later
"""A pid namespace for a whole lab, with an init of its own.

To the hooks of a daemon in a mount namespace of its own, the host is what process 1 sees. In a lab
that is a World: so process 1 is ours, and follows us into each World. When it ends, the kernel
kills whatever was ever started in here.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import NoReturn

from pycor_hooks import kernel, mountinfo

_CLONE_NEWPID = 0x20000000
_RELAYED = (signal.SIGTERM, signal.SIGHUP)


class _Init:
    """The way to our process 1; none outside."""

    channel: socket.socket | None = None


def enter() -> None:
    """Go on as a child of a new process 1; whoever called us waits for us, and ends as we do.

    To be called early, by a process that has one thread.
    """
    if _Init.channel:
        return
    kernel.unshare(_CLONE_NEWPID)
    ours, inits = socket.socketpair()
    process = os.fork()
    if process:
        _relay(process)
    ours.set_inheritable(False)
    kernel.die_with_parent(signal.SIGKILL)
    _unshare_mounts()
    kernel.mount("proc", "/proc", "proc", 0)
    child = os.fork()
    if child:
        ours.close()
        _be_init(child, inits)
    inits.close()
    _Init.channel = ours


def unshare_mounts() -> None:
    """Move into a mount namespace of our own, and take process 1 along if it is ours.

    Mounts of the host arrive in it; ours stay here, and are shared among ourselves where the
    host's are.
    """
    _unshare_mounts()
    follow()


def follow() -> None:
    """Take process 1 into the mount namespace that we are in now."""
    if _Init.channel:
        _Init.channel.send(f"{os.getpid()}".encode())
        if _Init.channel.recv(16) != b"done":
            raise OSError("our process 1 cannot follow into the mount namespace")


def _unshare_mounts() -> None:
    shared = next(mount for mount in mountinfo.read() if mount.target == "/").shared
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE)
    if shared:
        kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SHARED)


def _relay(process: int) -> NoReturn:
    """Be for the outside what we have become: pass signals in, and the end out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of us
    for number in _RELAYED:
        signal.signal(number, lambda number, _: os.kill(process, number))
    _end_as(os.waitpid(process, 0)[1])


def _end_as(status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)  # what is buffered is the child's to write


def _be_init(child: int, channel: socket.socket) -> NoReturn:
    """Reap, follow, pass signals on; end with the child that the namespace is for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _RELAYED:
        signal.signal(number, lambda number, _: os.kill(child, number))
    wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        _reap(child)
        ready = select.select([wakeup_read, channel.fileno()], [], [])[0]
        if wakeup_read in ready:
            os.read(wakeup_read, 4096)
        if channel.fileno() in ready:
            _join(channel)


def _reap(child: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == child:
                _end_as(status)
            if not process:
                return


def _join(channel: socket.socket) -> None:
    """Move into the mount namespace of the process that asks for it."""
    process = channel.recv(16)
    if process:
        namespace = os.open(f"/proc/{int(process)}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        kernel.setns(namespace, kernel.CLONE_NEWNS)
        os.close(namespace)
        channel.send(b"done")
