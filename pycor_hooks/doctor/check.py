# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a check: one line, with cause and remedy. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.errors import PycorError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OK = "ok"
WARN = "warn"
FAIL = "FAIL"

# The fields of a row, a contract with whoever reads the JSON.
KEYS = ("name", "subject", "state", "cause", "remedy")

_NAMED = 5


class Check(NamedTuple):
    """What one check has found.

    `name` of the check; `subject`: what was looked at; `state`: "ok", "warn" (works, but) or
    "FAIL"; `cause`: what is the case; `remedy`: what to do about it, "" where nothing is to do.
    """

    name: str
    subject: str
    state: str
    cause: str
    remedy: str = ""


def refused(name: str, subject: str, error: Exception, state: str = FAIL) -> Check:
    """An error as a check; those of ours say cause and remedy with a colon between."""
    if not isinstance(error, PycorError):
        return Check(name, subject, state, printable(str(error)))
    cause, _, remedy = error.template.partition(": ")
    parts = (printable(part.format(**vars(error))) for part in (cause, remedy))
    return Check(name, subject, state, *parts)


def sound(name: str, subject: str, found: Iterable[Check], cause: str) -> Iterator[Check]:
    """What was found, or one line that says that all is well."""
    empty = True
    for one in found:
        empty = False
        yield one
    if empty:
        yield Check(name, subject, OK, cause)


def guarded(name: str, checks: Iterable[Check], subject: str = "this host") -> Iterator[Check]:
    """Checks of a theme; what one of them could not look at is a line, and not the end of all."""
    try:
        yield from checks
    except PycorError as error:
        yield refused(name, subject, error)
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        cause = f"could not be looked at: {error.strerror}{where}"
        yield Check(name, subject, FAIL, printable(cause), "please report it")


def names(found: Iterable[str]) -> str:
    """Some names for a line: the first few, and how many more there are."""
    listed = sorted(found)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def count(number: int, noun: str) -> str:
    """A number of things: "1 container", "2 containers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
