# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon holds besides instances, to tell whether a command changed anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.client import Client

OF_A_PROJECT = ("profiles", "images", "images/aliases")
OF_THE_DAEMON = ("projects", "networks", "storage-pools")
# Who uses it is no change of a thing, nor is the time of its last use, which is noted late; an
# image's aliases are listed by themselves.
PASSING = {"used_by", "last_used_at", "aliases"}


def held(client: Client) -> list[tuple[str, str, dict[str, Any]]]:
    """Project, kind and description of each thing, in an order that is always the same."""
    projects = [row["name"] for row in client.query("/1.0/projects", recursion="1")]
    rows = [
        (project, kind, {key: value for key, value in row.items() if key not in PASSING})
        for project in projects
        for kind in (*OF_A_PROJECT, *(OF_THE_DAEMON if project == "default" else ()))
        for row in client.in_project(project).query(f"/1.0/{kind}", recursion="1")
    ]
    return sorted(rows, key=str)


def names(client: Client, kind: str) -> set[str]:
    """The names of a project's profiles, or the fingerprints of its images."""
    rows = client.query(f"/1.0/{kind}", recursion="1")
    return {row.get("fingerprint") or row["name"] for row in rows}
