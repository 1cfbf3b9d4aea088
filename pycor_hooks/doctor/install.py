# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed hooks: safe, whole, of this version, byte-compiled, and good for a start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pycor_hooks import intact, prefix, tree
from pycor_hooks.doctor import rehearsal, scratch
from pycor_hooks.doctor.check import FAIL, OK, WARN, Check, names, refused
from pycor_hooks.errors import PycorError
from pycor_hooks.host_errors import NoHooks, UnsafePrefix

if TYPE_CHECKING:
    from collections.abc import Iterator


def check(path: str, place: str) -> Iterator[Check]:
    """Look at the hooks of one prefix, and start and stop a made-up container with them.

    Args:
        path: the prefix.
        place: a directory where only root can write, on a file system that can be an upper.
    """
    try:
        tag = tree.ask_python()
    except PycorError as error:
        yield refused("python", tree.PYTHON, error)
        return
    yield Check("python", tree.PYTHON, OK, f"runs the hooks ({tag})")
    if not tree.current(path):
        yield refused("hooks", path, NoHooks(prefix=path))
        return
    yield check_safe(path)
    yield check_version(path, tag)
    yield check_compiled(path)
    with scratch.directory(place) as directory:
        yield from scratch.apart(lambda: [rehearsal.check(path, directory)])


def check_safe(path: str) -> Check:
    """Whether root alone can change what root runs at each start of a container."""
    name = "hooks are root's"
    try:
        prefix.check(path)
    except UnsafePrefix as error:
        why = vars(error)
        cause = f"{why['path']} {why['reason']}, and liblxc runs the hooks as root"
        return Check(name, path, FAIL, cause, why["remedy"])
    found = intact.unsafe(_version(path))
    if found:
        remedy = f"find out who changed it, then run {_anew(path)}"
        return Check(name, path, FAIL, f"{found}, and liblxc runs it as root", remedy)
    return Check(name, path, OK, "nobody else can change them, or a directory above them")


def check_version(path: str, tag: str) -> Check:
    """Whether they are those of this command, and as they were installed."""
    current = str(tree.current(path))
    if intact.altered(_version(path), tag):
        cause = f"{current} is not what was installed, or was for another Python than {tag}"
        return Check("version", path, FAIL, cause, f"run {_anew(path)}")
    wanted = tree.name_of(tree.shipped(), tag)
    if current != wanted:
        cause = f"the hooks are {current}, those of this command {wanted}"
        return Check("version", path, WARN, cause, f"run {_anew(path)}")
    return Check("version", path, OK, f"{current}, as this command")


def check_compiled(path: str) -> Check:
    """Whether the Python that runs them finds byte code that it takes as it is."""
    missing = [os.path.basename(module) for module in intact.not_compiled(_version(path))]
    if missing:
        cause = f"{names(missing)} are compiled anew at each start of a container"
        return Check("byte code", path, WARN, cause, f"run {_anew(path)}")
    return Check("byte code", path, OK, f"there for {tree.PYTHON}")


def _version(path: str) -> str:
    """The directory of the version in use."""
    return os.path.join(path, str(tree.current(path)))


def _anew(path: str) -> str:
    return f"pycor-hooks install --prefix {path} (and the --base, --daemon that it had)"
