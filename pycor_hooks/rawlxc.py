# SPDX-License-Identifier: GPL-3.0-or-later
"""raw.lxc as liblxc reads it: a hook's lines add up, and an empty one takes back those before.

Pure; lxc.container.conf(5), "HOOKS", and set_config_hooks() of liblxc's confile.c.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from pycor_hooks.errors import UsageError
from pycor_hooks.hook import parse_options

HOOKS = ("pre-start", "start-host", "stop", "post-stop")
_HOOK = "lxc.hook"
_OPTIONS = "lxc.rootfs.options"


class PreStart(NamedTuple):
    """A pre-start hook of ours in effect: where it is installed, and what follows its path."""

    prefix: str
    argv: list[str]


def settings(raw_lxc: str) -> list[tuple[str, str]]:
    """Keys and values in their order; a newline alone ends a line."""
    lines = [line.strip() for line in raw_lxc.split("\n")]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def commands(raw_lxc: str) -> dict[str, list[str]]:
    """The commands in effect, by the type of the hook."""
    found: dict[str, list[str]] = {}
    for key, value in settings(raw_lxc):
        kind = key.removeprefix(f"{_HOOK}.")
        if key == _HOOK and not value:
            found.clear()
        elif key.startswith(f"{_HOOK}.") and not value:
            found.pop(kind, None)
        elif key.startswith(f"{_HOOK}."):
            found.setdefault(kind, []).append(value)
    return found


def pre_start(raw_lxc: str) -> PreStart | None:
    """Our pre-start hook in effect, the first of them; None where there is none."""
    for command in commands(raw_lxc).get("pre-start", []):
        found = _ours("pre-start", command)
        if found:
            return found
    return None


def base(raw_lxc: str) -> str | None:
    """The base that the hook in effect names, as it is written; None where there is none."""
    ours = pre_start(raw_lxc)
    try:
        return parse_options("pre-start", ours.argv)["--base"] if ours else None
    except UsageError:
        return None


def missing(raw_lxc: str) -> list[str]:
    """What of ours is not in effect: keys such as ``lxc.hook.stop``."""
    found = commands(raw_lxc)
    absent = [
        f"{_HOOK}.{kind}"
        for kind in HOOKS
        if not any(_ours(kind, command) for command in found.get(kind, []))
    ]
    options = [value for key, value in settings(raw_lxc) if key == _OPTIONS]
    if not options or options[-1]:
        absent.append(f"{_OPTIONS} (empty)")
    return absent


def _ours(kind: str, command: str) -> PreStart | None:
    """Take a hook's command apart, whatever runs the hook; None where it is not ours."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    ending = f"/hooks/{kind}"
    for position, word in enumerate(words):
        if word.startswith("/") and word.endswith(ending):
            return PreStart(word.removesuffix(ending), words[position + 1 :])
    return None
