# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a container's units, as its systemd tells them, before and after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks.restarting import MANAGER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_PROPERTIES = ("Id", "ActiveState", "SubState", "Result", "NRestarts", "RefuseManualStop")
COMMAND = ("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", "*")
"""Shows every unit that is loaded (systemctl(1)); its output is for :func:`parse`."""
_WELL = {"active", "reloading", "refreshing"}


class State(NamedTuple):
    """What systemd says of a unit, see its D-Bus interface, org.freedesktop.systemd1(5)."""

    active: str
    sub: str
    result: str
    restarts: str
    refuses_stop: bool


def parse(text: str) -> dict[str, State]:
    """The units by their names.

    Raises:
        ValueError: it is not the whole answer: systemd's own unit is missing.
    """
    units = {}
    for block in text.split("\n\n"):
        values = dict.fromkeys(_PROPERTIES, "")
        values |= dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        units[values["Id"]] = State(
            values["ActiveState"],
            values["SubState"],
            values["Result"],
            values["NRestarts"],
            values["RefuseManualStop"] == "yes",
        )
    if MANAGER not in units:
        raise ValueError(text)
    return units


def troubles(
    before: Mapping[str, State], after: Mapping[str, State], restarted: Collection[str]
) -> Iterator[str]:
    """What is worse than before.

    Args:
        before, after: the states of all units.
        restarted: units that ran, and were restarted between.

    Yields:
        For each unit that has failed since, or of the restarted ones does not run well, what it
        is now.
    """
    nothing = State("gone", "", "", "", refuses_stop=False)
    for unit in sorted(after.keys() | restarted):
        old, new = before.get(unit, nothing), after.get(unit, nothing)
        broken = new.active == "failed" and old.active != "failed"
        again = unit in restarted and new.restarts not in {"", "0", old.restarts}
        down = unit in restarted and old.active in _WELL and new.active not in _WELL
        if broken or again or down:
            words = [new.active, new.sub, new.result if new.result != "success" else ""]
            words += ["after it had ended"] if again else []
            yield f"{unit} is {', '.join(word for word in words if word)}"
