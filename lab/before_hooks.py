# SPDX-License-Identifier: GPL-3.0-or-later
"""A command before hooks of a container on a daemon, such as strace(1) with a fault to inject."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.client import Instance
    from lab.overlays import Overlays


def put(overlays: Overlays, container: Instance, commands: Mapping[str, Sequence[str]]) -> None:
    """Have the container's next hooks be run by other commands.

    Args:
        overlays: whose profile the container has.
        container: its own raw.lxc replaces its profile's.
        commands: the words to put before a hook, by its name.
    """
    text = overlays.client.query(f"/1.0/profiles/{overlays.image}")["config"]["raw.lxc"]
    for name, words in commands.items():
        path = re.escape(f"{overlays.prefix}/hooks/{name}")
        # where the way leads by nsenter to the host's Python, that is the host's strace, too
        text, found = re.subn(
            rf"((?:= |-- )(?=/usr/bin/python3 \S+ {path}|{path}))", rf"\1{' '.join(words)} ", text
        )
        if found != 1:
            raise LookupError(f"{name} is {found} times in {text}")
    container.set(**{"raw.lxc": text})


def remove(container: Instance) -> None:
    """Let the container have its profile's hooks again."""
    container.client("config", "unset", container.name, "raw.lxc")
