# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes of a container were started from a script that was replaced since.

An interpreter reads its script once and keeps nothing of it mapped or open. So what tells is
time, as for needrestart: the script has changed after the process began. Only the file that the
command line names counts. What it imports would have to be found in the text of a program of the
container's: no work for root of the host.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import generations, instance, kernel, procs
from pycor_hooks.hiding import Upper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycor_hooks.hiding import Hiding
    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record


class Interpreter(NamedTuple):
    """Its options: those after which comes no script, and those that take the next word."""

    no_script: re.Pattern[str]
    taking: frozenset[str]


INTERPRETERS = {
    "python": Interpreter(
        re.compile(r"-[bBdEhiIOPqRsSuvx]*[cm]"), frozenset({"-W", "-X", "--check-hash-based-pycs"})
    ),
    "perl": Interpreter(re.compile(r"-[acflnpsStTuUwWX0-9]*[eE]"), frozenset({"-I"})),
    "ruby": Interpreter(re.compile(r"-[alnpsSUvw]*e"), frozenset({"-C", "-E", "-I", "-r"})),
}
_EXECUTABLE = re.compile(r"/(?:usr/)?(?:local/)?bin/(python|perl|ruby)[0-9.]*")


def script_of(pid: int, executable: str) -> str | None:
    """The script that an interpreter was started with.

    Args:
        pid: of the process.
        executable: its path in the container.

    Returns:
        Its path as the container has it, links and all; None where it is no interpreter of
        scripts, or has none.
    """
    known = _EXECUTABLE.fullmatch(executable)
    if known is None:
        return None
    words = os.fsdecode(instance.read_of(pid, "cmdline")).split("\0")[1:-1]
    script = script_among(words, INTERPRETERS[known[1]])
    if script is None:
        return None
    try:
        return posixpath.normpath(posixpath.join(os.readlink(f"/proc/{pid}/cwd"), script))
    except OSError:
        return None


def script_among(words: Sequence[str], interpreter: Interpreter) -> str | None:
    """The first word of a command line that is neither an option nor an option's value."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            return next(rest, None)
        if not word.startswith("-"):
            return word
        if word == "-" or interpreter.no_script.match(word):
            return None
        if word in interpreter.taking:
            next(rest, None)
    return None


class Updates:
    """When a base has changed a file; each is looked up once."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._known: dict[str, list[float]] = {}

    def of(self, path: str) -> list[float]:
        """When the updates that are kept and changed it were over, in seconds since the epoch."""
        if path not in self._known:
            self._known[path] = [
                time
                for _, time, changes in generations.history(self._base)
                if any(change.path == path for change in changes)
            ]
        return self._known[path]


class Scripts:
    """Tells it for the processes of one container.

    Args:
        record: of its overlay.
        upper: what hides its base, see :class:`pycor_hooks.hiding.Hiding`.
        updates: of its base.
        settled: whether the base has stopped: else what changed in it after the last of these
            may change again, and nobody is to be restarted for it.
    """

    def __init__(self, record: Record, upper: Hiding, updates: Updates, *, settled: bool) -> None:
        self._merged = record.merged
        self._upper = upper
        self._updates = updates
        self._settled = settled

    def replaced(self, pid: int) -> dict[str, float]:
        """The script of a process that was replaced after the process had begun.

        Returns:
            Path of the script, and when the process began, in seconds since the epoch.
        """
        path = script_of(pid, procs.executable(pid))
        start = instance.process_start(pid) if path else 0
        if path is None or not start:
            return {}
        began = instance.time_of(start + 1)  # at the latest: it is rounded down
        real, changed = self._look(path)
        return {f"/{real}": began} if began < changed else {}

    def _look(self, path: str) -> tuple[str, float]:
        """Where a script lies, and since when: who began later runs it as it is.

        Returns:
            Its path without links, relative to the container's root, and seconds since the epoch;
            0 where there is none to be seen.
        """
        root = os.open(self._merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            script = kernel.open_in_root(root, path, os.O_PATH)
        except OSError:  # a name in a tree of the process's own
            return "", 0
        finally:
            os.close(root)
        try:
            ctime = os.fstat(script).st_ctime
            real = os.readlink(f"/proc/self/fd/{script}").removeprefix(f"{self._merged}/")
        finally:
            os.close(script)
        is_base_s = self._upper.of(real) is Upper.ABSENT
        return real, self._known_from(real, ctime) if is_base_s else ctime

    def _known_from(self, path: str, ctime: float) -> float:
        """When the update that changed a file of the base was over, as far as that is known."""
        over = [time for time in self._updates.of(path) if time >= ctime]
        return over[0] if over else ctime if self._settled else 0
