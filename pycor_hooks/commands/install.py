# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks install` and `pycor-hooks uninstall`."""

from __future__ import annotations

import click

from pycor_hooks import profile
from pycor_hooks import uninstall as uninstalling
from pycor_hooks.commands import options
from pycor_hooks.install import Order, install
from pycor_hooks.output import tell
from pycor_hooks.sockets import find_daemons


@click.command("install")
@options.prefix
@click.option(
    "--base",
    metavar="[PROJECT/]NAME",
    default=profile.DEFAULT_BASE,
    show_default=True,
    help="The container to share; it may be created later.",
)
@click.option("--no-systemd", is_flag=True, help="Do not install the watcher's unit.")
@options.daemons
@options.debug
def install_command(
    prefix: str, base: str, directories: tuple[str, ...], *, no_systemd: bool
) -> None:
    """Install hooks, profile, image and the watcher's unit.

    Profile and image are made in the default project of each daemon. The base is protected from
    being deleted, and no longer started at boot. The unit watches the daemons that are named
    here, or all where none is.
    Run twice it changes nothing; run from a newer version, with the same options, it upgrades.
    Containers may run and start meanwhile.

    \b
    Examples:
      pycor-hooks install
      pycor-hooks install --base debian --prefix /srv/pycor-hooks
      pycor-hooks install --daemon /srv/lxd --no-systemd
    """  # noqa: D301 - click wants the character
    options.need_root("install")
    order = Order(
        prefix=prefix,
        base=profile.check_base(base),
        daemons=find_daemons(directories),
        directories=options.looked_at(directories) or (),
        unit=not no_systemd,
    )
    if not tell(install(order)):
        click.echo("everything is installed already; nothing changed")


@click.command("uninstall")
@options.prefix
@options.daemons
@options.debug
def uninstall_command(prefix: str, directories: tuple[str, ...]) -> None:
    """Remove what install and profile made.

    Refused, with their names, while containers use one of the profiles or overlays are live, or
    a daemon does not answer.
    Bases and containers stay as they are, and so does a profile with settings of your own.

    \b
    Example:
      pycor-hooks uninstall
    """  # noqa: D301 - click wants the character
    options.need_root("uninstall")
    if not tell(uninstalling.uninstall(prefix, find_daemons(directories))):
        click.echo("nothing of pycor-hooks is installed")
