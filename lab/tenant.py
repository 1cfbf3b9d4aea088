# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of a daemon who is trusted with one restricted project, and comes over the network."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING

from lab.client import Client
from lab.daemon import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.daemon import Daemon

PROJECT = "tenant"
_PORTS = {"lxd": 8443, "incus": 8444}


@contextlib.contextmanager
def tenant(daemon: Daemon) -> Iterator[Client]:
    """Make the restricted project ``tenant``, and a client with a certificate for it alone.

    The project has the image ``busybox`` and a root disk; it goes with the case, the trust here.
    """
    admin = daemon.client
    admin("config", "set", "core.https_address", f"127.0.0.1:{_PORTS[daemon.kind]}")
    admin("project", "create", PROJECT, "-c", "restricted=true")
    device = ["root", "disk", "path=/", f"pool={POOL}"]
    admin.in_project(PROJECT)("profile", "device", "add", "default", *device)
    admin("image", "copy", "busybox", "local:", "--target-project", PROJECT, "--alias", "busybox")
    name = ["--name", PROJECT] if daemon.kind == "lxd" else [PROJECT]
    added = admin("config", "trust", "add", *name, "--restricted", "--projects", PROJECT)
    try:
        yield _client(daemon, token=added.stdout.split()[-1])
    finally:
        for certificate in admin.query("/1.0/certificates", recursion="1"):
            admin("config", "trust", "remove", certificate["fingerprint"])
        admin("config", "unset", "core.https_address")


def _client(daemon: Daemon, token: str) -> Client:
    prefix = daemon.commands.prefix
    home = tempfile.mkdtemp(prefix=f"{daemon.kind}-{PROJECT}-", dir=daemon.world.directory)
    env = {name: value for name, value in daemon.env.items() if name != f"{prefix}_DIR"}
    env |= {f"{prefix}_CONF": home, "HOME": home}
    client = Client(daemon.commands.client, env, daemon.directory, PROJECT)
    client("remote", "add", PROJECT, token)
    client("remote", "switch", PROJECT)
    return client
