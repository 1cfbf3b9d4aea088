# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and arguments that several commands have, and what is done with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pycor_hooks import prefix as prefixes
from pycor_hooks import record, registry
from pycor_hooks.host_errors import NeedsRoot, NoDaemon, NotADaemon
from pycor_hooks.output import FORMATS
from pycor_hooks.plan import label
from pycor_hooks.sockets import find_daemons, named_directories

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycor_hooks.sockets import Daemon

DEBUG = "pycor_hooks.debug"


def _remember_debug(
    context: click.Context,
    _option: click.Parameter,
    value: bool,  # noqa: FBT001 - click calls it so
) -> None:
    if value:
        context.meta[DEBUG] = True


debug = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_remember_debug,
    help="Show the traceback of an error; with watch, more of what is done.",
)

daemons = click.option(
    "--daemon",
    "directories",
    metavar="DIR",
    multiple=True,
    type=click.Path(file_okay=False),
    help="State directory of a daemon, may be repeated.  "
    "[default: LXD_DIR and INCUS_DIR where they are set, else the usual places]",
)


def _plain_prefix(_context: click.Context, _option: click.Parameter, value: str) -> str:
    return prefixes.plain(value)


prefix = click.option(
    "--prefix",
    metavar="DIR",
    default=prefixes.DEFAULT,
    callback=_plain_prefix,
    show_default=True,
    help="Directory of the hooks.",
)

list_format = click.option(
    "--format",
    "style",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How to print the list.",
)


def complete_live(
    _context: click.Context, _argument: click.Parameter, incomplete: str
) -> list[str]:
    """The names of live containers, for the shell."""
    try:
        keys = [os.path.basename(path) for path in registry.directories()]
    except PermissionError:  # by whoever types: sudo pycor-hooks status <TAB>
        return []
    labels = [label(*record.split_key(key)) for key in keys]
    return sorted(text for text in labels if text.startswith(incomplete))


containers = click.argument(
    "names", metavar="[[PROJECT/]NAME]...", nargs=-1, shell_complete=complete_live
)

base = click.option(
    "--base",
    metavar="[PROJECT/]NAME",
    help="All containers on this base, which is in project default unless another is given.",
)

container = click.argument(
    "name", metavar="[[PROJECT/]NAME]", required=False, shell_complete=complete_live
)


def named(directories: Sequence[str]) -> list[str] | None:
    """The state directories that the operator named, None where he left it to us."""
    return named_directories(directories, os.environ)


def looked_at(directories: Sequence[str]) -> list[str] | None:
    """As :func:`named`, for a look at what is there.

    Raises:
        NotADaemon: one of them is not there, and never had an overlay: a word was mistyped, and
            "nothing is live" would be a wrong answer.
    """
    found = named(directories)
    for path in found or ():
        if not os.path.isdir(path) and not registry.directories([path]):
            raise NotADaemon(directory=path)
    return found


def found_daemons(directories: Sequence[str]) -> list[Daemon]:
    """The daemons to work for.

    Raises:
        NoDaemon: there is none.
    """
    found = find_daemons(directories)
    if not found:
        raise NoDaemon
    return found


def need_root(command: str) -> None:
    """Raise NeedsRoot for everybody else, before half of the work is done."""
    if os.geteuid():
        raise NeedsRoot(command=f"pycor-hooks {command}")
