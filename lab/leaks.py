# SPDX-License-Identifier: GPL-3.0-or-later
"""What a case must leave as it found it: mounts, processes, namespaces, state, log, base."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lab import processes, tree
from lab.kmsg import KernelLog
from pycor_hooks import mountinfo

if TYPE_CHECKING:
    from lab.daemon import Daemon

# The kernel names no path in most: another lab's line counts here, too.
COMPLAINT = re.compile("overlayfs: ")
# What it says where a base goes at the instant of a mount; the start fails, and has a name for it.
BASE_GONE = re.compile(r"overlayfs: failed to resolve '.*/rootfs': -2$")  # ENOENT
# Started by a daemon on demand: one to stay, the others to end some seconds after `file push`.
HELPERS = ("dnsmasq ", "/usr/bin/lxd forkfile ", "/usr/libexec/incus/incusd forkfile ")


class Watch:
    """Begun before a case; afterwards :meth:`leaks` names whatever the case left behind."""

    def __init__(self, daemon: Daemon, base_rootfs: str) -> None:
        """Take note of how things are.

        Args:
            daemon: its mounts, processes and overlays are looked at.
            base_rootfs: a tree that has to stay byte for byte.
        """
        self._daemon = daemon
        self._base = base_rootfs
        self._tree = tree.describe(base_rootfs)
        self._mounts = self._our_mounts()
        self._processes = {(row.pid, row.start) for row in processes.descendants(os.getpid())}
        self._namespaces = set(self._held_namespaces())
        self._log = KernelLog()

    def close(self) -> None:
        """Stop watching."""
        self._log.close()

    def passing(self) -> list[str]:
        """What may still be about to go: mounts, processes, namespaces and state files."""
        mounts = [f"mount: {mount}" for mount in sorted(self._our_mounts() - self._mounts)]
        running = [f"process: {row.pid} {row.command}" for row in self._new_processes()]
        held = [
            f"namespace: {name} {holder}"
            for name, holder in self._held_namespaces().items()
            if name not in self._namespaces
        ]
        return [*mounts, *running, *held, *(f"state: {path}" for path in self._states())]

    def lasting(self) -> list[str]:
        """What does not go by itself: complaints of the kernel, and a base that changed.

        Ask once: the kernel log is read on from where the last question ended.
        """
        complaints = [
            f"kernel log: {line}" for line in filter(COMPLAINT.search, self._log.lines())
        ]
        changed = tree.changes(self._tree, tree.describe(self._base))
        return [*complaints, *(f"base: {line}" for line in changed)]

    def _our_mounts(self) -> set[str]:
        ours = (self._daemon.world.directory, self._daemon.records)
        return {
            f"{mount.source} on {mount.target} type {mount.fstype}"
            for mount in self._daemon.mounts()
            if mount.target.startswith(ours) or mount.source == "pycor-hooks"
        }

    def _new_processes(self) -> list[processes.Process]:
        expected = self._daemon.main_processes()
        return [
            row
            for row in processes.descendants(os.getpid())
            if (row.pid, row.start) not in self._processes | expected
            and not row.command.startswith(HELPERS)
            and row.state not in processes.DEAD
        ]

    def _held_namespaces(self) -> dict[str, str]:
        """What keeps a namespace that no process needs to live in, by the namespace's name."""
        held = {
            name: f"held by process {row.pid} {row.command}"
            for row in (processes.look_up(os.getpid()), *processes.descendants(os.getpid()))
            if row is not None and not row.command.startswith(HELPERS)
            for name in processes.open_namespaces(row.pid)
            if name != self._daemon.namespace
        }
        mounted = {
            m.root: f"mounted at {m.target}" for m in mountinfo.read() if m.fstype == "nsfs"
        }
        return held | mounted

    def _states(self) -> list[str]:
        try:
            return sorted(entry.path for entry in os.scandir(self._daemon.records))
        except FileNotFoundError:
            return []
