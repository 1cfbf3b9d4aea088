# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a container could not be converged: the file ``stale`` beside the record of its overlay.

It is there as long as there is something in it, and goes with the overlay. JSON::

    {"generation": 7, "paths": [{"path": "/etc/hosts", "reason": "mounted"}]}
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.staleness import Reason
from pycor_hooks.takedown import STALE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycor_hooks.record import Record

_WORDS = {reason.word: reason for reason in Reason}


class Uncured(NamedTuple):
    """A path that is stale, from the container's root, and why; "/" where all of them may be."""

    path: str
    reason: Reason


class Stale(NamedTuple):
    """What one container has left.

    `generation`: of the base, that it does not see as it is; None where that is not known.
    """

    generation: int | None
    paths: list[Uncured]


def read(record: Record) -> Stale | None:
    """What is stale in a container, None where nothing is known to be.

    Raises:
        ValueError: the file is not one of ours.
    """
    try:
        with open(f"{record.directory}/{STALE}", encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError:
        return None
    try:
        paths = [Uncured(row["path"], _WORDS[row["reason"]]) for row in data["paths"]]
        return Stale(data["generation"], paths)
    except (LookupError, TypeError) as error:
        raise ValueError(f"{record.directory}/{STALE}: {error!r}") from error


def write(record: Record, generation: int | None, uncured: Iterable[Uncured]) -> None:
    """Replace the file, whole or not at all; remove it where nothing is stale.

    The caller holds the lock of the overlay.
    """
    path = f"{record.directory}/{STALE}"
    rows = [{"path": one.path, "reason": one.reason.word} for one in uncured]
    if not rows:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    new = f"{record.directory}/.{STALE}"
    with open(new, "w", encoding="utf-8") as file:
        json.dump({"generation": generation, "paths": rows}, file)
    os.rename(new, path)
