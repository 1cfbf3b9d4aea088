# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hook has to say goes into liblxc's log, where ``lxc info NAME --show-log`` finds it.

Imported by a hook only when it has something to say, and by a stub whose hook could not be
loaded: so it stands on as little as possible.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from pycor_hooks.errors import NoSpace, PycorError, printable
from pycor_hooks.record import RUN


def failed(hook: str, error: BaseException, environ: dict[str, str]) -> int:
    """Render an error as one line.

    Args:
        hook: pre-start, start-host, stop or post-stop.
        error: what ended it.
        environ: liblxc's environment.

    Returns:
        The exit status.
    """
    write("ERROR", f"{hook}: {describe(error)}", environ)
    return error.exit_code if isinstance(error, PycorError) else 1


def not_loaded(hook: str, error: BaseException, environ: dict[str, str]) -> int:
    """As :func:`failed`, for a hook whose code could not be loaded, with what came of that."""
    if isinstance(error, (ImportError, MemoryError, OSError)):
        cause = describe(error)
    else:
        cause = f"{type(error).__name__}: {error}"
    remedy = "look at the disk, or run pycor-hooks install"
    write("ERROR", f"{hook}: cannot be loaded: {cause}: {remedy}", environ)
    return 1


def describe(error: BaseException) -> str:
    """What went wrong, where, and what to do where that is known."""
    if isinstance(error, PycorError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{os.strerror(errno.ENOMEM)}{_place(error)} (errno {errno.ENOMEM})"
    if isinstance(error, ImportError):
        return f"{error}{_place(error)}: is all of pycor-hooks there? run pycor-hooks install"
    if not isinstance(error, OSError):
        kind = type(error).__name__
        return f"unforeseen {kind}{_place(error)}: {error}: please report it"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return str(NoSpace(path=error.filename or RUN, error=error.strerror))
    where = f" at {error.filename}" if error.filename else _place(error)
    return f"{error.strerror or error}{where} (errno {error.errno})"


def _place(error: BaseException) -> str:
    """The line of ours, or of the library, that raised it; what an errno alone leaves out."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if not trace:
        return ""
    return f" in {os.path.basename(trace.tb_frame.f_code.co_filename)}, line {trace.tb_lineno}"


def write(level: str, message: str, environ: dict[str, str]) -> None:
    """Append one line in liblxc's own format, and write it to stderr as well.

    Args:
        level: WARN or ERROR.
        message: what happened and what to do; control characters are escaped.
        environ: liblxc's environment.
    """
    now = time.time()
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"
    name = environ.get("LXC_NAME", "-")
    line = f"lxc {name} {stamp} {level:<8} pycor-hooks - {printable(message)}\n"
    sys.stderr.write(line)
    path = _find_log(environ.get("LXC_CONFIG_FILE", ""))
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line)
    except OSError as error:
        sys.stderr.write(f"{path}: {error.strerror}\n")


def _find_log(config: str) -> str:
    """The log that a configuration names; where that cannot be read, the one that lies beside it.

    The daemons keep both in one directory, but for the newest Incus.
    """
    root = _monitors_root()
    try:
        with open(
            f"{root}{config}", encoding="utf-8", errors="surrogateescape", newline="\n"
        ) as file:
            path = log_file(file.read())
            return f"{root}{path}" if path else ""
    except OSError:
        beside = root + os.path.join(os.path.dirname(config), "lxc.log")
        return beside if os.path.exists(beside) else ""


def _monitors_root() -> str:
    """The root directory of [lxc monitor], in whose mount namespace the daemon's files are."""
    return f"/proc/{os.getppid()}/root"


def log_file(config: str) -> str:
    """The ``lxc.log.file`` in the text of LXC_CONFIG_FILE, "" where there is none.

    A newline alone ends a line: see :class:`pycor_hooks.instance.Config`.
    """
    path = ""
    for line in config.split("\n"):
        name, _, value = line.partition("=")
        if name.strip() == "lxc.log.file":
            path = value.strip()
    return path
