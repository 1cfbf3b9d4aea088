# SPDX-License-Identifier: GPL-3.0-or-later
"""A refresh of LXD's snap under ten live containers: the recorded run of docs/snap.md.

Run as ``python -m lab.snapstory``, as root. The snap is simulated (see lab/snap.py), LXD is real.
"""

from __future__ import annotations

import os
import subprocess
import time

from lab import live, overlays, pidns
from lab.overlays import COMMAND
from lab.snap import SnapDaemon
from lab.story import Story, say
from lab.wait import until
from lab.watcher import Watcher
from lab.world import World

NAMES = [f"web{number}" for number in range(1, 11)]
FILE = "/usr/share/app/version"


class Refreshes(Story):
    """Ten containers in the snap's LXD, and what becomes of them."""

    def __init__(self, snap: SnapDaemon, watcher: Watcher) -> None:
        super().__init__(snap, "base")
        self.snap = snap
        self.watcher = watcher
        self.webs = [snap.client.instance(name) for name in NAMES]

    def update(self, version: str) -> None:
        """Change the base; every container sees it."""
        base = self.overlays.base
        self.lxc("start", base.name)
        base.exec("sh", "-c", f"echo {version} >{FILE}.new && mv {FILE}.new {FILE}")
        print(f"(in the base: {FILE} now says {version})")
        self.lxc("stop", base.name)
        began = time.monotonic()
        until(lambda: self._seen(version), what="all see it", timeout_s=20)
        print(f"all ten see version {version}, {time.monotonic() - began:.1f} s after the stop")

    def _seen(self, version: str) -> bool:
        return all(web.exec("cat", FILE) == f"{version}\n" for web in self.webs)

    def look(self, pids: dict[str, int]) -> None:
        """What runs, where, and what is mounted."""
        same = sum(web.pid == pids[web.name] for web in self.webs)
        inside = {
            os.readlink(f"/proc/{row.pid}/ns/mnt") for web in self.webs if (row := web.monitor)
        }
        states = list(live.states(self.overlays).values())
        print(f"containers with the init that they had: {same}")
        print(f"overlays mounted on the host: {len(live.mounts(self.overlays))}")
        print(f"states: {', '.join(f'{states.count(one)} {one}' for one in sorted(set(states)))}")
        print(f"mount namespaces that their monitors are in: {len(inside)}")


def main() -> None:
    """Tell it."""
    pidns.enter()
    with World() as world, SnapDaemon(world, "dir") as snap:
        overlays.import_busybox(snap.client, world.directory)
        overlays.make_base(snap.client, "busybox", "base")
        print("$ pycor-hooks install --no-systemd --prefix PREFIX")
        done = subprocess.run(
            [COMMAND, "install", "--no-systemd", "--prefix", snap.prefix],
            env={name: value for name, value in snap.env.items() if name != "LXD_DIR"},
            check=True,
            capture_output=True,
            text=True,
        )
        print(done.stdout, end="")
        with Watcher(snap) as watcher:
            tell(Refreshes(snap, watcher))


def tell(story: Refreshes) -> None:
    """The same with each kind of refresh."""
    say("Ten containers on the base")
    for name in NAMES:
        story.lxc("launch", "overlay", name)
    pids = {web.name: web.pid for web in story.webs}
    story.look(pids)
    story.update("2")
    say("The snap is refreshed, with the same base snap: LXD stops and starts")
    story.snap.restart()
    story.look(pids)
    story.update("3")
    say("The snap is refreshed to another base snap: LXD has a new mount namespace")
    story.snap.refresh("core24")
    story.look(pids)
    story.update("4")
    say("web1 and web2 are restarted: they move to the new namespace")
    story.lxc("restart", "web1", "web2")
    story.look(pids)
    say("All are deleted")
    story.lxc("delete", "--force", *NAMES)
    until(lambda: not live.mounts(story.overlays), what="all overlays are gone")
    left = [m.target for m in story.snap.mounts() if m.source == "pycor-hooks"]
    print(f"left mounted, in the host's namespace or the snap's: {len(left)}")


if __name__ == "__main__":
    main()
