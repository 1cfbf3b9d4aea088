# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container writes that a copy of its layer could lose, and a look at what became of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab import images
from lab.client import ClientError
from lab.gnu import Gnu
from lab.wait import until
from pycor_hooks import mountinfo

if TYPE_CHECKING:
    from lab.client import Instance

ALLOWANCE = 64 << 10  # for backup.yaml, metadata.yaml and templates
MACHINE_ID = "fedcba9876543210fedcba9876543210"

_WRITE = f"""
set -e
# a directory of the base removed and made again, a file and a directory removed
rm -r /usr/share/app/data /usr/share/app/version /home/user
mkdir /usr/share/app/data
echo three >/usr/share/app/data/three
# samples of the base, copied up, and the like of the container's own
touch /{images.SETUID} /{images.CAPABLE} /{images.ACL_FILE}
cp /{images.SETUID} /usr/bin/own-setuid
chown 1000:1000 /usr/bin/own-setuid
chmod 6755 /usr/bin/own-setuid
cp /{images.CAPABLE} /usr/bin/busybox-own
mkdir -p /srv/own
echo own >/srv/own/file
chmod 640 /srv/own/file
ln /srv/own/file /srv/own/hardlink
ln -s /nowhere /srv/own/link
mkfifo /srv/own/fifo
echo {MACHINE_ID} >/etc/machine-id
"""

_AS_ROOT = """
ls -A /usr/share/app /usr/share/app/data /home
stat -c '%n %u:%g %a %h' /srv/own/* /usr/bin/busybox-own /usr/bin/own-setuid
"""
_ROOT = """\
/home:

/usr/share/app:
data

/usr/share/app/data:
three
/srv/own/fifo 0:0 644 1
/srv/own/file 0:0 640 2
/srv/own/hardlink 0:0 640 2
/srv/own/link 0:0 777 1
/usr/bin/busybox-own 0:0 755 1
/usr/bin/own-setuid 1000:1000 6755 1
"""

_STATUS = "while read key _ effective _; do echo $key $effective; done </proc/self/status | grep ^"
_AS_USER = f"""
/{images.SETUID} -pc '{_STATUS}Uid'
/usr/bin/own-setuid -pc '{_STATUS}Uid'
for file in /{images.CAPABLE} /usr/bin/busybox-own; do $file grep ^CapEff /proc/self/status; done
cat /{images.ACL_FILE} /srv/own/file || true  # the other user may not
"""
_CAPABILITIES = f"CapEff:\t{1 << images.CAP_NET_RAW:016x}\n"
_SETUIDS = "Uid: 0\nUid: 1000\n"


def write(container: Instance) -> None:
    """Write it, as the container's root."""
    container.exec("sh", "-c", _WRITE)
    gnu = Gnu(container)
    gnu("setcap", "cap_net_raw=ep", "/usr/bin/busybox-own").check_returncode()
    gnu("setfacl", "-m", "u:1000:r", "/srv/own/file").check_returncode()


def look(container: Instance) -> dict[str, str]:
    """How a running container sees it, as root, as the user of the access lists, as another."""
    return {
        "root": container.exec("sh", "-c", _AS_ROOT),
        "1000": container.exec("sh", "-c", _AS_USER, user=1000),
        "1001": container.exec("sh", "-c", _AS_USER, user=1001),
    }


# What :func:`look` gives right after :func:`write`, and ever after.
RIGHT = {
    "root": _ROOT,
    "1000": f"{_SETUIDS}{_CAPABILITIES * 2}acl\nown\n",
    "1001": f"{_SETUIDS}{_CAPABILITIES * 2}",
}


def bytes_below(directory: str) -> int:
    """The sizes of all files below a directory of the host."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(directory)
        for name in names
    )


def is_thin(volume: str, upper: str) -> bool:
    """Whether a copied volume holds what an upper holds, and nothing of the base."""
    bare = os.listdir(os.path.join(volume, "rootfs")) == []
    return bare and 0 <= bytes_below(volume) - bytes_below(upper) < ALLOWANCE


def are_apart(one: Instance, other: Instance) -> bool:
    """Whether two running containers have an overlay each, and neither sees the other's writes."""
    for container in (one, other):
        container.exec("sh", "-c", f"echo {container.name} >/etc/mine")
    names = [container.exec("cat", "/etc/mine").strip() for container in (one, other)]
    mounted = [overlays_of(container) for container in (one, other)]
    return names == [one.name, other.name] and mounted == [[one.merged], [other.merged]]


def overlays_of(container: Instance) -> list[str]:
    """The mount points below which the overlay of a container can be seen on the host."""
    places = (container.record, container.rootfs)
    return [mount.target for mount in mountinfo.read() if mount.target.startswith(places)]


def take_snapshot(container: Instance, snapshot: str) -> str:
    """Take a snapshot, and give back the directory of its volume."""
    client, pool = container.client, os.path.dirname(os.path.dirname(container.volume))
    words = ["snapshot"] if client.program == "lxc" else ["snapshot", "create"]
    client(*words, container.name, snapshot)
    return os.path.join(pool, "containers-snapshots", container.key, snapshot)


def restore_snapshot(container: Instance, snapshot: str) -> None:
    """Bring a container back to a snapshot."""
    client = container.client
    words = ["restore"] if client.program == "lxc" else ["snapshot", "restore"]

    def accepted() -> bool:
        done = client(*words, container.name, snapshot, check=False)
        if done.returncode and "In use" not in done.stderr:  # LXD's stop may not be done with it
            raise ClientError(done)
        return done.returncode == 0

    until(accepted, what="the snapshot is restored")
