# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon's REST API on a real socket, as far as profiles, images and bases go.

It holds plain dictionaries that a test may fill and look at. What it answers was taken down from
LXD 5.0.2 and Incus 6.0.4; tests/daemon runs the same commands against these.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socketserver
import tarfile
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from pycor_hooks.sockets import Daemon


class Project:
    """What one project holds; `config` as the API shows it."""

    def __init__(self, **config: str) -> None:
        self.config = {"features.images": "true", "features.profiles": "true"} | config
        self.profiles: dict[str, dict[str, Any]] = {"default": profile("default")}
        self.images: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, dict[str, Any]] = {}
        self.instances: dict[str, dict[str, Any]] = {}


def profile(name: str, **config: str) -> dict[str, Any]:
    """A profile as the API shows it."""
    return {"name": name, "config": config, "devices": {}, "description": "", "used_by": []}


def instance(**changes: Any) -> dict[str, Any]:
    """A stopped container in the pool named pool, as the API shows it."""
    return {
        "type": "container",
        "architecture": "x86_64",
        "config": {},
        "expanded_config": {},
        "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": "pool"}},
        "metadata": {"architecture": "x86_64", "creation_date": 7, "templates": None},
        "templates": {},
    } | changes


class FakeApi:
    """Served with ``with``; `projects` and `pools` (name -> driver) are the test's to change.

    `changes` counts the requests that were no GET; `errors` maps the path of a request to the
    text of the error that it gets.
    """

    def __init__(self, directory: str, kind: str = "lxd") -> None:
        os.makedirs(directory, exist_ok=True)
        self.daemon = Daemon(kind=kind, directory=directory)
        self.projects = {"default": Project()}
        self.pools = {"pool": "dir"}
        self.errors: dict[str, str] = {}
        self.changes = 0
        self.operations: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = _Server(self.daemon.socket, handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def default(self) -> Project:
        """The project named default."""
        return self.projects["default"]

    def holder(self, project: str, feature: str) -> Project:
        """The project that holds another's profiles or images."""
        found = self.projects[project]
        return found if found.config[f"features.{feature}"] == "true" else self.default


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    fake: FakeApi
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, verb: str) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        path = [unquote(part) for part in parts.path.split("/")[2:]]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fake.changes += verb != "GET"
        place = "/".join(path)
        if place in self.fake.errors:
            self._answer(403, {"type": "error", "error": self.fake.errors[place]})
            return
        try:
            answer = _Request(self.fake, query.get("project", "default")).answer(
                verb, path, body, query
            )
        except KeyError:
            self._answer(404, {"type": "error", "error": "not found"})
            return
        begun = isinstance(answer, dict) and answer["type"] == "async"
        self._answer(202 if begun else 200, answer)

    def _answer(self, status: int, answer: Any) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Request:
    def __init__(self, fake: FakeApi, project: str) -> None:
        self._fake = fake
        self._project = project
        self._images = fake.holder(project, "images") if project in fake.projects else Project()
        self._profiles = (
            fake.holder(project, "profiles") if project in fake.projects else Project()
        )

    def answer(self, verb: str, path: list[str], body: bytes, query: dict[str, str]) -> Any:
        if path[:1] == ["images"]:
            return self._image(verb, path[1:], body)
        if path[-2:-1] == ["metadata"]:
            return self._instances()[path[1]]["templates"][query["path"]].encode()
        found: Any = None
        if path[:1] == ["profiles"]:
            found = self._change(verb, self._profiles.profiles, path[1:], body)
        elif path[:1] == ["instances"]:
            found = self._change(verb, self._instances(), path[1:2], body)
            found = found["metadata"] if path[2:] else found
        elif path[:1] == ["operations"]:
            found = self._fake.operations[path[1]]
        elif path[:1] == ["projects"]:
            listed = {
                name: {"name": name, "config": one.config}
                for name, one in self._fake.projects.items()
            }
            found = self._change(verb, listed, path[1:], body)
        elif path[:1] == ["storage-pools"]:
            found = {"driver": self._fake.pools[path[1]]}
        else:
            found = {
                "environment": {"architectures": ["x86_64", "i686"], "server_version": "5.0.2"},
                "api_extensions": ["projects"],
            }
        return {"type": "sync", "metadata": found}

    def _instances(self) -> dict[str, dict[str, Any]]:
        return self._fake.projects[self._project].instances

    def _change(self, verb: str, store: dict[str, Any], path: list[str], body: bytes) -> Any:
        if not path:
            if verb == "GET":
                return list(store.values())
            new = json.loads(body)
            store[new["name"]] = profile(new["name"]) | new
            return None
        if verb == "DELETE":
            del store[path[0]]
            return None
        if verb == "PATCH":
            store[path[0]]["config"] |= json.loads(body)["config"]
        return store[path[0]]

    def _image(self, verb: str, path: list[str], body: bytes) -> Any:
        images, aliases = self._images.images, self._images.aliases
        if path[:1] == ["aliases"]:
            if verb in {"POST", "PUT"}:
                alias = json.loads(body)
                name = path[1] if path[1:] else alias["name"]
                aliases[name] = alias | {"name": name}
                return {"type": "sync", "metadata": None}
            return {"type": "sync", "metadata": aliases[path[1]]}
        if verb == "POST":
            return self._import(body)
        if not path:
            return {"type": "sync", "metadata": [self._show(name) for name in images]}
        found = self._show(path[0])
        if verb == "PUT":
            images[path[0]] |= json.loads(body)
        if verb == "DELETE":
            del images[path[0]]
            self._images.aliases = {
                name: alias for name, alias in aliases.items() if alias["target"] != path[0]
            }
        return {"type": "sync", "metadata": found}

    def _show(self, fingerprint: str) -> dict[str, Any]:
        names = [a for a in self._images.aliases.values() if a["target"] == fingerprint]
        shown = self._images.images[fingerprint] | {"aliases": names}
        return {key: value for key, value in shown.items() if key != "content"}

    def _import(self, body: bytes) -> Any:
        fingerprint = hashlib.sha256(body).hexdigest()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            metadata = archive.extractfile("metadata.yaml")
            assert metadata is not None
            properties = yaml.safe_load(metadata.read())["properties"]
        error = "Image with same fingerprint already exists"
        known = fingerprint in self._images.images
        if not known:
            self._images.images[fingerprint] = {
                "fingerprint": fingerprint,
                "public": False,
                "auto_update": False,
                "properties": properties,
                "profiles": ["default"],
                "content": body,
            }
        name = f"import-{len(self._fake.operations)}"
        self._fake.operations[name] = {
            "err": error if known else "",
            "metadata": {"fingerprint": fingerprint},
        }
        return {"type": "async", "operation": f"/1.0/operations/{name}"}
