# SPDX-License-Identifier: GPL-3.0-or-later
"""`install`: hooks, profile and image, unit. Done twice it changes nothing; newer, it upgrades."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import intact, prefix, profile, provision, systemd, tree
from pycor_hooks.client import Connection
from pycor_hooks.errors import PycorError
from pycor_hooks.host_errors import Unreachable, UnsafeProgram
from pycor_hooks.output import Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pycor_hooks.sockets import Daemon

LOCK = ".lock"


class Order(NamedTuple):
    """What to install.

    `prefix` for the hooks; `base` for profile and image; `daemons` to make these in;
    `directories` of the daemons that the operator named, empty where he left it to us;
    `unit` whether to install the systemd unit.
    """

    prefix: str
    base: str
    daemons: Sequence[Daemon]
    directories: Sequence[str]
    unit: bool


def install(order: Order) -> Iterator[str]:
    """Install, or upgrade.

    Yields:
        What was done, a line each.

    Raises:
        PycorError: what stood in the way in one place; the others were done all the same.
    """
    yield from install_hooks(order.prefix)
    yield from install_unit(order)
    failures: list[PycorError] = []
    for daemon in order.daemons:
        try:
            yield from install_in(daemon, order)
        except PycorError as error:
            failures.append(error)
    if not order.daemons:
        yield Note("no LXD or Incus found: install one, then run pycor-hooks install again")
    for failure in failures[1:]:
        yield Note(failure)
    if failures:
        raise failures[0]


def install_hooks(path: str, *, owner: int = 0) -> Iterator[str]:
    """Install the hooks' tree; keep the version before, remove those before that.

    A version that is not as it was installed is made anew.

    Args:
        path: the prefix.
        owner: of the directories above it.
    """
    path = prefix.check(path, owner=owner)
    tag = tree.ask_python()
    files = tree.shipped()
    name = tree.name_of(files, tag)
    with open_to_all():
        os.makedirs(path, 0o755, exist_ok=True)
        with alone_in(path):
            before = tree.current(path)
            whole = name in tree.versions(path) and intact.is_intact(f"{path}/{name}", tag, owner)
            if whole and before == name:
                return
            if not whole:
                tree.build(path, name, files)
            tree.switch(path, name)
            tree.remove(path, [old for old in tree.versions(path) if old not in {name, before}])
    done = "repaired" if before == name else "installed"
    after = f", after {before}" if before and before != name else ""
    yield f"hooks {done} in {path}/{name}{after}"


def install_in(daemon: Daemon, order: Order) -> Iterator[str]:
    """Make profile and image in one daemon's default project."""
    name = profile.default_name(order.base)
    wish = provision.Wish(name=name, base=order.base, prefix=order.prefix)
    try:
        with Connection(daemon) as connection:
            yield from provision.ensure(connection, wish, base_optional=True)
    except Unreachable as error:
        if order.directories:
            raise
        yield Note(f"skipped: {error}")


def install_unit(order: Order) -> Iterator[str]:
    """Install the systemd unit, where there is a systemd and the operator wants it."""
    if not order.unit:
        return
    if not systemd.is_running():
        yield Note("systemd does not run here: see to it that pycor-hooks watch is always running")
        return
    check_program()
    text = systemd.unit_text(systemd.own_command(), order.directories)
    code = max(path.stat().st_mtime for path in Path(__file__).parent.rglob("*.py"))
    yield from systemd.ensure(text, code)


def check_program() -> None:
    """Refuse to have root run what somebody else can change.

    Raises:
        UnsafeProgram: the command, its Python, or the package.
    """
    command = systemd.own_command()
    for path in (command, sys.executable, sys.prefix, os.path.dirname(__file__)):
        reason = prefix.changeable(os.path.realpath(path))
        if reason:
            raise UnsafeProgram(reason=reason, command=command)


@contextlib.contextmanager
def open_to_all() -> Iterator[None]:
    """Make directories that everybody may read, whatever the operator's umask."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def alone_in(directory: str) -> Iterator[None]:
    """Wait until no other install or uninstall works here.

    The lock is on a file that only its owner may open, and that stays until the hooks are
    removed: on the directory, which all may read, all could hold it (flock(2) asks for no right
    but to open).
    """
    path = os.path.join(directory, LOCK)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(path, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                break
        os.close(descriptor)  # whoever held it before has removed the hooks
    try:
        yield
    finally:
        os.close(descriptor)
