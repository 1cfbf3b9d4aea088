# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount an overlay on a rootfs in the monitor's mount namespace, and show it to the host.

Where the two namespaces are one, the overlay is mounted at ``merged`` and its tree put on the
rootfs. Where they are two, the same is done with ``merged`` as the monitor's sees it: what
pre-start mounts for a while is mounted below the overlay's directory on the host, which is bound
on the rootfs meanwhile. So nothing else in the daemon's namespace is touched, and a kill at any
moment leaves nothing there but mounts on the rootfs.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

from pycor_hooks import kernel, overlay
from pycor_hooks.errors import StillHeld

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pycor_hooks.namespaces import Place
    from pycor_hooks.overlay import Layers
    from pycor_hooks.record import Record


def staging(directory: str, rootfs: str, place: Place) -> str:
    """The overlay's directory below RUN, as the monitor's namespace will see it."""
    return rootfs if place.identity else directory


def mount(layers: Layers, record: Record, place: Place, fill: Callable[[str], None]) -> None:
    """Mount an overlay, put it on the container's rootfs, and at ``merged`` on the host.

    Args:
        layers: with paths as ``place`` has them.
        record: of this start; its ``merged`` is there, and nothing is mounted on its rootfs.
        place: the monitor's mount namespace.
        fill: called there with the overlay's path, before it is on the rootfs.

    Raises:
        PycorError, OSError: something may be left for :func:`pycor_hooks.takedown.everything`.
    """
    try:
        tree = _mount(layers, record, place)
    except StillHeld:
        from pycor_hooks import held  # noqa: PLC0415 - a rare need

        with place:  # once more, without those who copied the bind of an earlier start
            if not held.cut_off(record.rootfs):
                raise
        tree = _mount(layers, record, place)
    with place:
        fill(f"/proc/self/fd/{tree}/.")
        kernel.move_mount(tree, record.rootfs)
        kernel.mount("", record.rootfs, "", kernel.MS_PRIVATE)
        if place.identity:
            tree = kernel.open_tree_clone(record.rootfs)
    if place.identity:
        kernel.move_mount(tree, record.merged)


def _mount(layers: Layers, record: Record, place: Place) -> int:
    """Mount the overlay at ``merged``; in another namespace than the host's only for a moment.

    Returns:
        A detached copy of its tree.
    """
    merged = f"{layers.staging}/merged"
    carried = kernel.open_tree_clone(record.directory) if place.identity else -1
    with place:
        if place.identity:
            kernel.move_mount(carried, record.rootfs)
        try:
            overlay.mount(layers, merged)
            return kernel.open_tree_clone(merged)
        finally:
            if place.identity:
                kernel.umount(record.rootfs, kernel.MNT_DETACH)
