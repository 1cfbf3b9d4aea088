# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from pycor_hooks import output
from pycor_hooks.commands import choice, options
from pycor_hooks.doctor.check import FAIL, KEYS, OK
from pycor_hooks.doctor.examine import Order, examine, examine_one
from pycor_hooks.output import Column
from pycor_hooks.sockets import find_daemons

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command("doctor")
@options.container
@click.option("--fix", is_flag=True, help="Take down what is left of containers that are gone.")
@options.prefix
@options.list_format
@options.daemons
@options.debug
@click.pass_context
def doctor_command(  # noqa: PLR0913 - an argument per option
    context: click.Context,
    name: str | None,
    prefix: str,
    style: str,
    directories: tuple[str, ...],
    *,
    fix: bool,
) -> int:
    """Look for what could be wrong, and say what to do.

    One line per check: ok, warn (works, but) or FAIL. The kernel, the hooks and the next start of
    each container are really tried, in a scratch directory that is removed.
    With NAME: that container from top to bottom, and what its next start would do.
    Works as far as it can while a daemon is down. Exit status 1 if one check is FAIL.

    \b
    Examples:
      pycor-hooks doctor
      pycor-hooks doctor staging/web2
      pycor-hooks doctor --fix
      pycor-hooks doctor --format json | jq '.[] | select(.state != "ok")'
    """  # noqa: D301 - click wants the character
    options.need_root("doctor")
    named = options.looked_at(directories)
    sure = context.get_parameter_source("prefix") is not ParameterSource.DEFAULT
    order = Order(find_daemons(directories), named, prefix, sure=sure, fix=fix)
    found = examine_one(order, *choice.parse_label(name)) if name else examine(order)
    rows = [one._asdict() for one in found]
    output.write(rows, style=style, keys=KEYS, columns=COLUMNS)
    return int(any(row["state"] == FAIL for row in rows))


def _state_style(row: Mapping[str, object]) -> str:
    return {OK: "green", FAIL: "bold red"}.get(str(row["state"]), "yellow")


def _what(row: Mapping[str, object]) -> str:
    return f"{row['cause']}: {row['remedy']}" if row["remedy"] else str(row["cause"])


COLUMNS = [
    Column("STATE", lambda row: str(row["state"]), style=_state_style),
    Column("CHECK", lambda row: str(row["name"])),
    Column("OF", lambda row: str(row["subject"])),
    Column("WHAT", _what),
]
