# SPDX-License-Identifier: GPL-3.0-or-later
"""What root of a container does to its layer and its mounts, to confuse OverlayFS or us."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.attacker import Attacker
from tests.daemon.test_update import APP
from tests.faults.test_hostile_tree import from_both, restart

if TYPE_CHECKING:
    from lab.overlays import Overlays
    from lab.tally import Tally

_MARKS = """
values = {"opaque": b"y", "redirect": b"/etc", "metacopy": b"", "whiteout": b"y", "origin": b"x",
          "impure": b"y", "nlink": b"U+1", "upper": b"x", "uuid": b"0" * 16, "protattr": b"ia"}
set_ = 0
for path in ("/", "/etc", "/usr/share/app", "/usr/share/app/version", "/srv", sys.argv[1]):
    for name, value in values.items():
        for space in ("user", "trusted"):
            set_ += attempt(os.setxattr, path, f"{space}.overlay.{name}", value)
for path in ("/usr/share/app/fake", "/etc/passwd-"):
    attempt(os.mknod, path, stat.S_IFCHR | 0o600, os.makedev(0, 0))
print(set_)
"""


def test_marks_of_overlayfs(overlays: Overlays, tally: Tally) -> None:
    """A container's own overlay.* attributes and fake whiteouts hide and show nothing."""

    def attack(attacker: Attacker) -> None:
        container = attacker.container
        container.exec("sh", "-c", f"rm -r {APP}/data /home/user; mkdir {APP}/data /srv/own")
        marks = int(attacker(_MARKS, "/srv/own"))
        with tally.injected("marks of OverlayFS, set by the container", marks):
            assert marks
            restart(container)
            assert container.exec("cat", f"{APP}/version", "/etc/hostname").startswith("1\n")
            listed = container.exec("ls", "-A", f"{APP}/data", "/srv/own")
            assert listed == f"/srv/own:\n\n{APP}/data:\n"
            assert container.run("ls", "/home/user").returncode
            assert overlays.pycor_hooks("remount", container.name).returncode == 0
            assert live.states(overlays)[container.name] == "mounted"

    from_both(overlays, attack)


_OWN_ROOT = """
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, IMMUTABLE, APPEND = 0x80086601, 0x40086602, 0x10, 0x20

def flag(path, bit):
    descriptor = os.open(path, os.O_RDONLY)
    flags = int.from_bytes(fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8)), sys.byteorder)
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, (flags | bit).to_bytes(8, sys.byteorder))

done = [
    attempt(mount, "none", "/etc", "tmpfs"),
    attempt(mount, "/", "/mnt", flags=0x1000 | 0x4000),
    attempt(mount, "none", "/", flags=0x4000 | 0x100000),  # shared
    attempt(mount, "/", "/", flags=0x1000),
    attempt(os.chown, "/", 1000, 1000),
    attempt(os.chown, "/home", 65533, 65533),
    attempt(os.chmod, "/", 0),
    attempt(flag, "/srv", APPEND),
    attempt(flag, "/", IMMUTABLE),
    attempt(mount, "none", "/", "tmpfs"),
]
print(sum(done))
"""


def test_its_own_root(overlays: Overlays, tally: Tally) -> None:
    """Owner, mode, immutable flags, and mounts on / and around it: all goes on."""

    def attack(attacker: Attacker) -> None:
        container = attacker.container
        container.exec("mkdir", "/mnt")
        done = int(attacker(_OWN_ROOT))
        with tally.injected("owner, mode, flags of /, mounts on it", done):
            places = (container.record, container.volume)
            seen = [path for path in live.mounts(overlays) if path.startswith(places)]
            assert seen == [container.merged]
            assert overlays.pycor_hooks("status", "--size", container.name).returncode == 0
            assert overlays.pycor_hooks("remount", container.name).returncode == 0
            restart(container, "var/pushed")
            assert container.exec("cat", "/var/pushed") == "pushed\n"
            assert container.exec("stat", "-c", "%u:%g %a", "/") == "1000:1000 0\n"

    from_both(overlays, attack)


_MANY = """
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    path = f"/srv/many/{number}\\n\\x1b[31m"
    os.unlink(path) if os.path.exists(path) else os.mknod(path)
"""
_AT_ONCE = 50_000  # files, so that a client does not wait too long


@pytest.mark.once
def test_many_files(
    overlays: Overlays, tally: Tally, tmp_path: os.PathLike[str], *, soak: bool
) -> None:
    """A start does as much when a directory that it writes to has a million files."""
    container = overlays.launch("many")
    attacker = Attacker(container)
    trace = os.path.join(tmp_path, "trace")
    raw_lxc = overlays.client("profile", "get", overlays.image, "raw.lxc").stdout
    hook = f"{overlays.prefix}/hooks/pre-start"
    strace = "/usr/bin/strace -D -f --seccomp-bpf -e trace=%file,getdents64"
    traced = raw_lxc.replace(hook, f"{strace} -o {trace} {hook}")
    container.set(**{"raw.lxc": traced})
    number = 1_000_000 if soak else 10_000

    def calls() -> int:
        restart(container, "srv/many/pushed")
        with open(trace, "rb") as lines:
            return sum(1 for _ in lines)

    def make_or_remove() -> None:
        for first in range(0, number, _AT_ONCE):
            attacker(_MANY, str(first), str(min(first + _AT_ONCE, number)))

    container.exec("mkdir", "/srv/many")
    with tally.injected("a file in a directory that a start writes to", number):
        before = calls()
        make_or_remove()
        assert calls() <= before + 5
    assert container.exec("cat", "/srv/many/pushed") == "pushed\n"
    make_or_remove()
