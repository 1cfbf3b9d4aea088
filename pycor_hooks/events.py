# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lifecycle event of LXD or Incus says about an instance's tree; no I/O.

Both daemons send the same JSON, documented in `doc/events.md` of either; Incus adds `name` and
`project` to the metadata. An event is a hint to look at the instance, never the truth about it:
events come twice, late and in the wrong order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pycor_hooks.errors import PycorError, printable

_COLLECTIONS = ("instances", "containers")


class MalformedEvent(PycorError):
    """A daemon sent what is not an event."""

    template = "not a lifecycle event ({reason}): {text}"


class Change(Enum):
    """What happened to the instance."""

    STOPPED = auto()
    """It has stopped, though its monitor may live for some milliseconds yet."""
    RESTARTED = auto()
    """It was stopped in between, and runs again or soon will."""
    STARTED = auto()
    """It runs."""
    CHANGED = auto()
    """Its tree may have changed, or is another one, without a start or a stop."""
    RENAMED = auto()
    """The name in the event is the new one."""
    DELETED = auto()
    """It is gone."""


# Everything else (exec, console, snapshot taken, …) leaves the instance's tree alone.
ACTIONS = {
    "instance-shutdown": Change.STOPPED,
    "instance-stopped": Change.STOPPED,
    "instance-restarted": Change.RESTARTED,
    "instance-started": Change.STARTED,
    "instance-file-pushed": Change.CHANGED,
    "instance-file-deleted": Change.CHANGED,
    "instance-restored": Change.CHANGED,
    "instance-created": Change.CHANGED,
    "instance-migrated": Change.CHANGED,
    "instance-updated": Change.CHANGED,
    "instance-renamed": Change.RENAMED,
    "instance-deleted": Change.DELETED,
}


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One event that concerns an instance's tree.

    `old_name` is "" unless the change is RENAMED.
    """

    change: Change
    project: str
    name: str
    old_name: str = ""


def parse(text: str | bytes) -> LifecycleEvent | None:
    """Read one message of `/1.0/events`.

    Returns:
        The event, None where the message is of another type or means nothing for a tree.

    Raises:
        MalformedEvent: the message is not JSON, or lacks what such an event has.
    """
    try:
        message = json.loads(text)
        if message["type"] != "lifecycle":
            return None
        metadata = message["metadata"]
        change = ACTIONS.get(metadata["action"])
        return None if change is None else _event(change, message, metadata)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        shown = text if isinstance(text, str) else repr(text)
        reason = f"{type(error).__name__} {error}"
        raise MalformedEvent(reason=reason, text=printable(shown[:200])) from error


def _event(change: Change, message: dict[str, Any], metadata: dict[str, Any]) -> LifecycleEvent:
    source = urlsplit(metadata["source"])
    path = source.path.split("/")
    # /1.0/instances/NAME, and for some actions /1.0/instances/NAME/files
    if path[2] not in _COLLECTIONS or not path[3]:
        raise ValueError(metadata["source"])
    in_source = parse_qs(source.query).get("project", [""])[0]
    old_name = (metadata.get("context") or {}).get("old_name", "")
    return LifecycleEvent(
        change=change,
        project=_text(metadata.get("project") or in_source or message.get("project") or "default"),
        name=_text(metadata.get("name") or unquote(path[3])),
        old_name=_text(old_name) if change is Change.RENAMED else "",
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
