# SPDX-License-Identifier: GPL-3.0-or-later
"""Profile and image of a base in one daemon: made, brought up to date, removed.

Each function says what it did as lines for people, and does nothing where nothing is to be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pycor_hooks import image, profile, rawlxc, whereabouts
from pycor_hooks.bases import Base, find_base, protect
from pycor_hooks.host_errors import ForeignImage, ForeignProfile, ProfileHasOtherBase, Restricted
from pycor_hooks.output import Note
from pycor_hooks.plan import label
from pycor_hooks.prefix import DEFAULT as DEFAULT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.client import Connection


class Wish(NamedTuple):
    """A profile called `name`, with the hooks at `prefix`, for `base` as the operator wrote it."""

    name: str
    base: str
    prefix: str


def ensure(connection: Connection, wish: Wish, *, base_optional: bool = False) -> Iterator[str]:
    """Make profile and image for a base, or bring them up to date.

    Args:
        connection: in the project whose containers will use them.
        wish: what to make.
        base_optional: where the base does not exist, make an image that knows nothing of it.

    Yields:
        What was done.

    Raises:
        PycorError: one of `host_errors`; then nothing was changed.
    """
    check_project(connection)
    base = find_base(connection, wish.base, optional=base_optional)
    existing = check_profile(connection, wish)
    owner = f"{connection.holder('features.profiles')}/{wish.name}"
    alias = check_alias(connection, wish.name, owner)
    yield from ensure_profile(connection, wish, existing)
    if base.exists or alias is None:
        yield from ensure_image(connection, wish.name, alias, image_of(base, owner))
    if base.exists:
        yield from protect(base)
    else:
        prefix = "" if wish.prefix == DEFAULT_PREFIX else f" --prefix {wish.prefix}"
        yield Note(
            f"{connection.label}: base {base.name} does not exist yet: create it, then protect it "
            f"and take over its templates: pycor-hooks profile --base {wish.base}{prefix}"
        )


def check_project(connection: Connection) -> None:
    """Raise Restricted where raw.lxc is forbidden; the daemon would say so at launch only."""
    if connection.config.get("restricted") != "true":
        return
    keys = ["restricted.containers.lowlevel"]
    if _asks_for_machines(connection):
        keys.append("restricted.virtual-machines.lowlevel")
    missing = [f"{key}=allow" for key in keys if connection.config.get(key) != "allow"]
    if missing:
        raise Restricted(
            project=connection.project, client=connection.command, settings=" ".join(missing)
        )


def _asks_for_machines(connection: Connection) -> bool:
    """Whether raw.lxc in a profile is forbidden until low-level options of VMs are allowed, too.

    So it is in LXD up to 5.21.2, and in 6.1 (lxd/project/permissions.go,
    allowUnrestrictedLowLevel; seen on 5.0.2).
    """
    if connection.daemon.kind != "lxd":
        return False
    words = str(connection.server["environment"].get("server_version", "")).split(".")
    version = [int(word) for word in words if word.isdecimal()]
    return version < [5, 21, 3] or version[:2] == [6, 1]


def check_profile(connection: Connection, wish: Wish) -> dict[str, Any] | None:
    """The profile as it is, None where there is none.

    Raises:
        ForeignProfile: somebody else made it.
        ProfileHasOtherBase: containers use it, on another base.
    """
    found: dict[str, Any] | None = connection.find("profiles", wish.name)
    if found is None:
        return None
    project = connection.holder("features.profiles")
    if not profile.is_ours(found):
        raise ForeignProfile(name=wish.name, project=project)
    other = rawlxc.base(found["config"].get("raw.lxc", ""))
    users = [
        label(user_project, user)
        for user_project, user in users_of(found)
        if other and _in_full(other, user_project) != _in_full(wish.base, user_project)
    ]
    if users:
        raise ProfileHasOtherBase(
            name=wish.name, project=project, users=", ".join(users), other=other, base=wish.base
        )
    return found


def _in_full(base: str, project: str) -> str:
    """The base that hooks find for a container in a project."""
    return base if "/" in base else f"{project}/{base}"


def users_of(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Project and name of the instances that use a profile."""
    return sorted(_name_of(url) for url in found["used_by"] if "/instances/" in url)


