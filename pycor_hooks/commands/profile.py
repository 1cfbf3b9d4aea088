# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks profile`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pycor_hooks import prefix as prefixes
from pycor_hooks import profile, provision, tree, whereabouts
from pycor_hooks.client import Connection
from pycor_hooks.commands import options
from pycor_hooks.host_errors import NoBase, NoHooks, Unreachable
from pycor_hooks.output import Note, tell
from pycor_hooks.sockets import find_daemons

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycor_hooks.errors import PycorError
    from pycor_hooks.sockets import Daemon


@click.command("profile")
@click.option(
    "--base",
    metavar="[PROJECT/]NAME",
    default=profile.DEFAULT_BASE,
    show_default=True,
    help="The container to share, in the project of the profile unless another is given.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="The name of profile and image.  "
    "[default: overlay for the base named base, else overlay-BASE]",
)
@click.option(
    "--project",
    metavar="NAME",
    default="default",
    show_default=True,
    help="The project whose containers will use it.",
)
@click.option(
    "--print", "only_print", is_flag=True, help="Write the profile to standard output, no more."
)
@options.prefix
@options.daemons
@options.debug
def profile_command(  # noqa: PLR0913 - an argument per option
    base: str,
    name: str | None,
    project: str,
    prefix: str,
    directories: tuple[str, ...],
    *,
    only_print: bool,
) -> None:
    """Make or update profile and image of a base.

    The image is empty but for the base's templates, and brings the profile along, so that
    `lxc launch overlay web1` is all. The base is protected from being deleted, and no longer
    started at boot. Run it again when the base was made anew from another image.

    \b
    Examples:
      pycor-hooks profile
      pycor-hooks profile --base debian --name web
      pycor-hooks profile --base default/debian --project staging
      pycor-hooks profile --base debian --print > overlay-debian.yaml
    """  # noqa: D301 - click wants the character
    profile.check_base(base)
    name = profile.check_name(name or profile.default_name(base))
    if only_print:
        apart = any(map(whereabouts.is_apart, find_daemons(directories)))
        click.echo(profile.text(prefix=prefix, base=base, apart=apart), nl=False)
        return
    daemons = options.found_daemons(directories)
    if not os.path.exists(os.path.join(prefixes.check(prefix), tree.LINK)):
        raise NoHooks(prefix=prefix)
    wish = provision.Wish(name=name, base=base, prefix=prefix)
    _ensure(wish, project, daemons, named=options.named(directories) is not None)


def _ensure(wish: provision.Wish, project: str, daemons: Sequence[Daemon], *, named: bool) -> None:
    """Make it in each daemon; some may lack the base, or be down where none was ``named``."""
    missing: PycorError | None = None
    served = False
    for daemon in daemons:
        try:
            with Connection(daemon, project) as connection:
                done = tell(provision.ensure(connection, wish))
        except NoBase as error:
            missing = error
            continue
        except Unreachable as error:
            if named:
                raise
            missing = missing or error
            tell([Note(f"skipped: {error}")])
            continue
        served = True
        if not done:
            click.echo(f"{daemon.directory}: profile and image {wish.name} are unchanged")
    if missing and not served:
        raise missing
