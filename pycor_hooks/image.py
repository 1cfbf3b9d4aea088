# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of a base: an empty rootfs, and what makes a container a being of its own.

A container that is launched from it gets the profiles `default` and the base's, and at its first
start the base's templates, with a hostname, hosts and a machine-id that are not the base's.
No I/O: from the base's metadata to the bytes of a unified image tarball (image-format.md of either
daemon). The same input gives the same bytes, so the fingerprint tells whether anything changed.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

# The image property that says whose image this is: PROJECT/PROFILE.
OWNER = "pycor-hooks"

# When a container has a new name.
ANEW = ["create", "copy", "rename"]
HOSTS = """\
127.0.0.1\tlocalhost
127.0.1.1\t{{ container.name }}

::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
# An empty machine-id is filled in by systemd at boot (machine-id(5)), from that of D-Bus where one
# is; the base's must not stay in either, or networkd sends the same DHCP identity from every
# container. Where the base has a link at D-Bus's, libdbus makes do with an empty file.
MACHINE_ID = ("pycor-hooks-machine-id.tpl", "", ["create", "copy"])
IDENTITY = {
    "/etc/machine-id": MACHINE_ID,
    "/var/lib/dbus/machine-id": MACHINE_ID,
    "/etc/hostname": ("pycor-hooks-hostname.tpl", "{{ container.name }}\n", ANEW),
    "/etc/hosts": ("pycor-hooks-hosts.tpl", HOSTS, ANEW),
}


def metadata(
    base_metadata: Mapping[str, Any], *, architecture: str, owner: str, base: str
) -> dict[str, Any]:
    """The image's metadata.yaml.

    Args:
        base_metadata: the base's own, as the API shows it; empty for a base that does not exist.
        architecture: of the base, where its metadata does not say.
        owner: PROJECT/PROFILE.
        base: PROJECT/NAME, for the description.
    """
    templates = {
        path: {name: value for name, value in template.items() if value not in (None, {}, "")}
        for path, template in (base_metadata.get("templates") or {}).items()
    }
    for path, (file, _, when) in IDENTITY.items():
        if file == MACHINE_ID[0] or path not in templates:  # never the base's own machine-id
            templates[path] = {"when": list(when), "template": file, "create_only": False}
    properties = dict(base_metadata.get("properties") or {})
    properties |= {"description": f"A container on {base} (pycor-hooks)", OWNER: owner}
    return {
        "architecture": base_metadata.get("architecture") or architecture,
        "creation_date": base_metadata.get("creation_date") or 1,
        "properties": properties,
        "templates": templates,
    }


def template_files(image_metadata: Mapping[str, Any]) -> set[str]:
    """The template files of the base that the image needs; ours are not among them."""
    named = {template["template"] for template in image_metadata["templates"].values()}
    return named - {file for file, _, _ in IDENTITY.values()}


def tarball(image_metadata: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The image.

    Args:
        image_metadata: from :func:`metadata`.
        files: the content of each of :func:`template_files`.

    Returns:
        An uncompressed tar archive, 10 kB for most bases.
    """
    ours = {file: content.encode() for file, content, _ in IDENTITY.values()}
    used = {template["template"] for template in image_metadata["templates"].values()}
    # Block style, a key per line: the pre-start hook reads it without a YAML parser.
    text = yaml.safe_dump(dict(image_metadata), default_flow_style=False, width=10_000)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, "metadata.yaml", text.encode())
        _add(archive, "rootfs", None)
        _add(archive, "templates", None)
        for file, content in sorted((ours | dict(files)).items()):
            if file in used:
                _add(archive, f"templates/{file}", content)
    return buffer.getvalue()


def fingerprint(image: bytes) -> str:
    """The name that the daemons give a unified image."""
    return hashlib.sha256(image).hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: bytes | None) -> None:
    """Add a file, or a directory where there is no content; TarInfo's own owner and time are 0."""
    member = tarfile.TarInfo(name)
    member.mode = 0o755 if content is None else 0o644
    if content is None:
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    else:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
