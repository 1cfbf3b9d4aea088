# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of one LXD or Incus daemon, in one project, over its unix socket.

A thin layer on pylxd's untyped tree (`Client.api`): its models know LXD's attributes only and warn
about those of Incus, while the REST API is the same for all that is done here.
Errors of pylxd and requests leave this module as ours.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import pylxd
import requests
from pylxd.client import get_session_for_url
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException, NotFound

from pycor_hooks import sockets
from pycor_hooks.host_errors import DaemonRefused, NoProject, NotThere, Unreachable
from pycor_hooks.instance import flag_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycor_hooks.sockets import Daemon

RUNNING = 103
"""The status of an operation that has not ended (doc/rest-api.md of LXD)."""
ANSWER = 30.0
"""Seconds that a daemon has for an answer."""
CHANGE = 600.0
"""Seconds that it has for what takes time: to unpack an image, or to delete one."""
CLIENTS = {"lxd": "lxc", "incus": "incus"}


class Connection:
    """A daemon's API as one project sees it.

    `daemon` and `project` are what it was made for, `server` is the answer to GET /1.0,
    `config` the configuration of the project.
    """

    def __init__(self, daemon: Daemon, project: str = "default", *, session: Any = None) -> None:
        """Connect; closed by ``with``.

        Args:
            daemon: whose API.
            project: by which it is seen.
            session: that of a connection to the same daemon; None for a new one.

        Raises:
            Unreachable: nobody answers, or we may not connect.
            NoProject: the daemon has no such project.
        """
        self.daemon = daemon
        self.project = project
        _knock(daemon)
        endpoint = "http+unix://" + quote(daemon.socket, safe="")
        self._session = session or get_session_for_url(endpoint)
        try:
            with self._answers("connect"):
                self._client = pylxd.Client(
                    endpoint, project=project, session=self._session, timeout=ANSWER
                )
            self.server: dict[str, Any] = self._client.host_info
            self.config = self._find_project()["config"]
        except BaseException:
            if not session:
                self._session.close()
            raise

    def _find_project(self) -> dict[str, Any]:
        found: dict[str, Any] | None = self.find("projects", self.project)
        if found is None:
            raise NoProject(directory=self.daemon.directory, project=self.project)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def command(self) -> str:
        """The client for people: `lxc` or `incus`."""
        return CLIENTS[self.daemon.kind]

    @property
    def label(self) -> str:
        """The daemon and, where it is not the default one, the project, for people."""
        project = "" if self.project == "default" else f" project {self.project}"
        return f"{self.daemon.directory}{project}"

    @classmethod
    def to_running(cls, daemon: Daemon, project: str = "default") -> Self:
        """Connect, unless that would start the daemon: its socket may be systemd's.

        Raises:
            Unreachable: it does not run.
            OSError: that cannot be told.
        """
        if not sockets.is_listening(daemon):
            reason = "it is not running"
            raise Unreachable(kind=daemon.kind, directory=daemon.directory, reason=reason)
        return cls(daemon, project)

    @property
    def flag(self) -> str:
        """What to append to a command for people, so that it means this project."""
        return flag_of(self.project)

    def holder(self, feature: str) -> str:
        """The project that holds what this one uses: itself, or the default one.

        Args:
            feature: such as "features.profiles".
        """
        own = self.project == "default" or self.config.get(feature) == "true"
        return self.project if own else "default"

    def in_project(self, project: str) -> Connection:
        """The same daemon as another project sees it, open as long as this connection is."""
        if project == self.project:
            return self
        return Connection(self.daemon, project, session=self._session)

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

    def begin(self, *path: str, json: Any) -> tuple[str, Any]:
        """POST what begins an operation; its id, and what the daemon says of it."""
        with self._answers("change", *path):
            body = self._node(*path).post(json=json).json()
            return _operation(body), body["metadata"]["metadata"]

    def end(self, operation: str, timeout: int) -> tuple[Any, str]:
        """What came of an operation, which has some seconds to end, and why it failed if it did.

        Raises:
            TimeoutError: it has not ended.
        """
        path = ("operations", operation, "wait")
        with self._answers("show", *path):
            try:
                answer = self._node(*path).get(
                    params={"timeout": str(timeout)}, timeout=timeout + ANSWER
                )
                done = answer.json()["metadata"]
            except LXDAPIException as error:  # so Incus tells of one that failed
                return None, str(error)
        if done["status_code"] == RUNNING:
            raise TimeoutError
        return done["metadata"], done["err"]

    def _change(self, verb: str, *path: str, **arguments: Any) -> Any:
        with self._answers("change", *path):
            body = getattr(self._node(*path), verb)(**arguments).json()
            if body.get("type") != "async":
                return body.get("metadata")
            waiting = self._node("operations", _operation(body), "wait")
            done = waiting.get(timeout=CHANGE).json()["metadata"]
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
                kind=self.daemon.kind, directory=self.daemon.directory, reason=error
            ) from error


def _operation(body: Any) -> str:
    """The id of the operation that an answer speaks of."""
    return urlsplit(str(body["operation"])).path.rpartition("/")[2]


def _knock(daemon: Daemon) -> None:
    """Connect once by ourselves: pylxd buries the errno, and leaves its socket open."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        try:
            knocking.connect(daemon.socket)
        except OSError as error:
            raise Unreachable(
                kind=daemon.kind, directory=daemon.directory, reason=error.strerror or error
            ) from error
