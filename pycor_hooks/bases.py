# SPDX-License-Identifier: GPL-3.0-or-later
"""The base as its daemon describes it: looked up, judged, protected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pycor_hooks import rawlxc
from pycor_hooks.host_errors import BaseIsVm, BaseOnBase, BasePool, NoBase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.client import Connection

# On these a stopped instance has a rootfs that the host sees.
POOL_DRIVERS = frozenset({"dir", "btrfs"})
DELETE = "security.protection.delete"
AUTOSTART = "boot.autostart"
PROTECTION = {DELETE: "true", AUTOSTART: "false"}


class Base:
    """An instance that containers stand on.

    `connection` is in its project, `label` is PROJECT/NAME, `instance` what the API says of it,
    empty where it does not exist.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self.label = f"{connection.project}/{name}"
        self.instance: dict[str, Any] = connection.find("instances", name) or {}

    @property
    def exists(self) -> bool:
        """Whether the daemon has it."""
        return bool(self.instance)

    @property
    def architecture(self) -> str:
        """Its architecture, the daemon's own where it does not exist."""
        if self.instance:
            return str(self.instance["architecture"])
        return str(self.connection.server["environment"]["architectures"][0])

    @property
    def metadata(self) -> dict[str, Any]:
        """Its metadata.yaml, which it has from its image; empty where it does not exist."""
        found: dict[str, Any] = {}
        if self.instance:
            found = self.connection.get("instances", self.name, "metadata")
        return found

    def template(self, file: str) -> bytes:
        """The content of one of its templates."""
        return self.connection.read("instances", self.name, "metadata", "templates", path=file)


def find_base(connection: Connection, text: str, *, optional: bool = False) -> Base:
    """Look up a base, and check that containers can stand on it.

    Args:
        connection: in the project of the containers.
        text: NAME, in that project, or PROJECT/NAME.
        optional: whether it may not exist.

    Raises:
        NoBase, BaseIsVm, BasePool, BaseOnBase: they cannot.
        NoProject: the daemon has no such project.
    """
    project, _, name = text.rpartition("/")
    base = Base(connection.in_project(project or connection.project), name)
    words = {
        "base": base.label,
        "name": name,
        "client": connection.command,
        "flag": base.connection.flag,
    }
    if not base.exists:
        if not optional:
            raise NoBase(directory=connection.daemon.directory, **words)
        return base
    if base.instance["type"] != "container":
        raise BaseIsVm(**words)
    other = rawlxc.base(base.instance["expanded_config"].get("raw.lxc", ""))
    if other:
        raise BaseOnBase(other=other, **words)
    pool, driver = _pool(base)
    if driver not in POOL_DRIVERS:
        raise BasePool(pool=pool, driver=driver, **words)
    return base


def protect(base: Base) -> Iterator[str]:
    """Keep a base from being deleted, and from running unasked; say so where it was not so."""
    config = base.instance["config"]
    missing = {key: value for key, value in PROTECTION.items() if config.get(key) != value}
    if missing:
        base.connection.patch("instances", base.name, json={"config": missing})
        settings = ", ".join(f"{key}={value}" for key, value in missing.items())
        yield f"{base.connection.label}: base {base.name} has now {settings}"


def _pool(base: Base) -> tuple[str, str]:
    """Name and driver of the pool that the base's root disk is in."""
    disks = base.instance["expanded_devices"].values()
    pools = [disk["pool"] for disk in disks if disk["type"] == "disk" and disk.get("path") == "/"]
    return pools[0], base.connection.get("storage-pools", pools[0])["driver"]
