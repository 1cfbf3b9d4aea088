# SPDX-License-Identifier: GPL-3.0-or-later
"""Debians with systemd, made by mmdebstrap from the mirror that this machine uses.

Made once: each image is kept in build/images of the clone, under the digest of its recipe.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from lab import images, rebuilt

if TYPE_CHECKING:
    from lab.world import World

SUITE = "bookworm"
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(REPOSITORY, "build", "images")

PACKAGES = (
    *("acl", "dbus", "iproute2", "libcap2-bin", "passwd", "procps", "python3"),
    *("systemd", "systemd-sysv", "udev"),  # without udevd networkd waits for it for ever
)

# As distribution images for containers are: DHCP on eth0, no root password, an identity that a
# careless copy would share.
CUSTOMIZE = (
    'printf "[Match]\\nName=eth0\\n[Network]\\nDHCP=yes\\n" >"$1/etc/systemd/network/0.network"',
    'chroot "$1" systemctl --quiet enable systemd-networkd',
    'chroot "$1" systemctl --quiet mask systemd-networkd-wait-online.service',
    'chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer',
    f'echo {images.MACHINE_ID} >"$1/etc/machine-id"',
    'echo image >"$1/etc/hostname"',
    'chroot "$1" apt-get clean',
    'rm -rf "$1"/var/lib/apt/lists/*',
)


class Recipe(NamedTuple):
    """What an image is made from: packages, and shell lines with the root file system as $1."""

    packages: tuple[str, ...]
    customize: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Sixteen digits that are others when the image would be another."""
        text = json.dumps([SUITE, *self, images.TEMPLATES])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


SYSTEM = Recipe(PACKAGES, CUSTOMIZE)


def serving() -> Recipe:
    """A system that serves, and the packages that it can be upgraded to, see lab.rebuilt."""
    with open(rebuilt.__file__, "rb") as file:
        version = hashlib.sha256(file.read()).hexdigest()
    rebuild = f'"$PYTHON" -P -m lab.rebuilt "$1" # {version}'
    services = ("needrestart", "nginx", "openssh-server")
    return Recipe((*PACKAGES, *services), (rebuild, *CUSTOMIZE))


def image(world: World | None = None, recipe: Recipe = SYSTEM) -> str:
    """The path of an image, made now if it was not made before.

    Args:
        world: where we are, None on the host: the mirror is reached from outside.
        recipe: what to make it from.
    """
    path = os.path.join(CACHE, f"debian-{recipe.digest}.tar")
    if not os.path.exists(path):
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            rootfs, unfinished = (
                os.path.join(scratch, "rootfs.tar"),
                os.path.join(scratch, "image.tar"),
            )
            _bootstrap(recipe, rootfs, scratch, world)
            _wrap(rootfs, unfinished)
            os.rename(unfinished, path)
    return path


def mirror() -> str:
    """The mirror of bookworm that this machine's apt uses, however it is written down.

    Raises:
        OSError: there is none.
    """
    wanted = "$(CODENAME) $(COMPONENT) $(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        codename, component, uri = line.split()
        if (codename, component) == (SUITE, "main"):
            return uri
    raise OSError(f"apt knows no mirror of {SUITE}: add it to the apt sources, run apt-get update")


def _bootstrap(recipe: Recipe, path: str, scratch: str, world: World | None) -> None:
    command = [
        # in namespaces, so that one that is interrupted takes its children and mounts along
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("env", f"TMPDIR={scratch}", f"PYTHON={sys.executable}", f"PYTHONPATH={REPOSITORY}"),
        "mmdebstrap",
        "--quiet",
        "--format=tar",
        "--variant=minbase",
        "--skip=cleanup/reproducible",  # keeps our machine-id
        f"--include={','.join(recipe.packages)}",
        *(f"--customize-hook={line}" for line in recipe.customize),
        SUITE,
        path,
        mirror(),
    ]
    if world is None:
        subprocess.run(command, check=True)
    else:
        world.run_outside(command)


def _wrap(rootfs: str, path: str) -> None:
    """Make an image of a root file system: the same entries below rootfs/, and metadata."""
    tar = images.Tar(path)
    tar.file("metadata.yaml", images.metadata("debian"))
    images.add_templates(tar, images.TEMPLATES)
    with tarfile.open(rootfs) as system:
        for entry in system:
            entry.name = os.path.normpath(f"rootfs/{entry.name}")
            if entry.islnk():
                entry.linkname = os.path.normpath(f"rootfs/{entry.linkname}")
            tar.copy(entry, system)
    tar.close()
