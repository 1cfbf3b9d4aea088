# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks watch`. Nothing heavy is imported here: the watcher's memory is counted."""

from __future__ import annotations

import click

from pycor_hooks import logs, watcher
from pycor_hooks.commands import options


@click.command("watch")
@click.option("--once", is_flag=True, help="Look at everything once, and exit.")
@options.daemons
@options.debug
@click.pass_context
def watch_command(context: click.Context, directories: tuple[str, ...], *, once: bool) -> int:
    """Refresh overlays when their base stops.

    Follows all daemons of the host, or those named, until SIGTERM; SIGHUP looks at everything at
    once. It is what the systemd unit runs. With --once, exit status 1 if something could not be
    done.

    \b
    Examples:
      pycor-hooks watch
      pycor-hooks watch --once --daemon /var/lib/incus
    """  # noqa: D301 - click wants the character
    logs.set_up(debug=bool(context.meta.get(options.DEBUG)))
    options.need_root("watch")
    if not once:
        return watcher.watch(directories)
    options.looked_at(directories)
    return watcher.once(directories)
