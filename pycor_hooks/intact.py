# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a version of the hooks is as it was installed: root's, whole, byte-compiled."""

from __future__ import annotations

import os
import stat
import subprocess

from pycor_hooks import tree

# Run by the Python that runs the hooks: whose byte code would it not take as it is (PEP 552)?
_NOT_COMPILED = """
import importlib.util as util, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        want = util.MAGIC_NUMBER + b"\\1\\0\\0\\0" + util.source_hash(file.read())
    try:
        with open(util.cache_from_source(path), "rb") as file:
            good = file.read(16) == want
    except OSError:
        good = False
    if not good:
        print(path)
"""


def is_intact(version: str, tag: str, owner: int = 0) -> bool:
    """Whether nothing has to be done about a version.

    Args:
        version: its directory.
        tag: of the Python that runs it, from :func:`tree.ask_python`.
        owner: the user, besides root, whom its files may belong to.
    """
    return not (unsafe(version, owner) or altered(version, tag) or not_compiled(version))


def unsafe(version: str, owner: int = 0) -> str:
    """Say what in it somebody else can change, and why; "" where nothing is."""
    for directory, directories, names in os.walk(version):
        for name in ("", *directories, *names):
            path = os.path.normpath(os.path.join(directory, name))
            reason = _reason(os.lstat(path), owner)
            if reason:
                return f"{path} {reason}"
    return ""


def _reason(found: os.stat_result, owner: int) -> str:
    if found.st_uid not in {0, owner}:
        return f"belongs to user {found.st_uid}"
    if stat.S_ISLNK(found.st_mode):
        return "is a symlink"
    return "can be written by others" if found.st_mode & 0o022 else ""


def altered(version: str, tag: str) -> bool:
    """Whether its files are others than its name says, or it is for another Python."""
    content = {}
    for path in _files(version):
        with open(path, "rb") as file:
            content[os.path.relpath(path, version)] = file.read()
    return tree.digest_of(content, tag) != version.rpartition("-")[2]


def not_compiled(version: str, python: str = tree.PYTHON) -> list[str]:
    """The modules that Python would compile anew at each start of a container."""
    modules = [path for path in _files(version) if path.endswith(".py")]
    command = [python, "-I", "-S", "-c", _NOT_COMPILED, *modules]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return done.stdout.splitlines()


def _files(version: str) -> list[str]:
    """Its files, byte code left out."""
    return [
        os.path.join(directory, name)
        for directory, _, names in os.walk(version)
        for name in names
        if os.path.basename(directory) != "__pycache__"
    ]
