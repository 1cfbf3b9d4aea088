# SPDX-License-Identifier: GPL-3.0-or-later
"""What dpkg's database in a tree says: which packages there are, and which file is whose.

Read as text, with nothing of the tree run (dpkg-query(1); deb822(5) for the status file). A tree
without dpkg has no packages.
"""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING

from pycor_hooks import kernel, regular

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

STATUS = "var/lib/dpkg/status"
LISTS = "var/lib/dpkg/info"
_LIST = ".list"
_FIELDS = frozenset(("Package", "Status", "Version"))
_LINE_LIMIT = 4096
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def installed(root: int) -> Iterator[tuple[str, str]]:
    """The installed packages of a tree, each with its version, as they come.

    Args:
        root: descriptor of its root directory.
    """
    try:
        file = regular.opened(root, STATUS)
    except OSError:
        return
    with file:
        lines = iter(lambda: file.readline(_LINE_LIMIT), b"")
        yield from parse_status(os.fsdecode(line) for line in lines)


def parse_status(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The installed packages in a status file, each with its version.

    A package of several architectures comes once for each, in one version, as dpkg demands.
    """
    fields: dict[str, str] = {}
    for line in chain(lines, ["\n"]):
        name, colon, value = line.partition(":")
        if colon and name in _FIELDS:
            fields[name] = value.strip()
        elif line == "\n":
            if fields.get("Status", "").endswith(" installed"):
                yield fields.get("Package", ""), fields.get("Version", "")
            fields = {}


def unpacked(root: int) -> set[str]:
    """The packages that some dpkg has unpacked into this very tree: it has their lists of files.

    Args:
        root: descriptor of its root directory.
    """
    return {_package_of(name) for name in _names(root, LISTS) if name.endswith(_LIST)}


def owners(root: int, paths: Collection[str]) -> dict[str, str]:
    """Whose some paths of a tree are.

    Args:
        root: descriptor of its root directory.
        paths: relative to it, without links on the way. dpkg's lists may name them by others:
            where /lib is a link to usr/lib, what is in it stands as either (merged /usr).

    Returns:
        The package of each path that has one.
    """
    found = {}
    wanted = frozenset(paths)
    links = _links(root)
    for name in _names(root, LISTS):
        if not name.endswith(_LIST):
            continue
        package = _package_of(name)
        for path in _listed(root, f"{LISTS}/{name}"):
            top, slash, rest = path.partition("/")
            real = f"{links[top]}{slash}{rest}" if top in links else path
            if real in wanted:
                found[real] = package
    return found


def _package_of(name: str) -> str:
    return name.removesuffix(_LIST).partition(":")[0]


def _listed(root: int, path: str) -> Iterator[str]:
    try:
        with regular.opened(root, path) as lines:
            for line in lines:
                yield os.fsdecode(line).strip("\n").lstrip("/")
    except OSError:
        return


def _links(root: int) -> dict[str, str]:
    """The links in the root directory, to where they lead below it."""
    found = {}
    for name in _names(root, ""):
        try:
            target = os.readlink(name, dir_fd=root)
        except OSError:
            continue
        found[name] = os.path.normpath(target.lstrip("/"))
    return found


def _names(root: int, path: str) -> list[str]:
    try:
        directory = kernel.open_beneath(root, path, _READ)
    except OSError:
        return []
    try:
        return sorted(os.listdir(directory))
    finally:
        os.close(directory)
