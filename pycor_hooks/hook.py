# SPDX-License-Identifier: GPL-3.0-or-later
"""The four hooks: what they do, and how an error reaches the operator.

Imported by the stubs in hooks/, as a child of [lxc monitor]: standard library only.
"""

from __future__ import annotations

import os

from pycor_hooks import instance, kernel, namespaces, takedown
from pycor_hooks.errors import NotAHook, UnknownOption
from pycor_hooks.record import directory_of, read
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
    try:
        place = namespaces.of_process(os.getppid())
        if place.identity:
            _load_all()
        with place:
            config = instance.Config(_read_config(environ))
        _HOOKS[hook](parse_options(hook, argv), environ, config)
    except Exception as error:  # noqa: BLE001 - liblxc shows nobody a traceback
        from pycor_hooks import hooklog  # noqa: PLC0415 - the usual way has nothing to say

        return hooklog.failed(hook, error, environ)
    return 0


def _load_all() -> None:
    """Import what a hook may need once it is where our modules are not; see takedown.load, too."""
    from pycor_hooks import (  # noqa: F401, PLC0415
        held,
        hooklog,
        pools,
        prestart,
        strays,
    )


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


def _pre_start(options: dict[str, str], environ: dict[str, str], config: instance.Config) -> None:
    from pycor_hooks.prestart import pre_start  # noqa: PLC0415 - the other hooks do without

    container, rootfs = instance.from_environment(environ, os.getppid())
    base = instance.parse_base(options["--base"], container)
    pre_start(container, base, rootfs, config)
    if base.running():
        from pycor_hooks import hooklog  # noqa: PLC0415 - as in run

        hooklog.write(
            "WARN",
            f"pre-start: base {base.label} is running: until it stops, {container.label} may see "
            "its changes half-done; see pycor-hooks status",
            environ,
        )


def _start_host(
    _options: dict[str, str], environ: dict[str, str], _config: instance.Config
) -> None:
    container, rootfs = instance.from_environment(environ, os.getppid())
    directory = directory_of(container.daemon, container.key)
    with Lock(directory):
        record = read(directory)
        record.init = int(environ["LXC_PID"])
        record.init_start = instance.process_start(record.init)
        record.write()
        takedown.detach_binds(directory, rootfs, namespaces.of_process(os.getppid()))


def _stop(options: dict[str, str], environ: dict[str, str], config: instance.Config) -> None:
    container, _ = instance.from_environment(environ, os.getppid())
    directory = directory_of(container.daemon, container.key)
    if not kernel.exists(directory):  # which is usual in post-stop, after this one
        from pycor_hooks import hidden  # noqa: PLC0415 - a rare need

        hidden.resurface_at(directory)
    _post_stop(options, environ, config)


def _post_stop(
    _options: dict[str, str], environ: dict[str, str], _config: instance.Config
) -> None:
    container, _ = instance.from_environment(environ, os.getppid())
    place = namespaces.of_process(os.getppid())
    record = takedown.own(directory_of(container.daemon, container.key), os.getppid())
    if not record or not record.base_name:
        return
    with place:
        identity = instance.identity_now(record.lowerdirs[0])
    if place.identity and not (identity and record.lower_identity):
        return  # it cannot be seen from here: pools move away from where an old monitor is
    if identity != record.lower_identity:
        from pycor_hooks import hooklog  # noqa: PLC0415 - as in run

        base = instance.Instance(record.daemon, record.base_project, record.base_name)
        hooklog.write(
            "WARN",
            f"stop: base {base.label} was deleted, replaced or re-owned at {record.lowerdirs[0]} "
            f"after {container.label} had started: it may have seen the old tree, or none",
            environ,
        )


_HOOKS = {
    "pre-start": _pre_start,
    "start-host": _start_host,
    "stop": _stop,
    "post-stop": _post_stop,
}
