# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring running containers to the new code: some at a time, and no further when one gets worse.

Where nothing could be done in one, the others are none the worse for it.

Run by the watcher as ``python -m pycor_hooks.rollout DIRECTORY…``, so that it need not hold what
that takes.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from pycor_hooks import record
from pycor_hooks.errors import BadState
from pycor_hooks.output import Note
from pycor_hooks.plan import name_of
from pycor_hooks.renewal import Outcome, renew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from pycor_hooks.record import Record


def roll_out(
    records: Sequence[Record], serial: int, one: Callable[[Record], Outcome]
) -> Iterator[Outcome]:
    """Do something to containers, so many at a time, until one is in trouble that it brought.

    Yields:
        What became of each, as it ends; those that are missing in the end were not begun.
    """
    waiting = deque(records)
    working: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(serial) as pool:
        while waiting or working:
            while waiting and len(working) < serial:
                working.add(pool.submit(one, waiting.popleft()))
            ended, working = wait(working, return_when=FIRST_COMPLETED)
            for future in ended:
                outcome = future.result()
                if outcome.trouble and outcome.changed:
                    waiting.clear()
                yield outcome


def main(*directories: str) -> None:
    """Bring containers to the new code, one after the other.

    Prints a line of JSON for each: `directory`, what was `done`, what is `left`, the `trouble`,
    and whether it is to be tried `later`.

    Args:
        directories: of their overlays; one that is gone is passed over.
    """
    waiting = {}
    for path in directories:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, BadState):
            waiting[path] = record.read(path)
    for outcome in roll_out(list(waiting.values()), 1, renew):
        del waiting[outcome.record.directory]
        _print(outcome)
    for found in waiting.values():
        text = f"{name_of(found)}: not begun, as another container is in trouble"
        _print(Outcome(found, [Note(text)], ""))


def _print(outcome: Outcome) -> None:
    told = {
        "directory": outcome.record.directory,
        "done": [line for line in outcome.said if not isinstance(line, Note)],
        "left": [line for line in outcome.said if isinstance(line, Note)],
        "trouble": outcome.trouble,
        "later": outcome.later,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
