# SPDX-License-Identifier: GPL-3.0-or-later
"""A shell in front of a private daemon, to try things out.

Usage::

    .venv/bin/python -m lab lxd dir              # or incus btrfs, and --shifted, --snap
    .venv/bin/python -m lab lxd dir -- lxc launch overlay web1

There is a base called "base", from busybox, and the profile and image "overlay" for it.
All of it is gone when the shell ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from lab import overlays, pidns
from lab.daemon import KINDS, Daemon
from lab.snap import SnapDaemon
from lab.world import World


def main() -> int:
    """Run one command, or an interactive shell."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("driver", choices=("dir", "btrfs"))
    parser.add_argument("--shifted", action="store_true", help="forbid idmapped mounts")
    parser.add_argument("--snap", action="store_true", help="LXD in a simulated snap")
    parser.add_argument("command", nargs="*", help="instead of a shell")
    given = parser.parse_args()
    pidns.enter()
    with World() as world, _daemon(world, given) as d:
        overlays.import_busybox(d.client, world.directory)
        overlays.make_base(d.client, "busybox", "base")
        overlays.Overlays(d, "base").install()
        env = {**os.environ, **d.env, "PATH": f"{os.path.dirname(sys.executable)}:{d.env['PATH']}"}
        command = given.command or [os.environ.get("SHELL", "/bin/sh")]
        return subprocess.run(command, env=env, check=False).returncode


def _daemon(world: World, given: argparse.Namespace) -> Daemon:
    if given.snap:
        return SnapDaemon(world, given.driver, idmapped=not given.shifted)
    return Daemon(world, given.kind, given.driver, idmapped=not given.shifted)


if __name__ == "__main__":
    sys.exit(main())
