# SPDX-License-Identifier: GPL-3.0-or-later
"""Converging with the generations of a base: what watcher and commands share."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING

from pycor_hooks import generations
from pycor_hooks.staleness import File

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pycor_hooks.plan import Base
    from pycor_hooks.staleness import Reason

MOST = 10_000
"""Paths that are kept in memory, some 2 MB; more are read again for each container."""


class History:
    """What a base has changed since this or that generation, read once for all its containers.

    Args:
        base: its manifest is that of its tree now.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._reading = threading.Lock()
        self._known: dict[int | None, list[tuple[str, File | None]] | None] = {}

    def since(self, generation: int | None) -> Iterable[tuple[str, File | None]]:
        """Every path that may have changed, and what is there now, in the order of a manifest.

        Raises:
            FileNotFoundError: there is no manifest.
            BadState: a file is damaged.
        """
        with self._reading:
            if generation not in self._known:
                some = list(itertools.islice(self._read(generation), MOST + 1))
                self._known[generation] = some if len(some) <= MOST else None
            known = self._known[generation]
        return self._read(generation) if known is None else known

    def _read(self, generation: int | None) -> Iterator[tuple[str, File | None]]:
        for path, new, altered in generations.touched_since(self._base, generation):
            yield path, None if new is None else File(new.mode, new.ino, altered)


def describe(reasons: Mapping[str, Reason], name: str) -> str:
    """One line about what is stale in a container and stays so; "" where nothing is."""
    if not reasons:
        return ""
    counts = Counter(reasons.values())
    texts = ", ".join(f"{count} {reason.word}" for reason, count in counts.most_common())
    paths = "path stays" if len(reasons) == 1 else "paths stay"
    reason, _ = counts.most_common(1)[0]
    return f"{len(reasons)} {paths} stale ({texts}): {reason.text}; {reason.remedy(name)}"
