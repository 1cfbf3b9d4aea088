# SPDX-License-Identifier: GPL-3.0-or-later
"""``make demo``: the whole story on a private LXD, in under three minutes.

A base made from Debian packages, three containers on it, an upgrade of the base that all three
see at once; then three full copies beside them, to compare what either costs. Nothing of this
machine's own LXD or Incus is touched, and all of it is gone in the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from lab import cost, debian, live
from lab.overlays import COMMAND
from lab.story import Story, run, say, stay, timed
from lab.supervisor import Supervised
from lab.wait import until

if TYPE_CHECKING:
    from lab.client import Instance
    from lab.daemon import Daemon

NAMES = ("web1", "web2", "web3")
PACKAGE = "pycor-demo"
PROGRAM = "/usr/bin/pycor-demo"


def megabytes(count: int) -> str:
    """A size for people."""
    return f"{count / 1e6:.1f} MB"


class Demo(Story):
    """The steps of the story, in order; each prints the commands that an operator would type."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon, "base")
        self.figures: list[tuple[str, str, str]] = []

    def make_base(self, image: str) -> None:
        """Import the image, and make a base with version 1.0 of a package."""
        say("A base: an ordinary container, made once")
        self.daemon.client("image", "import", image, "--alias", "debian")
        self.lxc("launch", "debian", "base")
        self.base.wait_booted()
        self.upgrade("1.0")
        self.lxc("stop", "base")

    def upgrade(self, version: str) -> None:
        """Install one version of the package in the running base."""
        package = build_package(self.daemon.world.directory, version)
        self.lxc("file", "push", package, f"base/root/{PACKAGE}.deb", "--quiet")
        self.lxc("exec", "base", "--", "dpkg", "-i", f"/root/{PACKAGE}.deb")

    def install(self) -> Supervised:
        """Hooks, profile, image; and the watcher, which systemd would start."""
        say("pycor-hooks: hooks, a profile, an image of 10 kB, and a watcher")
        self.command("install", "--no-systemd", "--prefix", self.overlays.prefix)
        log = os.path.join(self.daemon.world.directory, "watch.log")
        self.typed("pycor-hooks watch &")
        return Supervised([COMMAND, "watch"], log=log, env=self.daemon.env)

    def launch(self) -> None:
        """Three containers on the base, each with something of its own."""
        say("Three containers on it")
        launching = timed(self._launch_all)
        self.figures.append(("launched, all three", f"{launching:.1f} s", ""))
        for web in self.containers:
            web.wait_booted()
            web.exec("sh", "-c", f"echo 'I am {web.name}' >/srv/index.html")
        live.wait_converged(self.containers, 1)
        self.show_program()

    def _launch_all(self) -> None:
        for name in NAMES:
            self.lxc("launch", "overlay", name)
            self.containers.append(self.overlays.client.instance(name))

    def show_program(self) -> None:
        """What each container says when the package's program runs in it."""
        for web in self.containers:
            self.lxc("exec", web.name, "--", PROGRAM)

    def upgrade_base(self) -> None:
        """The point of it all."""
        say("The base is upgraded, and stopped")
        self.lxc("start", "base")
        self.base.wait_booted()
        self.upgrade("2.0")
        self.lxc("stop", "base")
        seen = timed(lambda: until(self._all_see, what="every container sees version 2.0"))
        say(f"Every container sees it, with nothing done ({seen:.1f} s after the base stopped)")
        self.show_program()

    def _all_see(self) -> bool:
        return all("2.0" in web.run(PROGRAM).stdout for web in self.containers)

    def show_writes(self) -> None:
        """What each container has written for itself."""
        say("What each one wrote, and nobody else sees")
        live.wait_converged(self.containers, 2)
        self.command("status", "--size")
        for web in self.containers:
            self.lxc("exec", web.name, "--", "cat", "/srv/index.html")

    def compare(self) -> None:
        """Three full copies, and what both ways cost."""
        say("Three full copies of the same base, to compare")
        copies = [self.daemon.client.instance(f"copy{number}") for number in (1, 2, 3)]
        copying = timed(lambda: self._copy_all(copies))
        overlaid, copied = self.containers, copies
        shared = self.base.rootfs
        self.figures[0] = (self.figures[0][0], self.figures[0][1], f"{copying:.1f} s")
        one = cost.disk(*(web.volume for web in overlaid))
        other = cost.disk(*(copy.volume for copy in copied))
        self.figures.append(("on disk, beside the base", megabytes(one), megabytes(other)))
        one = self._memory(overlaid, [shared, *(web.upper for web in overlaid)])
        other = self._memory(copied, [copy.rootfs for copy in copied])
        self.figures.append(("page cache when booted", megabytes(one), megabytes(other)))

    def _copy_all(self, copies: list[Instance]) -> None:
        for copy in copies:
            self.lxc("copy", "base", copy.name)
            self.lxc("start", copy.name)

    def _memory(self, containers: list[Instance], trees: list[str]) -> int:
        """Page cache after all of them have booted from disk."""
        names = [container.name for container in containers]
        self.lxc("stop", *names, quiet=True)
        cost.evict(*trees)
        self.lxc("start", *names, quiet=True)
        for container in containers:
            container.wait_booted()
        return cost.page_cache(*trees)

    def summary(self) -> None:
        """The figures."""
        say("What it cost")
        print(f"{'':28}{'on the base':>14}{'full copies':>14}")
        for what, overlay, copy in self.figures:
            print(f"{what:28}{overlay:>14}{copy:>14}")


def build_package(directory: str, version: str) -> str:
    """A .deb with one program that tells its version."""
    tree = os.path.join(directory, f"{PACKAGE}-{version}")
    os.makedirs(os.path.join(tree, "DEBIAN"))
    os.makedirs(os.path.join(tree, "usr/bin"))
    with open(os.path.join(tree, "DEBIAN/control"), "w", encoding="ascii") as control:
        control.write(
            f"Package: {PACKAGE}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: nobody <nobody@localhost>\nDescription: tells its version\n"
        )
    program = os.path.join(tree, PROGRAM.lstrip("/"))
    with open(program, "w", encoding="ascii") as script:
        script.write(f'#!/bin/sh\necho "$(hostname) runs {PACKAGE} {version}"\n')
    os.chmod(program, 0o755)  # noqa: S103 - a program
    built = ["dpkg-deb", "--root-owner-group", "--build", tree, tree + ".deb"]
    subprocess.run(built, check=True, stdout=subprocess.DEVNULL)
    return tree + ".deb"


def tell(daemon: Daemon, image: str) -> None:
    """Tell the story."""
    demo = Demo(daemon)
    demo.make_base(image)
    watcher = demo.install()
    try:
        demo.launch()
        demo.upgrade_base()
        demo.show_writes()
        demo.compare()
        demo.summary()
    finally:
        stay()  # from here on it is cleaning up
        watcher.signal(signal.SIGTERM)  # it takes what it shows of itself away
        watcher.end()


if __name__ == "__main__":
    run(tell, debian.SYSTEM)
