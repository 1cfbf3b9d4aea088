# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount table, /proc/PID/mountinfo, as proc_pid_mountinfo(5) describes it.

Reading it costs time in proportion to all mounts of the host, so the hooks do it only where
something is wrong; status, the watcher and repair do it as a matter of course.
"""

from __future__ import annotations

import os


class Mount:
    """One line of the mount table, with the octal escapes of its fields undone."""

    __slots__ = (
        *("device", "fstype", "mount_id", "options", "parent_id"),
        *("root", "shared", "source", "target"),
    )

    def __init__(self, line: str) -> None:
        """Take a line apart.

        Args:
            line: without its newline, decoded by os.fsdecode.

        Raises:
            ValueError: where the line has not the form that the kernel writes.
        """
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        rest = after.split(" ")
        if not separator or len(fields) < 6 or len(rest) < 3:  # noqa: PLR2004 - proc(5)
            reason = f"not a line of mountinfo: {line!r}"
            raise ValueError(reason)
        self.mount_id = int(fields[0])
        self.parent_id = int(fields[1])
        self.device = fields[2]
        self.root = unescape(fields[3])
        self.target = unescape(fields[4])
        self.shared = any(field.startswith("shared:") for field in fields[6:])
        self.fstype = rest[0]
        self.source = unescape(rest[1])
        self.options = rest[2]

    def layers(self, option: str) -> list[str]:
        r"""The directories that an overlay's ``lowerdir``, ``upperdir`` or ``workdir`` names.

        The mount table shows them as they were given to mount(2), where OverlayFS wants ``\``,
        ``,`` and ``:`` escaped, with the table's own escapes on top.
        """
        for part in self.options.split(","):
            name, _, value = part.partition("=")
            if name == option:
                return split_layers(unescape(value))
        return []


def read(process: str = "thread-self") -> list[Mount]:
    """All mounts of a process's mount namespace.

    Args:
        process: a pid as text; by default the calling thread.

    Raises:
        OSError: the process is gone.
    """
    with open(f"/proc/{process}/mountinfo", "rb") as table:
        return [Mount(line) for line in os.fsdecode(table.read()).split("\n") if line]


def device_number(device: str) -> int:
    """A device as stat(2) has it, for one as the table has it: MAJOR:MINOR."""
    major, _, minor = device.partition(":")
    return os.makedev(int(major), int(minor))


def unescape(field: str) -> str:
    r"""Undo escapes such as ``\040``, by which the kernel writes space, newline and backslash.

    Args:
        field: decoded by os.fsdecode; a backslash that begins no such escape stays.
    """
    if "\\" not in field:
        return field
    raw, *parts = os.fsencode(field).split(b"\\")
    for part in parts:
        octal = part[:3]
        if len(octal) == 3 and octal <= b"377" and not octal.strip(b"01234567"):  # noqa: PLR2004
            raw += bytes([int(octal, 8)]) + part[3:]
        else:
            raw += b"\\" + part
    return os.fsdecode(raw)


def split_layers(value: str) -> list[str]:
    """Split a ``lowerdir=`` value at the colons that no backslash escapes; undo the escapes."""
    parts = [""]
    escaped = False
    for character in value:
        if escaped or character not in "\\:":
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append("")
    return parts


def escape_layer(path: str) -> str:
    """Write a path so that it can stand in an overlay's ``lowerdir=`` or ``upperdir=``."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
