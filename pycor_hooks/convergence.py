# SPDX-License-Identifier: GPL-3.0-or-later
"""Converging with the generations of a base: what watcher and commands call for each container."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pycor_hooks import converge, generations
from pycor_hooks.plan import Base
from pycor_hooks.staleness import File

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pycor_hooks.converge import Result
    from pycor_hooks.record import Record
    from pycor_hooks.staleness import Reason


def converge_one(found: Record, generation: int | None) -> Result | None:
    """Converge a container with its base, as :func:`pycor_hooks.converge.converge` does.

    Args:
        found: the container.
        generation: that its base is in, by its manifest; None where the base is gone.

    Raises:
        FileNotFoundError: there is no manifest.
        OSError, PycorError: as they say.
    """
    base = Base(found.daemon, found.base_project, found.base_name)

    def touched(since: int | None) -> Iterator[tuple[str, File | None]]:
        for path, entry in generations.touched_since(base, since):
            yield path, None if entry is None else File(entry.mode, entry.ino)

    return converge.converge(found, generation, touched)


def describe(reasons: Mapping[str, Reason], name: str) -> str:
    """One line about what is stale in a container and stays so; "" where nothing is."""
    if not reasons:
        return ""
    counts = Counter(reasons.values())
    texts = ", ".join(f"{count} {reason.word}" for reason, count in counts.most_common())
    paths = "path stays" if len(reasons) == 1 else "paths stay"
    reason, _ = counts.most_common(1)[0]
    return f"{len(reasons)} {paths} stale ({texts}): {reason.text}; {reason.remedy(name)}"
