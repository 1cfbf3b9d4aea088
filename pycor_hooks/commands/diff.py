# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks diff`."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import click

from pycor_hooks import layerdiff, locate, masking, output, registry, whereabouts
from pycor_hooks.commands import choice, options
from pycor_hooks.commands.status import amount
from pycor_hooks.errors import printable
from pycor_hooks.host_errors import (
    BadPath,
    MaskingDropped,
    NoLayer,
    NothingToDrop,
    NotOwn,
    NotTold,
)
from pycor_hooks.layer import KINDS
from pycor_hooks.output import Column
from pycor_hooks.plan import label
from pycor_hooks.sockets import find_daemons

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pycor_hooks.layerdiff import Difference
    from pycor_hooks.locate import Layer
    from pycor_hooks.sockets import Daemon

KEYS = ("change", "path", "type", "size")
MASKING_KEYS = (*KEYS, "reason", "remedy")
STYLES = {layerdiff.ADDED: "green", layerdiff.MODIFIED: "yellow", layerdiff.DELETED: "red"}


@click.command("diff")
@click.argument("name", metavar="[PROJECT/]NAME", shell_complete=options.complete_live)
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--masking", "only_masking", is_flag=True, help="Only what hides a newer base file.")
@click.option("--drop", is_flag=True, help="Give these paths, and what is below, to the base.")
@click.option("--yes", is_flag=True, help="With --drop: lose what is shown.")
@click.option(
    "--base",
    metavar="[PROJECT/]NAME",
    help="The base of a stopped container.  [default: the one that its profiles name]",
)
@options.list_format
@options.daemons
@options.debug
def diff_command(  # noqa: PLR0913 - an argument per option
    name: str,
    paths: tuple[str, ...],
    base: str | None,
    style: str,
    directories: tuple[str, ...],
    *,
    only_masking: bool,
    drop: bool,
    yes: bool,
) -> int:
    """Show what a container has of its own, running or stopped.

    A: added, M: modified, D: deleted, as a comparison with the base would find it.
    With --masking only what now hides a file of the base that is newer, so that an update of the
    base does not arrive; exit status 1 if there is any. Without it, differences are no fault: 0.
    With --drop the paths are given back to the base, in a running container too: what it has of
    its own there is shown, and is lost once --yes is given.

    \b
    Examples:
      pycor-hooks diff web1
      pycor-hooks diff web1 /etc --format csv
      pycor-hooks diff web1 --masking
      pycor-hooks diff web1 --drop /etc/nginx/nginx.conf --yes
    """  # noqa: D301 - click wants the character
    options.need_root("diff")
    wanted = [check_path(path) for path in paths]
    if drop and only_masking:
        raise MaskingDropped
    if drop and not wanted:
        raise NothingToDrop
    of = choice.parse_label(base) if base else None
    daemons = _daemons(directories)
    for daemon in daemons:
        click.get_current_context().with_resource(whereabouts.shown(daemon.directory))
    try:
        layer = locate.find(choice.parse_label(name), of, daemons)
    except NoLayer:
        whereabouts.check_up(daemons)
        raise
    found = layerdiff.differences(layer.upperdir, layer.lowerdir, layer.shift)
    chosen = _below(found, wanted)
    if only_masking:
        return _show_masking(chosen, layer, style)
    rows = [_row(one) for one in chosen]
    if drop:
        _check_own(layer, wanted, rows)
    output.write(rows, style=style, keys=KEYS, columns=COLUMNS)
    if drop:
        if not yes:
            raise NotTold
        return _drop(layer, wanted)
    return 0


def check_path(text: str) -> str:
    """A path as the layers have it.

    Raises:
        BadPath: it is none below the root.
    """
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        raise BadPath(path=text)
    return "/".join(parts)


def _daemons(directories: Sequence[str]) -> list[Daemon]:
    """The daemons that may have it: those of this host, and those that have live overlays."""
    named = options.looked_at(directories)
    if named is not None:
        return find_daemons(named)
    live = {one.daemon for one in registry.records()}
    here = [daemon for daemon in find_daemons() if daemon.directory not in live]
    return [*here, *(find_daemons(sorted(live)) if live else ())]


def _below(found: Iterable[Difference], wanted: Sequence[str]) -> Iterator[Difference]:
    for one in found:
        if not wanted or any(f"{one.path}/".startswith(f"{path}/") for path in wanted):
            yield one


def _row(one: Difference) -> dict[str, object]:
    mode = one.shown.st_mode
    sized = stat.S_ISREG(mode) or stat.S_ISLNK(mode)
    return {
        "change": one.change,
        "path": f"/{one.path}",
        "type": KINDS[stat.S_IFMT(mode)].partition(" ")[2],
        "size": one.shown.st_size if sized else None,
    }


def _show_masking(found: Iterable[Difference], layer: Layer, style: str) -> int:
    name = label(layer.container.project, layer.container.name)
    rows = [
        _row(one.difference) | {"reason": one.reason, "remedy": one.remedy}
        for one in masking.masked(found, layer.upperdir, layer.lowerdir, name)
    ]
    output.write(rows, style=style, keys=MASKING_KEYS, columns=[*COLUMNS, *MASKING_COLUMNS])
    return int(bool(rows))


def _check_own(layer: Layer, wanted: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Refuse a path at which nothing would be lost: a word was mistyped."""
    shown = [str(row["path"]) for row in rows]
    for path in wanted:
        if not any(f"{one}/".startswith(f"/{path}/") for one in shown):
            raise NotOwn(name=layer.container.label, path=f"/{path}")


def _drop(layer: Layer, paths: Sequence[str]) -> int:
    from pycor_hooks import drop  # noqa: PLC0415 - no mere look needs it

    unique = [
        path
        for path in dict.fromkeys(paths)
        if not any(path.startswith(f"{other}/") for other in paths)
    ]
    if layer.record is None:
        drop.from_stopped(layer, unique)
        reasons = {}
    else:
        reasons = drop.from_running(layer.record, unique)
    for path, reason in reasons.items():
        text = f"/{path}: {reason.text}; {reason.remedy(layer.container.label)}"
        click.echo(f"pycor-hooks: {printable(text)}", err=True)
    return int(bool(reasons))


COLUMNS = [
    Column("", lambda row: str(row["change"]), style=lambda row: STYLES[str(row["change"])]),
    Column("PATH", lambda row: str(row["path"])),
    Column("TYPE", lambda row: str(row["type"])),
    Column("SIZE", lambda row: amount(row["size"]), right=True),
]
MASKING_COLUMNS = [
    Column("WHY", lambda row: str(row["reason"])),
    Column("WHAT TO DO", lambda row: str(row["remedy"])),
]
