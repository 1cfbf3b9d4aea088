# SPDX-License-Identifier: GPL-3.0-or-later
"""Overlays whose record is lost: what the mount table and /proc tell about them.

The mount table says where an overlay is mounted, which is whose it is, and on which base: by the
path of the base's rootfs, or by the name under which its mapped layer was staged. Who uses it is
told by liblxc's command socket, and by the root directories of processes.

Imported by hooks and commands only where a record is missing, unreadable, or doubted.
"""

from __future__ import annotations

import os

from pycor_hooks import instance, kernel, mountinfo, namespaces, record
from pycor_hooks.errors import BadState
from pycor_hooks.instance import Instance
from pycor_hooks.overlay import SOURCE, STAGED_LOWER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycor_hooks.mountinfo import Mount
    from pycor_hooks.record import Record


def our_mounts(table: Iterable[Mount], daemons: list[str] | None = None) -> dict[str, Mount]:
    """The overlays below RUN, by mount point.

    Args:
        table: see :func:`pycor_hooks.mountinfo.read`.
        daemons: state directories to look at, None for all.
    """
    homes = None if daemons is None else {record.escape(path) for path in daemons}
    found = {}
    for mount in table:
        run, home, _, name = ["", "", "", *mount.target.rsplit("/", 3)][-4:]
        ours = (mount.fstype, mount.source, run, name) == ("overlay", SOURCE, record.RUN, "merged")
        if ours and (homes is None or home in homes):
            found[mount.target] = mount
    return found


def records(daemons: list[str] | None = None) -> list[Record]:
    """What can be told of each mounted overlay that has no sound record."""
    mounts = our_mounts(mountinfo.read(), daemons).values()
    return [rebuild(mount) for mount in mounts if not _recorded(os.path.dirname(mount.target))]


def find(directory: str) -> Record | None:
    """What can be told of the overlay of one directory below RUN; None where none is mounted."""
    mount = our_mounts(mountinfo.read()).get(f"{directory}/merged")
    return rebuild(mount) if mount else None


def rebuild(mount: Mount) -> Record:
    """Make the record of a mounted overlay anew.

    Returns:
        The record. ``base_name`` is "" where the base cannot be told, ``monitor`` and ``init``
        are 0 where nobody uses the overlay; ``lower_identity`` is the base's of now, "" where
        that cannot be seen from here.
    """
    directory = os.path.dirname(mount.target)
    home, key = directory.split("/")[-2:]
    daemon = record.unescape(home)
    container = Instance(daemon, *record.split_key(key))
    base = _base_of(mount, daemon)
    try:
        volume = container.volume()
    except OSError:  # deleted, say
        volume = ""
    monitor = container.monitor()
    namespace = _namespace_of(monitor)
    init = inhabitant(mount.device)
    start = instance.process_start(monitor) or instance.process_start(init)
    return record.Record(
        daemon=daemon,
        project=container.project,
        name=container.name,
        base_project=base.project if base else "",
        base_name=base.name if base else "",
        lowerdirs=[_rootfs_of(base)] if base else mount.layers("lowerdir"),
        upperdir=f"{volume}/overlay/upper" if volume else "",
        workdir=f"{volume}/overlay/work" if volume else "",
        rootfs=f"{volume}/rootfs" if volume else "",
        lower_identity="" if namespace else _identity_of(base),
        namespace=namespace,
        monitor=monitor,
        monitor_start=instance.process_start(monitor),
        init=init,
        init_start=instance.process_start(init),
        started_at=instance.time_of(start),
        refreshed_at=instance.time_of(start),
    )


def inhabitant(device: str) -> int:
    """The oldest process that has its root directory in an overlay, 0 where there is none.

    Args:
        device: the overlay's, as the mount table has it: MAJOR:MINOR.
    """
    wanted = mountinfo.device_number(device)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if kernel.statx_of_target(f"/proc/{pid}/root").dev == wanted:
                found.append((instance.process_start(int(pid)), int(pid)))
        except OSError:  # it has just ended
            continue
    return min((one for one in found if one[0]), default=(0, 0))[1]


def _recorded(directory: str) -> bool:
    try:
        record.read(directory)
    except (OSError, BadState):
        return False
    return True


def _base_of(mount: Mount, daemon: str) -> Instance | None:
    lower = mount.layers("lowerdir")[:1] or [""]
    parent, name = os.path.split(lower[0])
    if name.startswith(STAGED_LOWER):
        key = name.removeprefix(STAGED_LOWER)
    elif name == "rootfs":
        key = os.path.basename(parent)
    else:
        return None
    return Instance(daemon, *record.split_key(key))


def _rootfs_of(base: Instance) -> str:
    try:
        return base.rootfs()
    except OSError:
        return f"{base.link}/rootfs"


def _identity_of(base: Instance | None) -> str:
    try:
        return instance.identity_of(base.rootfs()) if base else ""
    except OSError:
        return ""


def _namespace_of(monitor: int) -> int:
    try:
        return namespaces.of_process(monitor).identity if monitor else 0
    except OSError:  # it has just ended
        return 0
