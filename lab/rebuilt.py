# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages of an image, built once more with a higher version: something to upgrade to.

Run by mmdebstrap as a customize hook, ``python -m lab.rebuilt ROOTFS``: all packages that come
from some sources are downloaded as they are installed there, and their rebuilt likes put into
the image. Programs and libraries get a line at their end, which no loader reads, so that each has
another content.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import subprocess
import sys
import tempfile

SOURCES = ("systemd", "dbus", "openssh", "nginx")
PLACE = "/srv/upgrade"
SUFFIX = "+rebuilt1"
MARK = b"\n<!-- rebuilt -->\n"
"""What each changed file ends with; in a page of nginx no reader sees it."""

_WANTED = "${source:Package} ${Package} ${Version}\n"
_ELF = b"\x7fELF"


def main(rootfs: str) -> None:
    """Leave the packages in the image."""
    place = rootfs + PLACE
    os.mkdir(place)
    packages = installed(rootfs)
    with tempfile.TemporaryDirectory() as scratch:
        download(packages, scratch)
        for path in glob.glob(f"{scratch}/*.deb"):
            tree = path.removesuffix(".deb")
            subprocess.run(["dpkg-deb", "--raw-extract", path, tree], check=True)
            rebuild(tree, set(packages.values()))
            built = ["dpkg-deb", "-Zgzip", "-z1", "--build", tree, place]
            subprocess.run(built, check=True, stdout=subprocess.DEVNULL)


def installed(rootfs: str) -> dict[str, str]:
    """The version of each installed package that comes from one of SOURCES."""
    command = ["dpkg-query", f"--admindir={rootfs}/var/lib/dpkg", "-W", "-f", _WANTED]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {package: version for source, package, version in rows if source in SOURCES}


def download(packages: dict[str, str], directory: str) -> None:
    """Fetch packages by the image's own apt configuration, which mmdebstrap tells us of."""
    wanted = [f"{package}={version}" for package, version in packages.items()]
    subprocess.run(
        ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *wanted],
        env={**os.environ, "APT_CONFIG": os.environ["MMDEBSTRAP_APT_CONFIG"]},
        cwd=directory,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def rebuild(tree: str, versions: set[str]) -> None:
    """Raise the version of an unpacked package, and of its siblings where it names them."""
    path = f"{tree}/DEBIAN/control"
    with open(path, encoding="utf-8") as file:
        control = file.read()
    for version in versions:
        control = re.sub(rf"(?<=[ =]){re.escape(version)}(?=[)\n])", version + SUFFIX, control)
    with open(path, "w", encoding="utf-8") as file:
        file.write(control)
    sums = f"{tree}/DEBIAN/md5sums"
    with open(sums, encoding="utf-8") as file:
        names = [line.split("  ", 1)[1] for line in file.read().splitlines()]
    with open(sums, "w", encoding="utf-8") as file:
        file.writelines(f"{_marked(f'{tree}/{name}')}  {name}\n" for name in names)


def _marked(path: str) -> str:
    """The MD5 of a file, which is marked now where it is a program, a library or a page."""
    with open(path, "r+b") as file:
        content = file.read()
        if content.startswith(_ELF) or path.endswith(".html"):
            file.write(MARK)
            content += MARK
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1])
