# SPDX-License-Identifier: GPL-3.0-or-later
"""A start and a stop of a made-up container, by the installed hooks, run as liblxc runs them.

With a /run of its own, so that nothing of it is recorded; to be called in a child of
:func:`pycor_hooks.doctor.scratch.apart`, which stands for [lxc monitor].
"""

from __future__ import annotations

import os
import subprocess

from pycor_hooks import kernel, record
from pycor_hooks.doctor.check import FAIL, OK, Check

_BASE = "base"
_NAME = "doctor"
_TIMEOUT = 60


def check(prefix: str, directory: str) -> Check:
    """Start and stop one.

    Args:
        prefix: where the hooks are.
        directory: an empty one, on a file system that can be an upper.
    """
    kernel.mount("tmpfs", os.path.dirname(record.RUN), "tmpfs", 0, "mode=0755")
    for name in (_BASE, _NAME):
        os.makedirs(f"{directory}/storage-pools/pool/containers/{name}/rootfs")
        os.makedirs(f"{directory}/containers", exist_ok=True)
        os.symlink(
            f"{directory}/storage-pools/pool/containers/{name}", f"{directory}/containers/{name}"
        )
    base, container = (f"{directory}/containers/{name}/rootfs" for name in (_BASE, _NAME))
    with open(f"{base}/base", "wb"), open(f"{directory}/config", "wb"):
        pass
    wrong = (
        _run(prefix, directory, f"pre-start --base {_BASE}")
        or _differs(container, ["base"], "after pre-start")
        or _run(prefix, directory, "start-host")
        or _differs(container, [], "after start-host")
        or _run(prefix, directory, "stop")
        or _run(prefix, directory, "post-stop")
        or _left(directory)
    )
    if wrong:
        remedy = (
            f"see the kernel log (dmesg), or install anew: pycor-hooks install --prefix {prefix}"
        )
        return Check("a start", prefix, FAIL, wrong, remedy)
    return Check("a start", prefix, OK, "a made-up container was started and stopped by them")


def _run(prefix: str, directory: str, hook: str) -> str:
    """Run one hook; what it says where it fails."""
    kind = hook.partition(" ")[0]
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {prefix}/hooks/{hook}"],
        env={
            "LXC_NAME": _NAME,
            "LXC_ROOTFS_PATH": f"{directory}/storage-pools/pool/containers/{_NAME}/rootfs",
            "LXC_CONFIG_FILE": f"{directory}/config",
            "LXC_HOOK_TYPE": kind,
            "LXC_PID": str(os.getpid()),
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=_TIMEOUT,
    )
    if not done.returncode:
        return ""
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    said = said.partition(" pycor-hooks - ")[2] or said
    return f"{kind} ended with {done.returncode}: {said}"


def _differs(rootfs: str, wanted: list[str], when: str) -> str:
    found = os.listdir(rootfs)
    return "" if found == wanted else f"{when} the rootfs holds {found or 'nothing'}"


def _left(directory: str) -> str:
    home = record.directory_of(directory, _NAME)
    return f"after post-stop {home} is still there" if os.path.lexists(home) else ""
