# SPDX-License-Identifier: GPL-3.0-or-later
"""The busybox image: a small system, laid out as Debian is, in one tar made in milliseconds.

Holds samples of what an overlay and an idmapped layer must not lose: a setuid program, one with
a file capability, access lists; a filled machine-id, as an image that was booted once has it.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BUSYBOX = "/bin/busybox"
DASH = "/bin/dash"
MACHINE_ID = "0123456789abcdef0123456789abcdef"

# What distribution images say about hostname and hosts.
TEMPLATES = {
    "hostname.tpl": "{{ container.name }}\n",
    "hosts.tpl": "127.0.0.1\tlocalhost\n127.0.1.1\t{{ container.name }}\n",
}
_TEMPLATE_RULES = """\
templates:
  /etc/hostname:
    when: [create, copy]
    template: hostname.tpl
  /etc/hosts:
    when: [create, copy]
    template: hosts.tpl
"""

# The first process: ends at once on what `lxc stop`, poweroff, reboot and halt send.
_INIT = """\
#!/bin/sh
# SIGPWR: lxc stop. The others are busybox's poweroff, halt and reboot.
trap 'poweroff -f' PWR USR1 USR2
trap 'reboot -f' TERM INT
if [ -e /sys/class/net/eth0 ]; then udhcpc -b -S -i eth0 -x hostname:"$(hostname)" & fi
# wait reaps whatever was orphaned, and a signal ends it
while :; do sleep 1000000 & wait; done
"""

_DHCP = """\
#!/bin/sh
case $1 in
deconfig) ip link set "$interface" up; ip addr flush dev "$interface" ;;
bound | renew) ip addr replace "$ip/$mask" dev "$interface" ;;
esac
"""

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\n",
    "etc/shadow": "root:*:19000::::::\nuser:*:19000::::::\n",
    "etc/machine-id": MACHINE_ID + "\n",
    "etc/hostname": "image\n",
    "etc/resolv.conf": "",
    "usr/lib/os-release": 'ID=busybox\nNAME="Busybox"\n',
    "usr/share/app/version": "1\n",
    "usr/share/app/data/one": "one\n",
    "usr/share/app/data/two": "two\n",
    "home/user/.profile": "",
}
_MODES = {"etc/shadow": 0o640}
_OWNERS = {"home/user": 1000, "home/user/.profile": 1000}
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "etc/os-release": "../usr/lib/os-release",
    "etc/mtab": "../proc/self/mounts",
}
_DIRECTORIES = {
    "dev": 0o755,
    "proc": 0o555,
    "sys": 0o555,
    "run": 0o755,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
    "root": 0o700,
    "srv": 0o755,
}

SETUID = "usr/bin/dash-setuid"  # with -p; busybox would drop what the bit gives
CAPABLE = "usr/bin/busybox-capable"
ACL_FILE = "srv/acl-file"
ACL_DIRECTORY = "srv/acl-directory"
CAP_NET_RAW = 13


def capability(*numbers: int) -> bytes:
    """The security.capability attribute for "…=ep", version 2 of capabilities(7)."""
    mask = sum(1 << number for number in numbers)
    return struct.pack("<5I", 0x02000001, mask & 0xFFFFFFFF, 0, mask >> 32, 0)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A system.posix_acl_* attribute from (tag, permissions, id); see linux/posix_acl_xattr.h."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


# user::rw-, user:1000:r--, group::r--, mask::r--, other::---
_NOBODY = 0xFFFFFFFF
SAMPLE_ACL = acl(
    *((0x01, 6, _NOBODY), (0x02, 4, 1000), (0x04, 4, _NOBODY)),
    *((0x10, 4, _NOBODY), (0x20, 0, _NOBODY)),
)


class Tar:
    """A tar file being written: parents come by themselves, ids are those of the container."""

    def __init__(self, path: str) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8")  # noqa: SIM115
        self._written: set[str] = set()

    def close(self) -> None:
        """Finish the file."""
        self._tar.close()

    def directory(self, path: str, mode: int = 0o755, owner: int = 0, **xattrs: bytes) -> None:
        """Add a directory, unless it is there already."""
        if path and path not in self._written:
            self.directory(os.path.dirname(path))
            self._add(_header(path, tarfile.DIRTYPE, mode, owner), **xattrs)

    def file(
        self, path: str, data: bytes, mode: int = 0o644, owner: int = 0, **xattrs: bytes
    ) -> None:
        """Add a file; ``xattrs`` are named with ``__`` for the dot: ``user__x=b"1"``."""
        self.directory(os.path.dirname(path))
        self._add(_header(path, tarfile.REGTYPE, mode, owner), data, **xattrs)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self.directory(os.path.dirname(path))
        header = _header(path, tarfile.SYMTYPE, 0o777)
        header.linkname = target
        self._add(header)

    def copy(self, entry: tarfile.TarInfo, source: tarfile.TarFile) -> None:
        """Add an entry of another tar, with its content, under the name that it has now."""
        dropped = ("path", "linkpath")  # they would win over the new name
        kept = {key: value for key, value in entry.pax_headers.items() if key not in dropped}
        entry.pax_headers = kept
        self._tar.addfile(entry, source.extractfile(entry) if entry.isreg() else None)

    def _add(self, header: tarfile.TarInfo, data: bytes = b"", **xattrs: bytes) -> None:
        self._written.add(header.name)
        header.size, header.mtime = len(data), int(time.time())
        header.pax_headers = {
            "SCHILY.xattr." + name.replace("__", "."): value.decode("utf-8", "surrogateescape")
            for name, value in xattrs.items()
        }
        self._tar.addfile(header, io.BytesIO(data))


def _header(path: str, kind: bytes, mode: int, owner: int = 0) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type, header.mode = kind, mode
    header.uid = header.gid = owner
    return header


def metadata(description: str, rules: str = _TEMPLATE_RULES) -> bytes:
    """The metadata.yaml of an image."""
    return (
        f"architecture: {os.uname().machine}\n"
        f"creation_date: {int(time.time())}\n"
        f"properties:\n  description: {description}\n{rules}"
    ).encode()


def add_templates(tar: Tar, templates: Mapping[str, str]) -> None:
    """Put the templates that metadata.yaml speaks of into an image."""
    for name, text in templates.items():
        tar.file(f"templates/{name}", text.encode())


def busybox(path: str) -> None:
    """Write the busybox image to ``path``."""
    with open(BUSYBOX, "rb") as file:
        program = file.read()
    listing = [BUSYBOX, "--list"]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    tar = Tar(path)
    tar.file("metadata.yaml", metadata("busybox"))
    add_templates(tar, TEMPLATES)
    for name, target in _LINKS.items():
        tar.link(f"rootfs/{name}", target)
    for name, mode in _DIRECTORIES.items():
        tar.directory(f"rootfs/{name}", mode)
    for name, owner in _OWNERS.items():
        if name not in _FILES:
            tar.directory(f"rootfs/{name}", 0o755, owner)
    for name, text in _FILES.items():
        tar.file(f"rootfs/{name}", text.encode(), _MODES.get(name, 0o644), _OWNERS.get(name, 0))
    tar.file("rootfs/usr/share/udhcpc/default.script", _DHCP.encode(), 0o755)
    tar.file("rootfs/usr/sbin/init", _INIT.encode(), 0o755)
    tar.file("rootfs/usr/bin/busybox", program, 0o755)
    _add_applets(tar, names)
    _add_samples(tar, program)
    tar.close()


def _add_applets(tar: Tar, names: Iterable[str]) -> None:
    for name in names:
        if name not in ("busybox", "init", "linuxrc"):
            tar.link(f"rootfs/usr/bin/{name}", "busybox")
    for name in ("reboot", "poweroff", "halt", "ip", "udhcpc"):
        tar.link(f"rootfs/usr/sbin/{name}", "../bin/busybox")


def libraries(program: str) -> list[str]:
    """What a program loads, ld.so included; /lib and /lib64 are links in the image, too."""
    printed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    paths = [word for word in printed.split() if word.startswith("/")]
    return [os.path.join(os.path.realpath(os.path.dirname(p)), os.path.basename(p)) for p in paths]


def _add_samples(tar: Tar, program: bytes) -> None:
    with open(DASH, "rb") as file:
        tar.file(f"rootfs/{SETUID}", file.read(), 0o755 | stat.S_ISUID)
    for path in libraries(DASH):
        with open(path, "rb") as file:
            tar.file(f"rootfs{path}", file.read(), 0o755)
    tar.file(f"rootfs/{CAPABLE}", program, 0o755, security__capability=capability(CAP_NET_RAW))
    tar.file(f"rootfs/{ACL_FILE}", b"acl\n", 0o640, system__posix_acl_access=SAMPLE_ACL)
    tar.directory(f"rootfs/{ACL_DIRECTORY}", 0o755, system__posix_acl_default=SAMPLE_ACL)
