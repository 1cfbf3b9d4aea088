# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks watch`. Nothing heavy is imported here: the watcher's memory is counted."""

from __future__ import annotations

import logging
import os
import sys

import click

from pycor_hooks import watcher
from pycor_hooks.commands import options

# sd-daemon(3): systemd takes the level of a line from its prefix.
PRIORITIES = {
    logging.DEBUG: "<7>",
    logging.INFO: "<6>",
    logging.WARNING: "<4>",
    logging.ERROR: "<3>",
    logging.CRITICAL: "<2>",
}


@click.command("watch")
@click.option("--once", is_flag=True, help="Look at everything once, and exit.")
@options.daemons
@options.debug
@click.pass_context
def watch_command(context: click.Context, directories: tuple[str, ...], *, once: bool) -> int:
    """Refresh overlays when their base stops.

    Follows all daemons of the host until SIGTERM; SIGHUP looks at everything at once.
    It is what the systemd unit runs. With --once, exit status 1 if something could not be done.

    \b
    Examples:
      pycor-hooks watch
      pycor-hooks watch --once --daemon /var/lib/incus
    """  # noqa: D301 - click wants the character
    set_up_logging(
        debug=bool(context.meta.get(options.DEBUG)), journal="JOURNAL_STREAM" in os.environ
    )
    options.need_root("watch")
    return watcher.once(directories) if once else watcher.watch(directories)


def set_up_logging(*, debug: bool, journal: bool) -> None:
    """Log to standard error.

    Args:
        debug: whether to log what is of interest to developers only.
        journal: whether systemd's journal reads it, which has times of its own.
    """
    form = "%(asctime)s %(levelname)-7s %(message)s"
    if journal:
        form = "%(message)s"
        logging.setLogRecordFactory(_PrefixedRecord)
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(stream=sys.stderr, format=form, level=level)
    # Each frame and each retry of theirs is a line at this level.
    for library in ("websockets", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)


class _PrefixedRecord(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 - logging's own name
        return PRIORITIES.get(self.levelno, "<5>") + super().getMessage()