def _name_of(url: str) -> tuple[str, str]:
    """Read /1.0/instances/NAME?project=PROJECT."""
    parts = urlsplit(url)
    project = parse_qs(parts.query).get("project", ["default"])[0]
    return project, parts.path.rpartition("/")[2]


def check_alias(connection: Connection, name: str, owner: str) -> dict[str, Any] | None:
    """The image that the alias stands for, None where there is none.

    Raises:
        ForeignImage: it belongs to somebody else, or to a profile of ours in another project.
    """
    alias = connection.find("images", "aliases", name)
    if alias is None:
        return None
    found: dict[str, Any] = connection.get("images", alias["target"])
    holder = found["properties"].get(image.OWNER)
    if holder != owner:
        raise ForeignImage(
            name=name,
            project=connection.holder("features.images"),
            owner=f"profile {holder}" if holder else "an image that pycor-hooks did not make",
        )
    return found


def form_of(raw_lxc: str, *, apart: bool | None) -> bool:
    """Whether hook lines have to lead to the host: as it is now, where that cannot be told.

    Args:
        raw_lxc: of the profile as it is, "" where there is none.
        apart: what :func:`whereabouts.is_apart` says.
    """
    return profile.enters(raw_lxc) if apart is None else apart


def ensure_profile(
    connection: Connection, wish: Wish, existing: dict[str, Any] | None
) -> Iterator[str]:
    """Make the profile, or write our part of it anew, leaving what an operator added."""
    old = existing["config"].get("raw.lxc", "") if existing else ""
    apart = form_of(old, apart=whereabouts.is_apart(connection.daemon))
    wanted = profile.body(prefix=wish.prefix, base=wish.base, apart=apart)
    where = f"{connection.label}: profile {wish.name}"
    if existing is None:
        connection.post("profiles", json={"name": wish.name, **wanted})
        yield f"{where} created, for base {wish.base}"
        return
    raw_lxc = profile.merge(old, wanted["config"]["raw.lxc"])
    if raw_lxc != existing["config"].get("raw.lxc"):
        connection.patch("profiles", wish.name, json={"config": {"raw.lxc": raw_lxc}})
        yield f"{where} updated, for base {wish.base}"


def image_of(base: Base, owner: str) -> bytes:
    """The image for a base; `owner` is PROJECT/PROFILE."""
    metadata = image.metadata(
        base.metadata, architecture=base.architecture, owner=owner, base=base.label
    )
    files = {name: base.template(name) for name in image.template_files(metadata)}
    return image.tarball(metadata, files)


def ensure_image(
    connection: Connection, name: str, existing: dict[str, Any] | None, content: bytes
) -> Iterator[str]:
    """Import the image where its content is new, with its profiles, and point the alias at it."""
    fingerprint = image.fingerprint(content)
    where = f"{connection.label}: image {name}"
    found = connection.find("images", fingerprint)
    if found is None:
        connection.post("images", data=content)
        found = connection.get("images", fingerprint)
        yield f"{where} {'replaced' if existing else 'created'} ({len(content) // 1024} kB)"
    profiles = ["default", name]
    if sorted(found["profiles"]) != sorted(profiles):
        keep = {key: found[key] for key in ("public", "auto_update", "properties")}
        connection.put("images", fingerprint, json={**keep, "profiles": profiles})
    alias = {"target": fingerprint, "description": found["properties"]["description"]}
    if existing is None:
        connection.post("images", "aliases", json={"name": name, **alias})
    elif existing["fingerprint"] != fingerprint:
        connection.put("images", "aliases", name, json=alias)
        connection.delete("images", existing["fingerprint"])
