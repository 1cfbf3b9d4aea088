# SPDX-License-Identifier: GPL-3.0-or-later
"""`uninstall`: removes what `install` and `profile` made, once nothing stands on it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from pycor_hooks import (
    generations,
    image,
    instance,
    kernel,
    lost,
    profile,
    provision,
    rawlxc,
    record,
    registry,
    systemd,
    takedown,
    tree,
)
from pycor_hooks.bases import AUTOSTART, DELETE, PROTECTION
from pycor_hooks.client import Connection
from pycor_hooks.host_errors import InUse, NoProject, NotAsked
from pycor_hooks.install import LOCK, alone_in
from pycor_hooks.output import Note
from pycor_hooks.plan import label, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pycor_hooks.sockets import Daemon


def uninstall(prefix: str, daemons: Sequence[Daemon]) -> Iterator[str]:
    """Remove everything of ours.

    Args:
        prefix: where the hooks are.
        daemons: those whose profiles and images of ours go; overlays of others count all the
            same, since their containers may run hooks of this prefix.

    Yields:
        What was done, a line each.

    Raises:
        InUse: containers use a profile of ours, or an overlay is live; nothing was removed.
        Unreachable: a daemon does not answer, so it cannot be told; nothing was removed.
        NotAsked: there is another one that may use them; nothing was removed.
        BadPrefix: something else is there, as in a clone; nothing was removed.
    """
    if os.path.isdir(prefix):
        tree.current(prefix)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Connection(daemon)) for daemon in daemons]
        connections = [each for connection in opened for each in projects_of(connection)]
        check_asked(daemons)
        check_unused(connections)
        check_not_live()
        others = prefixes_of(connections) - {prefix}
        yield from systemd.remove()
        yield from remove_from(connections)
    yield from remove_hooks(prefix)
    remove_run()
    removed = [daemon for daemon in daemons if generations.remove(daemon.directory)]
    if removed:
        yield f"manifests of bases removed from {instance.STATE}"
    for other in sorted(others):
        if os.path.exists(os.path.join(other, tree.LINK)):
            yield Note(f"hooks stay in {other}: pycor-hooks uninstall --prefix {other}")


def projects_of(connection: Connection) -> list[Connection]:
    """The daemon as each of its projects sees it."""
    found = connection.get("projects", recursion="1")
    return [connection.in_project(project["name"]) for project in found]


def check_unused(connections: Sequence[Connection]) -> None:
    """Raise InUse, naming the containers, where a profile of ours is used."""
    users = {
        f"{label(*user)} ({connection.daemon.directory})": None
        for connection in connections
        for found in our_profiles(connection)
        for user in provision.users_of(found)
    }
    if users:
        raise InUse(
            users=f"{', '.join(users)} use a profile of pycor-hooks",
            remedy="take what you need out of these containers and delete them: without the hooks"
            " they have no system to boot",
        )


def check_not_live() -> None:
    """Raise InUse, naming the containers, where an overlay is live."""
    found = [*registry.records(), *lost.records()]
    live = [f"{name_of(one)} ({one.daemon})" for one in found]
    if live:
        raise InUse(
            users=f"the overlays of {', '.join(live)} are live",
            remedy="stop these containers; pycor-hooks watch --once removes what a dead one left",
        )


def check_asked(daemons: Sequence[Daemon]) -> None:
    """Raise NotAsked where another daemon has had bases, or is named in the watcher's unit."""
    known = {record.unescape(name) for name in generations.daemons()}
    others = (known | set(systemd.watched())) - {daemon.directory for daemon in daemons}
    there = sorted(filter(os.path.isdir, others))
    if there:
        raise NotAsked(directories=" --daemon ".join(there))


def remove_from(connections: Sequence[Connection]) -> Iterator[str]:
    """Remove the profiles and images of ours, and say which bases stay protected."""
    protected: dict[str, None] = {}
    for connection in connections:
        yield from remove_images(connection)
        for found in our_profiles(connection):
            yield remove_profile(connection, found)
            protected |= dict.fromkeys(still_protected(connection, found))
    yield from map(Note, protected)


def our_profiles(connection: Connection) -> list[dict[str, Any]]:
    """The profiles of ours that this project holds itself."""
    if connection.holder("features.profiles") != connection.project:
        return []
    found = connection.get("profiles", recursion="1")
    return [one for one in found if profile.is_ours(one)]


def prefixes_of(connections: Sequence[Connection]) -> set[str]:
    """Where the hooks are that the profiles of ours name."""
    return {
        hook.prefix
        for connection in connections
        for each in our_profiles(connection)
        if (hook := rawlxc.pre_start(each["config"].get("raw.lxc", "")))
    }


def remove_profile(connection: Connection, found: dict[str, Any]) -> str:
    """Delete a profile of ours, unless an operator added something; say what was done."""
    where = f"{connection.label}: profile {found['name']}"
    if profile.is_as_made(found):
        connection.delete("profiles", found["name"])
        return f"{where} deleted"
    command = f"{connection.command} profile delete {found['name']}{connection.flag}"
    return Note(f"{where} has settings of your own and stays: {command}")


def still_protected(connection: Connection, found: dict[str, Any]) -> Iterator[str]:
    """Say how a base can be deleted again; whether it should be is the operator's to know."""
    text = rawlxc.base(found["config"].get("raw.lxc", "")) or ""
    project, _, name = text.rpartition("/")
    try:
        owner = connection.in_project(project or connection.project)
    except NoProject:
        return
    base = owner.find("instances", name) if name else None
    for key, what in ((DELETE, "stays protected"), (AUTOSTART, "is not started at boot")):
        if base and base["config"].get(key) == PROTECTION[key]:
            yield (
                f"{owner.label}: base {name} {what}; to undo: "
                f"{owner.command} config unset {name} {key}{owner.flag}"
            )


def remove_images(connection: Connection) -> Iterator[str]:
    """Delete the images of ours that this project holds itself."""
    if connection.holder("features.images") != connection.project:
        return
    for found in connection.get("images", recursion="1"):
        if image.OWNER in found["properties"]:
            connection.delete("images", found["fingerprint"])
            names = ", ".join(alias["name"] for alias in found["aliases"])
            yield f"{connection.label}: image {names or found['fingerprint'][:12]} deleted"


def remove_hooks(prefix: str) -> Iterator[str]:
    """Remove the hooks' tree, and the prefix where nothing else is in it."""
    if not os.path.isdir(prefix):
        return
    with alone_in(prefix):
        link = os.path.join(prefix, tree.LINK)
        versions = tree.versions(prefix)
        if tree.current(prefix) in versions:
            os.unlink(link)
        tree.remove(prefix, versions)
        os.unlink(os.path.join(prefix, LOCK))
    with contextlib.suppress(OSError):
        os.rmdir(prefix)
    if versions:
        yield f"hooks removed from {prefix}"


def remove_run() -> None:
    """Remove the mount and the directories below /run, as far as they are empty."""
    for directory in registry.directories():
        takedown.remove_directory(directory)
    run = record.RUN
    with contextlib.suppress(OSError):  # another daemon's container may be starting
        while not os.listdir(run) and kernel.is_mount_root(run):
            kernel.umount(run)
        os.rmdir(run)
