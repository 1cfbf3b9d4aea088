# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to be looked at: daemons, their projects, profiles and containers, and bases.

A daemon that does not answer has only what is recorded below /run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from pycor_hooks import hook, instance, plan, rawlxc, registry, uninstall
from pycor_hooks.client import Connection
from pycor_hooks.errors import PycorError, UsageError
from pycor_hooks.host_errors import NoIdMap, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from pycor_hooks.instance import Instance
    from pycor_hooks.rawlxc import PreStart
    from pycor_hooks.record import Record
    from pycor_hooks.sockets import Daemon


class Container:
    """A container as its daemon's API describes it.

    `daemon` whose it is; `api` the answer; `where` it is on the host; `hook`: our pre-start hook
    that its raw.lxc puts in effect, None where it is no container on a base.
    """

    def __init__(self, daemon: Daemon, api: dict[str, Any]) -> None:
        self.daemon = daemon
        self.api = api
        self.where = instance.Instance(daemon.directory, api["project"], api["name"])
        self.expanded: dict[str, str] = api["expanded_config"]
        self.raw_lxc = self.expanded.get("raw.lxc", "")
        self.hook: PreStart | None = rawlxc.pre_start(self.raw_lxc)

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.where.label

    @property
    def privileged(self) -> bool:
        """Whether its root is the host's."""
        return self.expanded.get("security.privileged") == "true"

    @property
    def root_disk(self) -> dict[str, str]:
        """The device that its root file system is on."""
        disks: list[dict[str, str]] = list(self.api["expanded_devices"].values())
        return next(disk for disk in disks if disk["type"] == "disk" and disk.get("path") == "/")

    def base(self) -> Instance:
        """The base that its next start would take.

        Raises:
            UsageError: raw.lxc does not name one as it should.
        """
        argv = self.hook.argv if self.hook else []
        return instance.parse_base(hook.parse_options("pre-start", argv)["--base"], self.where)

    def config(self) -> instance.Config:
        """What LXC_CONFIG_FILE would say at its next start.

        Raises:
            NoIdMap: the daemon has not given it ids yet.
        """
        extents = self.expanded.get("volatile.idmap.next")
        if extents is None and not self.privileged:
            raise NoIdMap(name=self.label)
        lines = [
            f"lxc.idmap = {kind} {one['Nsid']} {one['Hostid']} {one['Maprange']}"
            for one in json.loads(extents or "[]")
            for kind, there in (("u", one["Isuid"]), ("g", one["Isgid"]))
            if there
        ]
        if self.root_disk.get("readonly") == "true":
            lines.append("lxc.rootfs.options = ro")
        return instance.Config("\n".join([*lines, self.raw_lxc]))


class House(NamedTuple):
    """What one daemon has.

    `trouble`: why its API was not asked, None where it was; `connections`: one per project;
    `containers` of all projects; `records` of the live overlays.
    """

    daemon: Daemon
    trouble: PycorError | None
    connections: Sequence[Connection]
    containers: Sequence[Container]
    records: Sequence[Record]


class Base(NamedTuple):
    """An instance that others stand on, or will.

    `where` on the host; `container`: the same as the API has it, None where it was not asked or
    does not know it; `users`: the containers on it, as the API has them; `live`: the records of
    its overlays; `profiles` that name it.
    """

    where: Instance
    container: Container | None
    users: list[Container]
    live: list[Record]
    profiles: list[str]


def look(daemon: Daemon, stack: ExitStack) -> House:
    """Ask one daemon, unless that would start it.

    Args:
        daemon: whom to ask.
        stack: closes the connection in the end.
    """
    records = registry.records([daemon.directory])
    try:
        first = stack.enter_context(Connection.to_running(daemon))
        connections = uninstall.projects_of(first)
        found = [one for each in connections for one in each.get("instances", recursion="1")]
    except PycorError as error:
        return House(daemon, error, [], [], records)
    except OSError as error:
        words = {"kind": daemon.kind, "directory": daemon.directory, "reason": error.strerror}
        return House(daemon, Unreachable(**words), [], [], records)
    # Within a cluster every member lists those of the others, too.
    here = {"", "none", first.server["environment"].get("server_name")}
    containers = [
        Container(daemon, one)
        for one in found
        if one["type"] == "container" and one.get("location", "none") in here
    ]
    return House(daemon, None, connections, containers, records)


def bases(house: House) -> list[Base]:
    """The bases that containers, live overlays and profiles of a daemon name."""
    found: dict[str, Base] = {}
    known = {container.where.key: container for container in house.containers}

    def base(where: Instance) -> Base:
        return found.setdefault(where.key, Base(where, known.get(where.key), [], [], []))

    for container in house.containers:
        stands_on = base_of(container)
        if stands_on:
            base(stands_on).users.append(container)
    for record in house.records:
        where = instance.Instance(*plan.base_of(record))
        base(where).live.append(record)
    for connection in house.connections:
        for profile in uninstall.our_profiles(connection):
            named = base_of_profile(connection, profile)
            if named:
                base(named).profiles.append(profile["name"] + connection.flag)
    return list(found.values())


def base_of(container: Container) -> Instance | None:
    """The base of a container, None where it has none, or names it wrongly.

    The error is told where its next start is looked at.
    """
    try:
        return container.base() if container.hook else None
    except UsageError:
        return None


def base_of_profile(connection: Connection, profile: dict[str, Any]) -> Instance | None:
    """The base that a profile gives to containers of its own project, None where it names none.

    Args:
        connection: in the project that holds the profile.
        profile: as the API shows it.
    """
    named = rawlxc.base(profile["config"].get("raw.lxc", ""))
    if named is None:
        return None
    nobody = instance.Instance(connection.daemon.directory, connection.project, "")
    try:
        return instance.parse_base(named, nobody)
    except UsageError:
        return None
