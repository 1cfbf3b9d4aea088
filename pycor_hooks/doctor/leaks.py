# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of containers that are gone: overlays, binds, directories; taken down by `--fix`.

Ours for certain is an overlay with our source, below RUN or on a container's rootfs, and a
directory below RUN. It is left behind when neither the start that is recorded for it lives nor,
where nothing is recorded, a container of that name; no process lives in it, whatever is recorded;
and nobody holds its lock. All of it is looked at again under that lock before anything is done.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import (
    instance,
    kernel,
    mountinfo,
    namespaces,
    overlay,
    record,
    registry,
    status,
    takedown,
)
from pycor_hooks.doctor.check import FAIL, OK, WARN, Check, count, refused, sound
from pycor_hooks.errors import NotOurs, PycorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pycor_hooks.instance import Instance
    from pycor_hooks.mountinfo import Mount
    from pycor_hooks.namespaces import Place
    from pycor_hooks.record import Record

NAME = "left behind"
_LOCK_TIMEOUT = 1.0

OVERLAY = "the overlay of a container that is gone"
RECORD = "the record of a container that is gone"
DIRECTORY = "an empty directory"
LAYER = "a mapped layer, needed only while an overlay is being mounted"
BIND = "a bind of its overlay on its rootfs: copies and snapshots take the whole tree"
FOREIGN = "a mount that is not ours, where an overlay of ours belongs"


class Left(NamedTuple):
    """Something that nobody uses: whose, `what` it is, and the overlay's directory below RUN."""

    whose: Instance
    what: str
    directory: str

    @property
    def label(self) -> str:
        """The container, and its daemon, which may be gone too, for people."""
        return f"{self.whose.daemon} {self.whose.label}"


def check(daemons: list[str] | None, *, fix: bool) -> Iterator[Check]:
    """Look for what is left behind, and for overlays that went too early.

    Args:
        daemons: state directories; None for all.
        fix: take down what is left behind.
    """
    live = count(len(registry.directories(daemons)), "container")
    left = check_left(find(daemons), fix=fix)
    yield from sound(NAME, record.RUN, left, f"nothing but the overlays of {live}")
    yield from sound("mounted", record.RUN, check_mounted(daemons), f"the overlays of {live}")


def check_left(found: Iterable[Left], *, fix: bool) -> Iterator[Check]:
    """Say what is left behind, or take it down."""
    for one in found:
        yield _fix(one) if fix else _tell(one)


def check_mounted(daemons: list[str] | None) -> Iterator[Check]:
    """Look for overlays of living containers that are not as they are recorded."""
    for row in status.rows(status.look(daemons)):
        whose = instance.Instance(str(row["daemon"]), str(row["project"]), str(row["name"]))
        label = f"{whose.daemon} {whose.label}"
        if row["state"] == status.UNRECORDED:
            cause = f"its overlay at {row['merged']} has lost its record: no refresh reaches it"
            yield Check("mounted", label, FAIL, cause, "run pycor-hooks watch --once")
        elif row["state"] == status.MISSING:
            cause = f"its overlay is no longer mounted at {row['merged']}: no refresh reaches it"
            yield Check("mounted", label, FAIL, cause, "restart it")
        elif row["state"] == status.DETACHED:
            cause = "its base was replaced or re-owned, and it still has the tree from before"
            yield Check("mounted", label, FAIL, cause, "restart it")


def find(daemons: list[str] | None) -> list[Left]:
    """What nobody uses now."""
    found = {directory: directory for directory in registry.directories(daemons)}
    for mount in mountinfo.read():
        bound = _bound(mount)
        if bound and (daemons is None or bound.daemon in daemons):
            directory = record.directory_of(bound.daemon, bound.key)
            found[directory] = directory
    return [left for directory in found if not _is_locked(directory) for left in look(directory)]


