# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of the profile that puts a container on a base. No I/O but the shipped template."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from pycor_hooks import share
from pycor_hooks.afterupdate import KEY as AFTER_UPDATE
from pycor_hooks.host_errors import BadBaseName, BadProfileName
from pycor_hooks.prefix import DEFAULT as DEFAULT_PREFIX
from pycor_hooks.rawlxc import HOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATE = "lxd-profiles/overlay.yaml"
DEFAULT_BASE = "base"
MARKER = "user.pycor-hooks"

_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*", re.ASCII)
_PROJECT = re.compile(r"[^\s/_'\"*$`\\;&|<>()#~!?\[\]{}%]+")
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
# For a daemon in a mount namespace of its own: the host's Python with the host's files, whatever
# the daemon's environment says. No process is put between, so the parent stays [lxc monitor].
ENTER = (
    "/usr/bin/env -u LD_LIBRARY_PATH -u LD_PRELOAD -u PYTHONPATH "
    "/usr/bin/nsenter -t 1 -m -- /usr/bin/python3 -BIS"
)
_ENTER = r"/usr/bin/env\s(?:\S+\s+)*?/usr/bin/nsenter\s(?:\S+\s+)*?/usr/bin/python3\s+-\S+\s+"
_HOOK_LINE = re.compile(
    r"lxc\.hook\.(?P<type>" + "|".join(HOOKS) + r")\s*=\s*"
    rf"(?P<enter>{_ENTER})?/\S*/hooks/(?P=type)"
    r"(?:\s+--base(?:\s+|=)\S+)?\s*"
)
_OPTIONS_LINE = re.compile(r"lxc\.rootfs\.options\s*=\s*")


def check_base(text: str) -> str:
    """Give back the name of a base, NAME or PROJECT/NAME.

    Raises:
        BadBaseName: no instance can be called so.
    """
    project, slash, name = text.rpartition("/")
    if not _INSTANCE.fullmatch(name) or (slash and not _PROJECT.fullmatch(project)):
        raise BadBaseName(name=text)
    return text


def default_name(base: str) -> str:
    """The profile's name for a base: `overlay` for `base`, else `overlay-NAME`."""
    name = base.rpartition("/")[2]
    return "overlay" if name == DEFAULT_BASE else f"overlay-{name}"


def check_name(name: str) -> str:
    """Give back the name of a profile, which is the image's alias too.

    Raises:
        BadProfileName: the daemons do not take it, or it has a meaning already.
    """
    if not _PROFILE.fullmatch(name) or name == "default":
        raise BadProfileName(name=name)
    return name


def text(*, prefix: str = DEFAULT_PREFIX, base: str = DEFAULT_BASE, apart: bool = False) -> str:
    """The profile as commented YAML, for `lxc profile edit`.

    Args:
        prefix: where the hooks are installed.
        base: NAME or PROJECT/NAME.
        apart: whether the daemon is in a mount namespace of its own.
    """
    shipped = share.text_of(TEMPLATE)
    command = f"{ENTER} {prefix}" if apart else prefix
    hooks = shipped.replace(f"= {DEFAULT_PREFIX}/hooks/", f"= {command}/hooks/")
    return hooks.replace(f"/pre-start --base {DEFAULT_BASE}\n", f"/pre-start --base {base}\n")


def body(*, prefix: str, base: str, apart: bool = False) -> dict[str, Any]:
    """The same as the daemon's API takes it: description, config, devices."""
    loaded: dict[str, Any] = yaml.safe_load(text(prefix=prefix, base=base, apart=apart))
    return loaded


def enters(raw_lxc: str) -> bool:
    """Whether hook lines of ours are for a daemon in a mount namespace of its own."""
    found = (_HOOK_LINE.fullmatch(line.strip()) for line in raw_lxc.splitlines())
    return any(match and match["enter"] for match in found)


def is_ours(profile: Mapping[str, Any]) -> bool:
    """Whether a profile (as the API shows it) was made by pycor-hooks, or from its file."""
    return MARKER in profile["config"]


def is_as_made(profile: Mapping[str, Any]) -> bool:
    """Whether nothing foreign was added to a profile of ours, so that it may be deleted."""
    config = profile["config"]
    foreign = foreign_lines(config.get("raw.lxc", ""))
    return (
        set(config) <= {MARKER, AFTER_UPDATE, "raw.lxc"} and not profile["devices"] and not foreign
    )


def foreign_lines(raw_lxc: str) -> list[str]:
    """The lines of a raw.lxc that are not ours: an operator's own."""
    return [line for line in raw_lxc.split("\n") if line.strip() and not _is_our_line(line)]


def merge(old: str, new: str) -> str:
    """The new raw.lxc with the operator's own lines of the old one below it."""
    return "".join(f"{line}\n" for line in [*new.strip("\n").split("\n"), *foreign_lines(old)])


def _is_our_line(line: str) -> bool:
    stripped = line.strip()
    return bool(_HOOK_LINE.fullmatch(stripped) or _OPTIONS_LINE.fullmatch(stripped))
