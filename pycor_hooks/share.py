# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that come with the package and are not Python: hooks, profiles, the systemd unit."""

from __future__ import annotations

import os

PACKAGE = os.path.dirname(os.path.abspath(__file__))


def path_of(name: str) -> str:
    """Where a shipped file or directory lies.

    Args:
        name: relative, such as ``hooks`` or ``systemd/pycor-hooks-watch.service``.

    Returns:
        Its path in the installed package, or beside the package in a clone.
    """
    shipped = os.path.join(PACKAGE, "share", name)
    return shipped if os.path.exists(shipped) else os.path.join(os.path.dirname(PACKAGE), name)


def text_of(name: str) -> str:
    """The content of a shipped file."""
    with open(path_of(name), encoding="utf-8") as file:
        return file.read()
