# SPDX-License-Identifier: GPL-3.0-or-later
"""Run our Python as a process that kills itself before one of its steps.

A step is a call that changes a file system, as sys.addaudithook(3) tells of it: unlike the system
calls that strace counts, these are the same in each run, however long something was waited for.

Run as ``python -B -m lab.killed NUMBER MODULE ARGUMENT…``, where 0 kills nothing and writes the
steps to standard output.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys

KILLED = -signal.SIGKILL
_STEPS = {
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename"),
    *("os.rmdir", "os.setxattr", "os.symlink", "os.truncate", "os.utime"),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def command(number: int, module: str, *arguments: str) -> list[str]:
    """What runs a module, and kills itself before its ``number``-th step; 0 for never."""
    return [sys.executable, "-B", "-m", "lab.killed", str(number), module, *arguments]


def steps(module: str, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
    """The steps of a run that nobody kills, in their order."""
    done = subprocess.run(
        command(0, module, *arguments),
        cwd=_REPOSITORY,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    return [line for line in done.stdout.splitlines() if line.startswith("step: ")]


def run(number: int, module: str, *arguments: str, env: dict[str, str] | None = None) -> int:
    """Run it, killed before that step; its exit status, KILLED where it came so far."""
    done = subprocess.run(
        command(number, module, *arguments),
        cwd=_REPOSITORY,
        env=env,
        check=False,
        capture_output=True,
    )
    return done.returncode


def main() -> None:
    """Run a module in this process."""
    number, module = int(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    count = 0

    def step(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in _STEPS or (event == "open" and _writes(arguments)):
            count += 1
            if number == 0:
                os.write(1, f"step: {event} {arguments}\n".encode())
            elif count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & _WRITING)


if __name__ == "__main__":
    main()
