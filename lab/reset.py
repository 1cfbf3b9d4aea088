# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a daemon back to what it was before a case: only what was there before stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.client import Client


class Inventory:
    """What a daemon holds: instances, profiles and images of all projects; pools, projects."""

    def __init__(self, client: Client) -> None:
        """Take stock."""
        self.client = client
        self.found = self._take()

    def remove_what_came_since(self) -> None:
        """Delete everything that was not there when this was made; stop what was stopped."""
        instances = [*self._new("instances")]
        for project in {project for project, _ in instances}:
            names = [name for owner, name in instances if owner == project]
            client = self.client.in_project(project)
            running = [name for name in names if client.instance(name).status != "Stopped"]
            if running:
                client("stop", "--force", *running, check=False)  # all at once
            for name in names:
                client("config", "set", name, "security.protection.delete=false")
            client("delete", "--force", *names)
        for project, name in self._new("images"):
            self.client.in_project(project)("image", "delete", name)
        for project, name in self._new("profiles"):
            if name != "default":  # it goes with its project
                self.client.in_project(project)("profile", "delete", name)
        for _, name in self._new("projects"):
            self.client("project", "delete", name)
        for _, name in self._new("storage-pools"):
            self.client("storage", "delete", name)

    def _new(self, kind: str) -> list[tuple[str, str]]:
        return sorted(self._take()[kind] - self.found[kind])

    def _take(self) -> dict[str, set[tuple[str, str]]]:
        """(project, name) of each thing, by kind."""
        projects = self._list("projects", "default")
        found = {
            kind: {("", str(row["name"])) for row in self._list(kind, "default")}
            for kind in ("projects", "storage-pools")
        }
        for kind in ("instances", "profiles", "images"):
            found[kind] = {
                (str(project["name"]), str(row.get("fingerprint") or row["name"]))
                for project in projects
                # else it lists what the default project has
                if project["config"].get(f"features.{kind}", "true") == "true"
                for row in self._list(kind, project["name"])
            }
        return found

    def _list(self, kind: str, project: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.client.query(
            f"/1.0/{kind}", recursion="1", project=project
        )
        return rows
