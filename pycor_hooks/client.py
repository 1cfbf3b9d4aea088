# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of one LXD or Incus daemon, in one project, over its unix socket.

A thin layer on pylxd's untyped tree (`Client.api`): its models know LXD's attributes only and warn
about those of Incus, while the REST API is the same for all that is done here.
Errors of pylxd and requests leave this module as ours.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pylxd
import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException, NotFound

from pycor_hooks.host_errors import DaemonRefused, NoProject, NotThere, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.sockets import Daemon

CLIENTS = {"lxd": "lxc", "incus": "incus"}


class Connection:
    """A daemon's API as one project sees it.

    `daemon` and `project` are what it was made for, `server` is the answer to GET /1.0,
    `config` the configuration of the project.
    """

    def __init__(self, daemon: Daemon, project: str = "default") -> None:
        """Connect.

        Raises:
            Unreachable: nobody answers, or we may not connect.
            NoProject: the daemon has no such project.
        """
        self.daemon = daemon
        self.project = project
        endpoint = "http+unix://" + quote(daemon.socket, safe="")
        with self._answers("connect"):
            self._client = pylxd.Client(endpoint=endpoint, project=project)
        self.server: dict[str, Any] = self._client.host_info
        found = self.find("projects", project)
        if found is None:
            raise NoProject(directory=daemon.directory, project=project)
        self.config: dict[str, str] = found["config"]

    @property
    def command(self) -> str:
        """The client for people: `lxc` or `incus`."""
        return CLIENTS[self.daemon.kind]

    @property
    def label(self) -> str:
        """The daemon and, where it is not the default one, the project, for people."""
        project = "" if self.project == "default" else f" project {self.project}"
        return f"{self.daemon.directory}{project}"

    @property
    def flag(self) -> str:
        """What to append to a command for people, so that it means this project."""
        return "" if self.project == "default" else f" --project {self.project}"

    def holder(self, feature: str) -> str:
        """The project that holds what this one uses: itself, or the default one.

        Args:
            feature: such as "features.profiles".
        """
        own = self.project == "default" or self.config.get(feature) == "true"
        return self.project if own else "default"

    def in_project(self, project: str) -> Connection:
        """The same daemon as another project sees it."""
        return self if project == self.project else Connection(self.daemon, project)

    def get(self, *path: str, **params: str) -> Any:
        """GET /1.0/PATH.

        Args:
            path: segments, each as it is named, without escapes.
            params: of the query.

        Raises:
            NotThere: there is no such thing.
            DaemonRefused: the daemon says why not.
        """
        with self._answers("show", *path):
            return self._node(*path).get(params=params).json()["metadata"]

    def find(self, *path: str) -> Any:
        """As :meth:`get`, None where there is no such thing."""
        try:
            return self.get(*path)
        except NotThere:
            return None

    def read(self, *path: str, **params: str) -> bytes:
        """GET a file instead of JSON."""
        with self._answers("read", *path):
            content: bytes = self._node(*path).get(params=params, is_api=False).content
        return content

    def post(self, *path: str, json: Any = None, data: bytes | None = None) -> Any:
        """POST, and wait for the operation that it begins, if it begins one."""
        return self._change("post", *path, json=json, data=data)

    def put(self, *path: str, json: Any) -> Any:
        """PUT: replace all of it."""
        return self._change("put", *path, json=json)

    def patch(self, *path: str, json: Any) -> Any:
        """PATCH: change what is given."""
        return self._change("patch", *path, json=json)

    def delete(self, *path: str) -> Any:
        """DELETE."""
        return self._change("delete", *path)

    def _change(self, verb: str, *path: str, **arguments: Any) -> Any:
        with self._answers("change", *path):
            body = getattr(self._node(*path), verb)(**arguments).json()
            if body.get("type") != "async":
                return body.get("metadata")
            operation = urlsplit(body["operation"]).path.rpartition("/")[2]
            done = self._node("operations", operation, "wait").get().json()["metadata"]
        if done["err"]:
            raise DaemonRefused(**self._said("change", path, done["err"]))
        return done["metadata"]

    def _node(self, *path: str) -> Any:
        node = self._client.api
        for segment in path:
            node = node[quote(segment, safe="")]
        return node

    def _said(self, verb: str, path: tuple[str, ...], reason: object) -> dict[str, object]:
        action = " ".join((verb, "/".join(path))).strip()
        return {"directory": self.daemon.directory, "action": action, "reason": reason}

    @contextmanager
    def _answers(self, verb: str, *path: str) -> Iterator[None]:
        try:
            yield
        except NotFound as error:
            raise NotThere(**self._said(verb, path, error)) from error
        except LXDAPIException as error:
            raise DaemonRefused(**self._said(verb, path, error)) from error
        except (ClientConnectionFailed, requests.RequestException) as error:
            raise Unreachable(
                kind=self.daemon.kind, directory=self.daemon.directory, reason=_cause(error)
            ) from error


def _cause(error: BaseException) -> str:
    """The errno below the layers of requests and urllib3, in words; else their own."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno is not None:
            return os.strerror(link.errno)
        link = link.__cause__ or link.__context__
    return str(error)
