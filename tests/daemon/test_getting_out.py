# SPDX-License-Identifier: GPL-3.0-or-later
"""A container leaves its base by the commands of docs/operating.md, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from lab.gnu import Gnu

if TYPE_CHECKING:
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays

DOCUMENT = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "operating.md")
WRITE = """
set -e
rm /etc/issue.net
rm -r /etc/skel; mkdir /etc/skel; echo own >/etc/skel/own
mkdir /srv/own; echo own >/srv/own/file; ln /srv/own/file /srv/own/hardlink
cp /bin/true /srv/own/setuid; chown 1000:1000 /srv/own/setuid; chmod 6755 /srv/own/setuid
cp /bin/grep /srv/own/capable
"""
LOOK = """
ls -A /etc/skel; ls /etc/issue.net
stat -c '%n %u:%g %a %h %s' /srv/own/* /usr/bin/dpkg /var/lib/dpkg/status
/srv/own/capable CapEff /proc/self/status
find / -xdev -path /run -prune -o -path /tmp -prune -o -path /var/log -prune -o \
    -path /var/tmp -prune -o -path /var/lib/systemd -prune -o -printf '%P %y %m %U:%G %l\\n' | sort
"""


def commands() -> str:
    """The first block of shell commands of the chapter."""
    with open(DOCUMENT, encoding="utf-8") as file:
        chapter = file.read().partition("## Getting in, and getting out")[2]
    block = re.search(r"```sh\n(.*?)```", chapter, re.DOTALL)
    assert block
    return block[1]


def look(container: Instance) -> set[tuple[int, str]]:
    """What a user other than root, and root, see of it."""
    return {
        (user, line)
        for user in (1000, 0)
        for line in container.run("sh", "-c", LOOK, user=user).stdout.splitlines()
    }


def test_a_container_gets_out(debian_overlays: Overlays, tmp_path: Path) -> None:
    """What they launch is a system of its own, and has all that web1 saw."""
    client, web1 = debian_overlays.client, debian_overlays.launch("web1")
    web1.wait_booted()
    web1.exec("sh", "-c", WRITE)
    Gnu(web1)("setcap", "cap_net_raw=ep", "/srv/own/capable").check_returncode()
    seen = look(web1)
    script = re.sub(r"\blxc\b", client.program, commands())
    env = debian_overlays.daemon.env
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=env, check=True, timeout=300)
    alone = client.instance("web1-alone")
    alone.wait_booted()
    web1.delete()
    assert os.path.isdir(os.path.join(alone.rootfs, "usr"))
    assert not os.path.exists(alone.record)
    assert look(alone) ^ seen == set()
