# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles and images of ours, the projects that use them, and what hides the hooks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pycor_hooks import image, profile, provision, rawlxc, tree, uninstall, whereabouts
from pycor_hooks.bases import find_base
from pycor_hooks.doctor.check import FAIL, OK, WARN, Check, count, refused, sound
from pycor_hooks.errors import PycorError
from pycor_hooks.host_errors import NoHooks
from pycor_hooks.prefix import DEFAULT as DEFAULT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.client import Connection
    from pycor_hooks.doctor.inventory import Container, House

Profile = dict[str, Any]


def check(house: House) -> Iterator[Check]:
    """Look at one daemon that has answered."""
    subject = house.daemon.directory
    mine = profiles_of(house)
    used = {one.where.project for one in house.containers if one.hook}
    places = [each for each in house.connections if mine[each.project] or each.project in used]
    cause = f"{count(len(places), 'project')} with profiles of ours, none that forbids raw.lxc"
    yield from sound("project", subject, check_projects(places), cause)
    for connection in house.connections:
        for found in mine[connection.project]:
            yield check_profile(connection, found)
    images = [
        (each, one)
        for each in house.connections
        if each.holder("features.images") == each.project
        for one in each.get("images", recursion="1")
        if image.OWNER in one["properties"]
    ]
    for connection in house.connections:
        for found in mine[connection.project]:
            yield from check_images(connection, found, images)
    hidden = [
        one
        for container in house.containers
        for one in check_raw_lxc(container, names_for(container, house, mine))
    ]
    yield from sound("raw.lxc", subject, hidden, "no container has lost the hooks of its profile")


def check_projects(places: list[Connection]) -> Iterator[Check]:
    """Look for projects that refuse the hooks."""
    for connection in places:
        try:
            provision.check_project(connection)
        except PycorError as error:
            yield refused("project", connection.label, error)


def check_profile(connection: Connection, found: Profile) -> Check:
    """Whether a profile of ours is as it was made, but for an operator's own additions."""
    subject = f"{connection.label} {found['name']}"
    raw_lxc = found["config"].get("raw.lxc", "")
    ours = rawlxc.pre_start(raw_lxc)
    foreign = profile.foreign_lines(raw_lxc)
    own = "\n".join(line for line in raw_lxc.split("\n") if line not in foreign)
    again = f"run {remake(connection, found)}"
    missing = rawlxc.missing(raw_lxc)
    if missing or not ours:
        return Check("profile", subject, FAIL, f"not in effect: {', '.join(missing)}", again)
    if not os.path.exists(os.path.join(ours.prefix, tree.LINK)):
        return refused("profile", subject, NoHooks(prefix=ours.prefix))
    base = rawlxc.base(own)
    if not base:
        return Check("profile", subject, OK, "hooks in effect, by lines of an operator's own")
    apart = bool(whereabouts.is_apart(connection.daemon))
    if apart and not profile.enters(raw_lxc):
        cause = "its hooks would run in the mount namespace that this daemon has for itself"
        return Check("profile", subject, FAIL, cause, again)
    wanted = profile.body(prefix=ours.prefix, base=base, apart=apart)["config"]["raw.lxc"]
    if rawlxc.settings(own) != rawlxc.settings(wanted):
        return Check("profile", subject, WARN, "its hook lines are not as they were made", again)
    return Check("profile", subject, OK, f"for base {base}, as it was made")


def check_images(
    connection: Connection, found: Profile, images: list[tuple[Connection, dict[str, Any]]]
) -> Iterator[Check]:
    """Whether a profile has its image, which is what it would be if it were made now.

    Args:
        connection: in the project that holds the profile.
        found: the profile.
        images: all of ours that the daemon has, each with its project.
    """
    owner = f"{connection.project}/{found['name']}"
    subject = f"{connection.label} {found['name']}"
    again = f"run {remake(connection, found)}"
    mine = [pair for pair in images if pair[1]["properties"][image.OWNER] == owner]
    if not mine:
        cause = f"profile {found['name']} has no image to launch containers from"
        yield Check("image", subject, FAIL, cause, again)
    for holder, one in mine:
        if found["name"] not in [alias["name"] for alias in one["aliases"]]:
            cause = f"no alias {found['name']} stands for {one['fingerprint'][:12]}"
            yield Check("image", holder.label, FAIL, cause, again)
        elif sorted(one["profiles"]) != sorted(["default", found["name"]]):
            cause = f"it brings the profiles {', '.join(one['profiles'])} along"
            yield Check("image", f"{holder.label} {found['name']}", FAIL, cause, again)
        else:
            yield _compare(holder, found, one, again)


def _compare(holder: Connection, found: Profile, one: dict[str, Any], again: str) -> Check:
    subject = f"{holder.label} {found['name']}"
    text = rawlxc.base(found["config"].get("raw.lxc", ""))
    try:
        base = find_base(holder, text or "", optional=True)
    except PycorError as error:
        return refused("image", subject, error)
    if not base.exists:
        return Check("image", subject, OK, "there, made before its base")
    owner = one["properties"][image.OWNER]
    if image.fingerprint(provision.image_of(base, owner)) != one["fingerprint"]:
        cause = f"{base.label} has other metadata or templates than when the image was made"
        return Check("image", subject, WARN, cause, again)
    return Check("image", subject, OK, "there, with the base's templates")


def check_raw_lxc(container: Container, ours: set[str]) -> Iterator[Check]:
    """Whether something hides the hooks that a container should have.

    Args:
        container: any.
        ours: the profiles of ours that its project has.
    """
    mine = [name for name in container.api["profiles"] if name in ours]
    origin = container.api["config"].get(f"image.{image.OWNER}", "").rpartition("/")[2]
    missing = rawlxc.missing(container.raw_lxc)
    if not (mine or origin or container.hook) or not missing:
        return
    client = "incus" if container.daemon.kind == "incus" else "lxc"
    name = container.where.name
    profiles = ", ".join(mine or [origin])
    if "raw.lxc" in container.api["config"]:
        cause = f"its own raw.lxc hides the hooks of profile {profiles} ({', '.join(missing)})"
        remedy = f"add the profile's lines to it, or {client} config unset {name} raw.lxc"
    elif mine:
        cause = f"raw.lxc of a later profile replaces that of profile {profiles}"
        remedy = f"put its lines into profile {profiles}, and that last"
    else:
        cause = f"it was made for profile {profiles}, which it does not have"
        remedy = f"{client} profile add {name} {profiles}"
    yield Check("raw.lxc", container.label, FAIL, cause, remedy + container.where.flag)


def profiles_of(house: House) -> dict[str, list[Profile]]:
    """The profiles of ours, by the project that holds them."""
    return {each.project: uninstall.our_profiles(each) for each in house.connections}


def names_for(container: Container, house: House, mine: dict[str, list[Profile]]) -> set[str]:
    """The profiles of ours that a container's project can use."""
    where = {each.project: each for each in house.connections}[container.where.project]
    return {found["name"] for found in mine[where.holder("features.profiles")]}


def remake(connection: Connection, found: Profile) -> str:
    """The command that makes profile and image as they should be."""
    raw_lxc = found["config"].get("raw.lxc", "")
    ours, base = rawlxc.pre_start(raw_lxc), rawlxc.base(raw_lxc)
    words = ["pycor-hooks", "profile", "--name", found["name"], "--base", base or "BASE"]
    if ours and ours.prefix != DEFAULT_PREFIX:
        words += ["--prefix", ours.prefix]
    if connection.project != "default":
        words += ["--project", connection.project]
    return " ".join(words)
