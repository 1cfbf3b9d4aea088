# SPDX-License-Identifier: GPL-3.0-or-later
"""``make demo-update``: a distribution's upgrade of a base, under containers that serve.

What docs/update.md shows. Ten containers are asked for pages all the while, as lab.traffic does
it; the base's systemd, dbus, ssh and nginx are upgraded by apt; then it is looked at who still
runs the old code, and that is restarted.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from typing import TYPE_CHECKING

from lab import debian, live, serving, traffic
from lab.story import Story, run, say, stay
from lab.watcher import Watcher

if TYPE_CHECKING:
    from lab.daemon import Daemon
    from lab.traffic import Traffic

NAMES = tuple(f"web{number}" for number in range(1, 11))


class Update(Story):
    """The steps of the story, in order."""

    def launch(self) -> None:
        """Containers that serve, launched when the watcher runs."""
        say("Ten containers on a base with systemd, dbus, ssh and nginx")
        for name in NAMES:
            self.lxc("launch", "overlay", name)
            container = self.overlays.client.instance(name)
            container.wait_booted()
            serving.set_up(container)
            self.containers.append(container)
        live.wait_converged(self.containers, 1)

    def ask(self) -> Traffic:
        """Have pages asked for."""
        say(f"From now on each is asked for pages, {1 / traffic.PAUSE_S:.0f} times a second")
        log = os.path.join(self.daemon.world.directory, "traffic.log")
        return traffic.Traffic(self.containers, serving.PAGES, log)

    def upgrade(self, watcher: Watcher) -> None:
        """Upgrade the base, with a look at what that will bring."""
        say("The base is upgraded; before it stops, what will that bring?")
        self.lxc("start", "base")
        self.base.wait_booted()
        self.typed(f"lxc exec base -- {shlex.join(serving.UPGRADE)}")
        done = [line for line in serving.upgrade(self.base).splitlines() if "Setting up" in line]
        print("\n".join(done), flush=True)
        self.command("impact")
        say("It stops: the watcher sees to the containers, and says so")
        self.lxc("stop", "base")
        live.wait_converged(self.containers, 2)
        found = re.findall(r"INFO +(.*(?:generation 2:|cured;).*)", watcher.log())
        print("\n".join(sorted(found)), flush=True)

    def answered(self, asking: Traffic, since: float) -> None:
        """What became of the requests."""
        asking.wait_each()
        for container in self.containers:
            requests = asking.requests(since=since, container=container.name)
            failed = traffic.failures(requests)
            slowest = max(one.took for one in requests)
            what = ", ".join(f"{count} {name}" for name, count in failed.items()) or "none failed"
            figures = f"{len(requests)} requests, {what}, the slowest took {1000 * slowest:.0f} ms"
            print(f"{container.name}: {figures}", flush=True)

    def look(self) -> None:
        """Who runs old code."""
        say("Who still runs the old code?")
        self.command("status")
        self.command("stale", check=False)
        self.typed("lxc exec web1 -- needrestart -b -l | grep SVC")
        listed = self.containers[0].exec("needrestart", "-b", "-l").splitlines()
        print("\n".join(line for line in listed if "SVC" in line), flush=True)

    def restart(self, asking: Traffic) -> None:
        """Restart what may be restarted."""
        say(f"All is restarted that may be; nginx by {serving.RESTART}, which is the base's")
        began = time.monotonic()
        self.command("restart", "--serial=4", check=False)
        say("What became of the requests meanwhile")
        self.answered(asking, began)

    def finish(self) -> None:
        """Restart the containers."""
        say("The rest, at a quiet hour")
        self.lxc("restart", *NAMES)
        self.command("stale")


def tell(daemon: Daemon, image: str) -> None:
    """Tell the story."""
    story = Update(daemon, "base")
    serving.make_base(daemon, image, "base")
    story.overlays.install()
    with Watcher(daemon) as watcher:
        try:
            story.launch()
            with story.ask() as asking:
                began = time.monotonic()
                story.upgrade(watcher)
                say("What became of the requests up to here")
                story.answered(asking, began)
                story.look()
                story.restart(asking)
            story.finish()
        finally:
            stay()  # from here on it is cleaning up


if __name__ == "__main__":
    run(tell, debian.serving())
