# SPDX-License-Identifier: GPL-3.0-or-later
"""What the LXD snap does with its pools when it gets another mount namespace (setup-shmounts).

Run as ``python -m lab.snappools OLD NEW DIRECTORY``, with two descriptors of mount namespaces and
the daemon's state directory.
"""

from __future__ import annotations

import os
import sys

from pycor_hooks import kernel, mountinfo


def main(old: int, new: int, directory: str) -> None:
    """Move all that is mounted in the pools' directory, or as the source of one."""
    pools = f"{directory}/storage-pools"
    ours = (f"{pools}/", f"{os.path.dirname(directory)}/pool-")
    kernel.setns(old, kernel.CLONE_NEWNS)
    targets = [m.target for m in mountinfo.read() if m.target.startswith(ours)]
    trees = [(target, kernel.open_tree_clone(target)) for target in targets]
    for target in reversed(targets):
        kernel.umount(target, kernel.MNT_DETACH)
    kernel.setns(new, kernel.CLONE_NEWNS)
    kernel.mount(pools, pools, "", kernel.MS_BIND)
    kernel.mount("", pools, "", kernel.MS_REC | kernel.MS_SHARED)
    for target, tree in trees:
        os.makedirs(target, exist_ok=True)
        kernel.move_mount(tree, target)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
