# SPDX-License-Identifier: GPL-3.0-or-later
"""The four hooks: what they do, and how an error reaches the operator.

Imported by the stubs in hooks/, as a child of [lxc monitor]: standard library only.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from pycor_hooks import instance, namespaces, takedown
from pycor_hooks.errors import NoSpace, NotAHook, PycorError, UnknownOption, printable
from pycor_hooks.record import RUN, directory_of, read
from pycor_hooks.registry import Lock

_USAGE = {
    "pre-start": "write: pre-start --base [PROJECT/]NAME",
    "start-host": "it has none",
    "stop": "it has none",
    "post-stop": "it has none",
}


def run(hook: str, argv: list[str], environ: dict[str, str]) -> int:
    """Run one hook, and render its error as one line.

    Args:
        hook: pre-start, start-host, stop or post-stop.
        argv: what raw.lxc gives after the path of the hook.
        environ: liblxc's environment.

    Returns:
        The exit status: 0, or the error's.
    """
    log = Log(environ)
    try:
        log.place = namespaces.of_process(os.getppid())
        if log.place.identity:
            _load_all()
        with log.place:
            config = instance.Config(_read_config(environ))
        log.path = config.log_file
        _HOOKS[hook](parse_options(hook, argv), environ, config, log)
    except PycorError as error:
        log.write("ERROR", f"{hook}: {error}")
        return error.exit_code
    except OSError as error:
        log.write("ERROR", f"{hook}: {_describe(error)}")
        return 1
    except Exception as error:  # noqa: BLE001 - liblxc shows nobody a traceback
        log.write("ERROR", f"{hook}: unforeseen {type(error).__name__}: {error}: please report it")
        return 1
    return 0


def _load_all() -> None:
    """Import what a hook may need once it is where our modules are not."""
    from pycor_hooks import held, pools, prestart, strays  # noqa: F401, PLC0415


def _describe(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return str(NoSpace(path=error.filename or RUN, error=error.strerror))
    where = f" at {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where} (errno {error.errno})"


def _read_config(environ: dict[str, str]) -> str:
    try:
        path = environ["LXC_CONFIG_FILE"]
    except KeyError:
        raise NotAHook(variable="LXC_CONFIG_FILE") from None
    # A carriage return in a setting of the instance is no end of a line: see Config.
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


def parse_options(hook: str, argv: list[str]) -> dict[str, str]:
    """Take ``--name value`` and ``--name=value`` apart; pre-start alone has an option.

    Raises:
        UnknownOption: it is none, or pre-start lacks the one that it needs.
    """
    options = {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if hook != "pre-start" or name != "--base":
            raise UnknownOption(option=word, hook=hook, usage=_USAGE[hook])
        options[name] = value if equals else next(words, "")
    if hook == "pre-start" and not options:
        raise UnknownOption(option="", hook=hook, usage=_USAGE[hook])
    return options


def _pre_start(
    options: dict[str, str], environ: dict[str, str], config: instance.Config, log: Log
) -> None:
    from pycor_hooks.prestart import pre_start  # noqa: PLC0415 - the other hooks do without

    container, rootfs = instance.from_environment(environ)
    base = instance.parse_base(options["--base"], container)
    pre_start(container, base, rootfs, config)
    if base.running():
        log.write(
            "WARN",
            f"pre-start: base {base.label} is running: until it stops, {container.label} may see "
            "its changes half-done; see pycor-hooks status",
        )


def _start_host(
    _options: dict[str, str], environ: dict[str, str], _config: instance.Config, _log: Log
) -> None:
    container, rootfs = instance.from_environment(environ)
    directory = directory_of(container.daemon, container.key)
    with Lock(directory):
        record = read(directory)
        record.init = int(environ["LXC_PID"])
        record.init_start = instance.process_start(record.init)
        record.write()
        takedown.detach_binds(directory, rootfs, namespaces.of_process(os.getppid()))


def _stop(
    _options: dict[str, str], environ: dict[str, str], _config: instance.Config, log: Log
) -> None:
    container, _ = instance.from_environment(environ)
    record = takedown.own(directory_of(container.daemon, container.key), os.getppid())
    if record and instance.identity_now(record.lowerdirs[0]) != record.lower_identity:
        base = instance.Instance(record.daemon, record.base_project, record.base_name)
        log.write(
            "WARN",
            f"stop: base {base.label} was deleted, replaced or re-owned at {record.lowerdirs[0]} "
            f"after {container.label} had started: it may have seen the old tree, or none",
        )


_HOOKS = {
    "pre-start": _pre_start,
    "start-host": _start_host,
    "stop": _stop,
    "post-stop": _stop,
}


class Log:
    """liblxc's log of one container, where ``lxc info NAME --show-log`` finds our lines."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.path = ""
        self.place = namespaces.HOST
        self._name = environ.get("LXC_NAME", "-")

    def write(self, level: str, message: str) -> None:
        """Append one line in liblxc's own format, and write it to stderr as well.

        Args:
            level: WARN or ERROR.
            message: what happened and what to do, without control characters.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"
        line = f"lxc {self._name} {stamp} {level:<8} pycor-hooks - {printable(message)}\n"
        sys.stderr.write(line)
        if not self.path:
            return
        try:
            with (
                self.place,
                open(self.path, "a", encoding="utf-8", errors="backslashreplace") as file,
            ):
                file.write(line)
        except OSError as error:
            sys.stderr.write(f"{self.path}: {error.strerror}\n")
