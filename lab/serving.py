# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that serve web pages, on a base that a distribution's packages upgrade.

The base is a Debian with systemd, dbus, ssh and nginx, its packages are what lab.rebuilt has left
in it. Each container has a page of its own; another one is the base's, and upgraded with nginx.
"""

from __future__ import annotations

import glob
import os
import stat
from typing import TYPE_CHECKING

from lab import overlays, rebuilt
from pycor_hooks import procs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.client import Instance
    from lab.daemon import Daemon

PAGES = ("/own.html", "/packaged.html")
_IMAGE = "serving-image"
_SET_UP = """
echo "$0" >/var/www/html/own.html
ln -s /usr/share/nginx/html/index.html /var/www/html/packaged.html
"""
RESTART = "/etc/needrestart/restart.d/nginx.service"
_RESTART = """\
#!/bin/sh
exec /etc/init.d/nginx upgrade
"""
"""How to bring nginx to its new code, as its own postinst does: a new one takes the sockets over,
and the old one leaves when it has answered."""
UPGRADE = (
    *("env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"),
    *("sh", "-c", f"apt-get -qy install {rebuilt.PLACE}/*.deb"),
)
"""What installs the packages, in the running base."""


def make_base(daemon: Daemon, image: str, name: str) -> Instance:
    """The base, stopped.

    Args:
        daemon: where it is made.
        image: path of one made from the recipe :func:`lab.debian.serving`.
        name: of the base.
    """
    daemon.client("image", "import", image, "--alias", _IMAGE)
    base = overlays.make_base(daemon.client, _IMAGE, name)
    script = os.path.join(daemon.world.directory, os.path.basename(RESTART))
    with open(script, "w", encoding="ascii") as file:
        file.write(_RESTART)
    place = f"{name}{os.path.dirname(RESTART)}/"
    daemon.client("file", "push", "--create-dirs", "--mode=755", script, place)
    return base


def set_up(container: Instance) -> None:
    """Have a booted container on the base serve its pages."""
    container.exec("sh", "-ec", _SET_UP, container.name)


def upgrade(base: Instance) -> str:
    """Install the packages in the running base; what apt has to say."""
    return base.exec(*UPGRADE)


def packaged(base: Instance) -> list[str]:
    """The files that are in the packages and in the base, by path from its root."""
    found = set()
    for package in glob.glob(f"{base.rootfs}{rebuilt.PLACE}/*.deb"):
        name = os.path.basename(package).partition("_")[0]
        for listing in glob.glob(f"{base.rootfs}/var/lib/dpkg/info/{name}*.list"):
            with open(listing, encoding="utf-8") as lines:
                found |= {line.rstrip("\n") for line in lines}
    return sorted(path for path in found if _is_file(base.rootfs + path))


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:  # dpkg-divert, or left out of a container by its systemd
        return False


def running(container: Instance) -> Iterator[tuple[str | None, int]]:
    """Unit and pid of each process of a container, as the host numbers them."""
    init = container.pid
    for pid in procs.of_containers([init])[init]:
        yield procs.unit(pid), pid
