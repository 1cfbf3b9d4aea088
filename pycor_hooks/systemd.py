# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher's systemd unit: written, enabled, removed."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from pycor_hooks import share
from pycor_hooks.host_errors import SystemdFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNIT = "pycor-hooks-watch.service"
DIRECTORY = "/etc/systemd/system"
MARKER = "@PYCOR_HOOKS@ watch"
_BOOTED = "/run/systemd/system"
_PLAIN = re.compile(r"[A-Za-z0-9/._+@:-]+", re.ASCII)


def is_running() -> bool:
    """Whether systemd is this host's init (sd_booted(3))."""
    return os.path.isdir(_BOOTED)


def own_command() -> str:
    """The absolute path of the pycor-hooks command that runs now."""
    beside = os.path.join(os.path.dirname(sys.executable), "pycor-hooks")
    if os.path.exists(beside):
        return beside
    return os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0])


def unit_text(command: str, directories: Sequence[str]) -> str:
    """The unit.

    Args:
        command: the absolute path of pycor-hooks.
        directories: of the daemons to watch; empty for those that are found.
    """
    words = [command, "watch", *(word for path in directories for word in ("--daemon", path))]
    template = share.text_of(f"systemd/{UNIT}")
    return template.replace(MARKER, " ".join(map(_quote, words)))


def _quote(word: str) -> str:
    """Write a word of a command line as systemd.service(5), "COMMAND LINES", reads it."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def ensure(text: str, code: float, *, directory: str = DIRECTORY) -> Iterator[str]:
    """Install the unit, enable and start it; anew where the watcher that runs has older code.

    Args:
        text: from :func:`unit_text`.
        code: when the watcher's code was written, in seconds since the epoch.
        directory: where the unit belongs.

    Yields:
        What was done.
    """
    path = os.path.join(directory, UNIT)
    changed = _read(path) != text
    if changed:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(f"{path}.new", path)
        _systemctl("daemon-reload")
        yield f"unit {path} written"
    if not _succeeds("is-enabled", "--quiet", UNIT):
        _systemctl("enable", UNIT)
        yield f"{UNIT} enabled"
    if changed or not _succeeds("is-active", "--quiet", UNIT) or _began() < code:
        _systemctl("restart", UNIT)
        yield f"{UNIT} started"


def _began() -> float:
    """When the watcher that runs was started, in seconds since the epoch."""
    words = ("show", "--property=ActiveEnterTimestamp", "--timestamp=unix", "--value", UNIT)
    return float(_systemctl(*words).strip().removeprefix("@"))


def watched(directory: str = DIRECTORY) -> list[str]:
    """The state directories that the installed unit names, as :func:`unit_text` writes them."""
    text = _read(os.path.join(directory, UNIT)) or ""
    lines = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(lines[0].replace("%%", "%").replace("$$", "$")) if lines else []
    return [path for word, path in itertools.pairwise(words) if word == "--daemon"]


def remove(directory: str = DIRECTORY) -> Iterator[str]:
    """Stop, disable and remove the unit."""
    path = os.path.join(directory, UNIT)
    if _read(path) is None:
        return
    if is_running():
        _systemctl("disable", "--now", UNIT)
    os.unlink(path)
    if is_running():
        _systemctl("daemon-reload")
    yield f"unit {path} removed"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _succeeds(*words: str) -> bool:
    return subprocess.run(["systemctl", *words], check=False, capture_output=True).returncode == 0


def _systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        command = " ".join(("systemctl", *words))
        raise SystemdFailed(command=command, reason=done.stderr.strip(), unit=UNIT)
    return done.stdout
