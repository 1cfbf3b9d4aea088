# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watcher's log says once, and again only when it has changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pycor_hooks.logs import about_overlay
from pycor_hooks.plan import name_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from pycor_hooks.record import Record

log = logging.getLogger(__name__)


class News:
    """What was last said about each subject."""

    def __init__(self) -> None:
        self._last: dict[Hashable, str] = {}

    def is_new(self, subject: Hashable, text: str) -> bool:
        """Take note of what is said now; "" where there is nothing to be said any more."""
        before = self._last.pop(subject, "")
        if text:
            self._last[subject] = text
        return text not in {"", before}

    def keep(self, subjects: Iterable[Hashable]) -> None:
        """Forget all others."""
        self._last = {each: self._last[each] for each in subjects if each in self._last}


class OverlayNews:
    """What is wrong with the overlays, in each regard that there is."""

    def __init__(self) -> None:
        self._news: dict[str, News] = {}

    def tell(self, found: Record, regard: str, text: str, *, level: int = logging.WARNING) -> None:
        """Log it, unless that was last said about this overlay in this regard; "" for all well."""
        if self._news.setdefault(regard, News()).is_new(_subject(found), text):
            log.log(level, "%s: %s", name_of(found), text, extra=about_overlay(found))

    def keep(self, records: Iterable[Record]) -> None:
        """Forget all other overlays."""
        subjects = {_subject(found) for found in records}
        for news in self._news.values():
            news.keep(subjects)


def _subject(found: Record) -> Hashable:
    return found.directory, found.monitor_start
