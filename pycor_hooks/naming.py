# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles that still name a base which was renamed or deleted: said in the log, once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pycor_hooks import api
from pycor_hooks.logs import about
from pycor_hooks.news import News
from pycor_hooks.plan import profiles_naming

if TYPE_CHECKING:
    import asyncio

    from pycor_hooks.plan import Base, Look
    from pycor_hooks.sockets import Daemon

log = logging.getLogger(__name__)


class LostNames:
    """What is said of names that are gone, until an instance has them again.

    Args:
        group: where the daemon is asked.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._said: dict[Base, tuple[Daemon, str]] = {}
        self._news = News()

    def heard(self, daemon: Daemon, look: Look) -> None:
        """Take note of what a daemon says of a base's name; :meth:`seen` acts on it."""
        self._said[look.base] = daemon, look.why

    def seen(self, base: Base, *, exists: bool) -> None:
        """Ask which profiles name a base, if its name is gone as was said, unless that was told.

        Args:
            base: as it was looked at after that.
            exists: whether it has a rootfs.
        """
        said = self._said.pop(base, None)
        if exists:
            self._news.is_new(base, "")
        elif said and self._news.is_new(base, said[1]):
            self._group.create_task(_name_profiles(base, *said))


async def _name_profiles(base: Base, daemon: Daemon, why: str) -> None:
    try:
        named = profiles_naming(base, await api.profiles(daemon))
    except (*api.NO_ANSWER, OSError) as error:
        text = f"cannot tell which profiles name it: {error}"
    else:
        text = f"correct raw.lxc of the profiles that name it: {', '.join(named) or 'none'}"
    log.warning("%s: %s; %s", base, why, text, extra=about(daemon.directory, base))