def look(directory: str) -> list[Left]:
    """What nobody uses of one overlay; its lock is not held by another."""
    project, name = record.split_key(os.path.basename(directory))
    daemon = record.unescape(os.path.basename(os.path.dirname(directory)))
    whose = instance.Instance(daemon, project, name)
    recorded = takedown.recorded(directory)
    lives = whose.running() if recorded is None else not takedown.gone(recorded)
    lives = lives or takedown.inhabited(f"{directory}/merged")
    found = [] if lives else _remains(directory)
    if any(map(kernel.is_mount_root, overlay.staged_in(directory))):
        found.append(LAYER)
    if _bind_is_left(whose, recorded, lives=lives):
        found.append(BIND)
    return [Left(whose, what, directory) for what in found]


def _remains(directory: str) -> list[str]:
    """The first thing to take down of an overlay whose container is gone, if there is one."""
    merged = f"{directory}/merged"
    if kernel.is_mount_root(merged):
        return [OVERLAY] if _is_ours(merged) else [FOREIGN]
    if os.path.lexists(f"{directory}/state"):
        return [RECORD]
    return [DIRECTORY] if os.path.isdir(directory) else []


def _bind_is_left(whose: Instance, recorded: Record | None, *, lives: bool) -> bool:
    """Whether a rootfs has our overlay, which start-host would have detached by now."""
    with _place_of(recorded):
        if not _is_ours(whose.rootfs()):
            return False
    return not lives or bool(recorded and recorded.init)


def _is_ours(target: str) -> bool:
    """Whether the uppermost mount at a path is an overlay that we mounted."""
    if not kernel.is_mount_root(target):
        return False
    mounts = [mount for mount in mountinfo.read() if mount.target == target]
    return bool(mounts) and (mounts[-1].fstype, mounts[-1].source) == ("overlay", overlay.SOURCE)


def _bound(mount: Mount) -> Instance | None:
    """Whose rootfs an overlay of ours is bound on, None where a mount is something else."""
    if mount.source != overlay.SOURCE or not mount.target.endswith("/rootfs"):
        return None
    try:
        environ = {"LXC_NAME": os.path.basename(os.path.dirname(mount.target))}
        environ |= {"LXC_ROOTFS_PATH": mount.target, "LXC_CONFIG_FILE": "-"}
        return instance.from_environment(environ)[0]
    except PycorError:
        return None


def _is_locked(directory: str) -> bool:
    """Whether a hook or a command is at work on an overlay."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _tell(left: Left) -> Check:
    state = FAIL if left.what in {OVERLAY, RECORD, BIND, FOREIGN} else WARN
    remedy = "run pycor-hooks doctor --fix"
    if left.what == FOREIGN:
        remedy = f"see what it is, and unmount it: findmnt {left.directory}/merged"
    return Check(NAME, left.label, state, left.what, remedy)


def _fix(left: Left) -> Check:
    """Take it down, if it is still what it was."""
    try:
        with registry.Lock(left.directory, timeout=_LOCK_TIMEOUT):
            still = left.what in [one.what for one in look(left.directory)]
            if still:
                _take_down(left)
            takedown.remove_directory(left.directory)
    except (PycorError, OSError) as error:
        return refused(NAME, left.label, error)
    done = "taken down" if still else "gone by itself meanwhile"
    return Check(NAME, left.label, OK, f"{left.what}: {done}")


def _take_down(left: Left) -> None:
    merged, rootfs = f"{left.directory}/merged", left.whose.rootfs()
    place = _place_of(takedown.recorded(left.directory))
    if left.what == FOREIGN:
        raise NotOurs(path=merged)
    if left.what == LAYER:
        overlay.unstage(left.directory)
    elif left.what == BIND:
        takedown.detach_binds(left.directory, rootfs, place)
    else:
        takedown.everything(left.directory, rootfs, place)


def _place_of(recorded: Record | None) -> Place:
    """The mount namespace in which something may be left on the rootfs of the recorded start."""
    return namespaces.recorded(recorded.namespace) if recorded else namespaces.HOST
