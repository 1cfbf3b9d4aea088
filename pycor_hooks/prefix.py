# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory that the hooks are installed in: only root may be able to change what is there."""

from __future__ import annotations

import os
import re
import stat

from pycor_hooks.host_errors import BadPrefix, UnsafePrefix

DEFAULT = "/usr/local/lib/pycor-hooks"

# liblxc hands the path of a hook to a shell.
_PLAIN = re.compile(r"(/[A-Za-z0-9._+@-]+)+", re.ASCII)


def plain(prefix: str) -> str:
    """Give back the prefix, normalised, if it can stand in raw.lxc.

    Raises:
        BadPrefix: it cannot.
    """
    path = os.path.normpath(prefix)
    if not _PLAIN.fullmatch(path):
        raise BadPrefix(
            prefix=prefix, reason="write an absolute path of letters, digits and . _ + @ -"
        )
    return path


def check(prefix: str, *, owner: int = 0) -> str:
    """Give back the prefix, normalised, if what is put there is safe.

    Args:
        prefix: an absolute path; it need not exist.
        owner: the user whom every directory on the way must belong to.

    Raises:
        BadPrefix: it is no path that can stand in raw.lxc.
        UnsafePrefix: somebody else could put other hooks there.
    """
    path = plain(prefix)
    for directory in _ancestors(path):
        try:
            found = os.lstat(directory)
        except FileNotFoundError:
            break
        _check_directory(path, directory, found, owner)
    return path


def changeable(path: str) -> str:
    """Say why somebody besides root could change what is at a path; "" where nobody could.

    Args:
        path: an absolute path without links in it.
    """
    for directory in _ancestors(path):
        weakness = _weakness(directory, os.lstat(directory), 0, is_last=directory == path)
        if weakness:
            return f"{directory} {weakness[0]}"
    return ""


def _ancestors(path: str) -> list[str]:
    """/, /usr, /usr/local and so on, down to the path itself."""
    parts = path.split("/")[1:]
    return ["/", *("/" + "/".join(parts[: count + 1]) for count in range(len(parts)))]


def _check_directory(prefix: str, path: str, found: os.stat_result, owner: int) -> None:
    def unsafe(reason: str, remedy: str) -> UnsafePrefix:
        return UnsafePrefix(prefix=prefix, path=path, reason=reason, remedy=remedy)

    if not stat.S_ISDIR(found.st_mode):
        real = os.path.realpath(prefix)
        raise unsafe("is not a directory", f"give another --prefix (it leads to {real})")
    weakness = _weakness(path, found, owner, is_last=path == prefix)
    if weakness:
        raise unsafe(*weakness)


def _weakness(
    path: str, found: os.stat_result, owner: int, *, is_last: bool
) -> tuple[str, str] | None:
    """Why somebody besides root and ``owner`` could change what is at a path, and the remedy."""
    if found.st_uid not in {0, owner}:
        return f"belongs to user {found.st_uid}", f"run chown root {path}"
    # In a sticky directory others may add, but not replace what is root's (inode(7)).
    if found.st_mode & 0o022 and (is_last or not found.st_mode & stat.S_ISVTX):
        return "can be written by others", f"run chmod go-w {path}, or give another --prefix"
    return None
