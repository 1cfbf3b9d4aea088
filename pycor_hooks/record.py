# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of one overlay: what the mount table cannot tell, in one state file.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import os

from pycor_hooks import mountinfo
from pycor_hooks.errors import BadState

RUN = "/run/pycor-hooks"
STATE_VERSION = "1"

_TEXT = ("daemon", "project", "name", "base_project", "base_name", "upperdir", "workdir")
_MORE_TEXT = ("rootfs", "lower_identity")
_YEAR_10000 = 253402300800
_NUMBERS = ("monitor", "monitor_start", "init", "init_start")
_LATER = ("namespace", "converged", "restart", "lowerdirs", "refreshed_at", "started_at")


class Record:
    """The state file of one overlay.

    Attributes:
        daemon: the daemon's directory, such as ``/var/lib/lxd``.
        project, name: the container.
        base_project, base_name: the instance whose rootfs is the lowerdir.
        lowerdirs: their real paths, the uppermost first.
        upperdir, workdir: their real paths, in the container's volume.
        rootfs: where the overlay is bound while the container starts.
        lower_identity: of the base's rootfs, see :func:`pycor_hooks.instance.identity_of`.
        monitor, monitor_start: pid and start time (clock ticks since boot) of [lxc monitor].
        namespace: its mount namespace, 0 for the host's; see :mod:`pycor_hooks.namespaces`.
        init, init_start: the same of the container's init, 0 until start-host has run.
        converged: the generation of the base of which nothing older is left in this overlay;
            None where that is not known.
        restart: whether its units are to be restarted by the watcher, for what that has seen.
        started_at: seconds since the epoch.
        refreshed_at: the same; the mtime of the state file, 0 before there is one.
    """

    __slots__ = (*_TEXT, *_MORE_TEXT, *_NUMBERS, *_LATER)

    daemon: str
    project: str
    name: str
    base_project: str
    base_name: str
    upperdir: str
    workdir: str
    rootfs: str
    lower_identity: str
    monitor: int
    monitor_start: int
    namespace: int
    init: int
    init_start: int
    converged: int | None
    restart: bool
    lowerdirs: list[str]
    started_at: float
    refreshed_at: float

    def __init__(self, **values: str | float | list[str] | None) -> None:
        self.converged = None
        self.namespace = 0
        self.restart = False
        self.refreshed_at = 0.0
        for attribute, value in values.items():
            setattr(self, attribute, value)

    @property
    def key(self) -> str:
        """The container's name as liblxc knows it."""
        return key_of(self.project, self.name)

    @property
    def base_key(self) -> str:
        """The base's name as liblxc knows it."""
        return key_of(self.base_project, self.base_name)

    @property
    def directory(self) -> str:
        """The directory of this overlay below RUN."""
        return directory_of(self.daemon, self.key)

    @property
    def merged(self) -> str:
        """The overlay's mount point on the host."""
        return f"{self.directory}/merged"

    @property
    def state_path(self) -> str:
        """The file that holds this record."""
        return f"{self.directory}/state"

    def write(self) -> None:
        """Replace the state file, whole or not at all."""
        lines = [f"VERSION={STATE_VERSION}"]
        lines += [
            f"{attribute.upper()}={_escape_value(str(getattr(self, attribute)))}"
            for attribute in (*_TEXT, *_MORE_TEXT, *_NUMBERS, "namespace", "started_at")
        ]
        if self.converged is not None:
            lines.append(f"CONVERGED={self.converged}")
        if self.restart:
            lines.append("RESTART=1")
        lines += [f"LOWERDIR={_escape_value(path)}" for path in self.lowerdirs]
        temporary = f"{self.directory}/.state"
        with open(temporary, "wb") as file:
            file.write(os.fsencode("\n".join(lines) + "\n"))
        if self.refreshed_at:
            os.utime(temporary, (self.refreshed_at, self.refreshed_at))
        os.rename(temporary, self.state_path)


def read(directory: str) -> Record:
    """Read a record.

    Args:
        directory: the overlay's directory below RUN.

    Raises:
        FileNotFoundError: there is no state file.
        BadState: the file is not one of ours, or of a version that is not known.
    """
    path = f"{directory}/state"
    with open(path, "rb") as file:
        text = os.fsdecode(file.read())
        refreshed_at = os.fstat(file.fileno()).st_mtime
    values: dict[str, str] = {}
    lowerdirs = []
    for line in text.splitlines():
        attribute, _, value = line.partition("=")
        if attribute == "LOWERDIR":
            lowerdirs.append(mountinfo.unescape(value))
        else:
            values[attribute] = mountinfo.unescape(value)
    if values.get("VERSION") != STATE_VERSION:
        raise BadState(path=path, reason=f"VERSION is {values.get('VERSION')!r}")
    try:
        record = Record(
            **{attribute: values[attribute.upper()] for attribute in (*_TEXT, *_MORE_TEXT)},
            **{attribute: int(values[attribute.upper()]) for attribute in _NUMBERS},
            namespace=int(values.get("NAMESPACE", 0)),  # a state file of before does not say
            converged=int(values["CONVERGED"]) if "CONVERGED" in values else None,
            restart="RESTART" in values,
            lowerdirs=lowerdirs,
            started_at=_seconds(values["STARTED_AT"]),
            refreshed_at=refreshed_at,
        )
    except (KeyError, ValueError) as error:
        raise BadState(path=path, reason=f"{type(error).__name__} {error}") from error
    if record.directory != directory:
        raise BadState(path=path, reason=f"it belongs into {record.directory}")
    return record


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < _YEAR_10000:
        raise ValueError(text)
    return seconds


def key_of(project: str, name: str) -> str:
    """The name that the daemons give liblxc: the project before it, but for the default one."""
    return name if project == "default" else f"{project}_{name}"


def split_key(key: str) -> tuple[str, str]:
    """Project and name; a name has no underscore, a project may have."""
    project, _, name = key.rpartition("_")
    return project or "default", name


def directory_of(daemon: str, key: str) -> str:
    """The directory of one overlay below RUN."""
    return f"{RUN}/{escape(daemon)}/{key}"


def escape(path: str) -> str:
    """Write a directory as one file name, as ``systemd-escape --path`` does."""
    return "".join(
        "-" if character == "/" else _escape_character(character, position)
        for position, character in enumerate(path.strip("/"))
    )


def _escape_character(character: str, position: int) -> str:
    plain = character.isascii() and (character.isalnum() or character in ":_.")
    if plain and not (character == "." and position == 0):
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def unescape(name: str) -> str:
    """Undo :func:`escape`; what it does not write stays as it is."""
    raw, *parts = os.fsencode(name.replace("-", "/")).split(b"\\x")
    for part in parts:
        digits = part[:2]
        if len(digits) == 2 and not digits.strip(b"0123456789abcdef"):  # noqa: PLR2004
            raw += bytes([int(digits, 16)]) + part[2:]
        else:
            raw += b"\\x" + part
    return "/" + os.fsdecode(raw)


def _escape_value(value: str) -> str:
    """Keep a value on one line: backslash and line ends become octal, as in the mount table."""
    if value.isprintable() and "\\" not in value:
        return value
    return "".join(c if c.isprintable() and c != "\\" else _octal(c) for c in value)


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
