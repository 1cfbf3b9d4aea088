# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong between an operator, the daemons and this host, each with the way out.

Apart from `errors`, which the hooks load at every start of a container.
"""

from __future__ import annotations

from pycor_hooks.errors import PycorError, UsageError


class BadBaseName(UsageError):
    """`--base` is not the name of an instance."""

    template = "{name!r} is not the name of an instance: write --base NAME or --base PROJECT/NAME"


class BadProfileName(UsageError):
    """`--name` cannot be a profile of ours."""

    template = (
        "{name!r} cannot be the name of this profile: "
        "use letters, digits, '.', '_' and '-', and not the name default"
    )


class NothingNamed(UsageError):
    """A command was called without saying for what, or for some and for all."""

    template = "for which containers: name some, or give --base NAME, or --all by itself"


class NotADaemon(UsageError):
    """A state directory was named that is not there."""

    template = (
        "there is no {directory}: correct --daemon (or LXD_DIR, INCUS_DIR), "
        "which is the directory that holds a daemon's unix.socket"
    )


class NeedsRoot(PycorError):
    """The command writes where only root can."""

    template = "{command} needs root: run sudo {command}"


class NotLive(PycorError):
    """A container was named that has no overlay now."""

    template = "no live overlay of {names}: names are NAME or PROJECT/NAME; see pycor-hooks status"


class NeverEnds(PycorError):
    """A container keeps whoever looks at its processes waiting."""

    template = (
        "it was not done within {seconds} s, and goes on: a process of {name}, or a file system"
        " that serves it, does not answer; restart container {name}"
    )


class NotMounted(PycorError):
    """An overlay is recorded, and somebody unmounted it."""

    template = "it is not mounted at {path} any more: restart container {name}"


class BaseUntold(PycorError):
    """Nothing tells on which base an overlay stands whose record is lost."""

    template = "nothing tells which base it stands on: restart container {name}"


class Unreachable(PycorError):
    """A daemon does not answer."""

    template = (
        "{kind} at {directory} does not answer ({reason}): "
        "start it, or name the right directory with --daemon"
    )


class DaemonRefused(PycorError):
    """A daemon answered with an error of its own."""

    template = "{directory} refused to {action}: {reason}"


class ExecFailed(PycorError):
    """A command in a container did not come to its end."""

    template = "{words} in {name}: {reason}"


class Stopped(PycorError):
    """A roll-out ended before its end."""

    template = "stopped, as something went wrong; not begun: {left}"


class NotThere(DaemonRefused):
    """A daemon has no such thing."""


class NoDaemon(PycorError):
    """Neither LXD nor Incus was found."""

    template = (
        "no LXD or Incus found in the usual places: "
        "install one, or name its state directory with --daemon"
    )


class DaemonDown(PycorError):
    """What is asked for is in a mount namespace that only a running daemon shows."""

    template = (
        "{directory} does not run, and only it sees its volumes (it has a mount namespace of its "
        "own): wait until it is back, or start it"
    )


class NoProject(PycorError):
    """A project that does not exist was named."""

    template = "{directory} has no project {project}: create it, or correct --project or --base"


class NoBase(PycorError):
    """The base does not exist in the daemon."""

    template = (
        "{directory} has no instance {base}: "
        "create it ({client} launch IMAGE {name}{flag}), or name another with --base"
    )


class BaseIsVm(PycorError):
    """The base is a virtual machine."""

    template = (
        "base {base} is a virtual machine, whose disk is no lowerdir: name a container with --base"
    )


class BasePool(PycorError):
    """The base lies on a pool where a stopped instance has no rootfs on the host."""

    template = (
        "base {base} is in pool {pool}, on {driver}, whose stopped instances have no rootfs "
        "on the host: move it ({client} storage create bases dir; "
        "{client} move {name} -s bases{flag})"
    )


class BaseOnBase(PycorError):
    """The base is itself a container on a base."""

    template = (
        "base {base} is itself a container on base {other}: name {other}, or take the profile "
        "off it ({client} profile remove {name} PROFILE{flag})"
    )


class Restricted(PycorError):
    """A project forbids raw.lxc."""

    template = (
        "project {project} is restricted and does not allow raw.lxc, which names the hooks: "
        "{client} project set {project} {settings}"
    )


class ForeignProfile(PycorError):
    """A profile of that name exists and is not ours."""

    template = (
        "profile {name} in project {project} was not made by pycor-hooks: "
        "give another name with --name"
    )


class ForeignImage(PycorError):
    """An image alias of that name exists and is not ours."""

    template = (
        "image alias {name} in project {project} belongs to {owner}: give another name with --name"
    )


class ProfileHasOtherBase(PycorError):
    """Containers stand on another base through this profile."""

    template = (
        "profile {name} in project {project} puts {users} on base {other}, and a layer fits only "
        "the base that it was written on: give the profile for {base} another name with --name"
    )


class NoHooks(PycorError):
    """A profile was to name hooks that are not there."""

    template = (
        "no hooks at {prefix}, without which no container of this profile could start: "
        "run pycor-hooks install first, or give the --prefix that it was given"
    )


class BadPrefix(UsageError):
    """The hooks cannot be installed at that prefix."""

    template = "cannot install at {prefix}: {reason}"


class UnsafePrefix(PycorError):
    """Somebody besides root could change what root runs at each start of a container."""

    template = (
        "cannot install at {prefix}: {path} {reason}, and liblxc runs the hooks as root; {remedy}"
    )


class SystemPython(PycorError):
    """The Python that runs the hooks is missing or too old."""

    template = "/usr/bin/python3, which runs the hooks, {reason}: install Python 3.11 or newer"


class SystemdFailed(PycorError):
    """systemctl did not do what was asked."""

    template = "{command} failed: {reason}; see: journalctl -u {unit}"


class InUse(PycorError):
    """Something stands on what would be removed."""

    template = "not uninstalled: {users}; {remedy}"


class VolumeAway(PycorError):
    """The volume of a stopped container is not mounted, so nothing of it can be tried."""

    template = (
        "{path} is not there while the container is stopped, as its pool is on {driver}: "
        "look again when it runs"
    )


class NotAsked(PycorError):
    """Daemons that may use what would be removed were not named."""

    template = (
        "not uninstalled: {directories} has containers of pycor-hooks, or is watched, and was not "
        "looked at: name it, too (--daemon {directories}), and start it where it does not run; "
        "if it is gone for good, remove what is left of it"
    )


class UnsafeProgram(PycorError):
    """Somebody besides root could change what root runs as the watcher."""

    template = (
        "cannot install the watcher: {reason}, and systemd runs {command} as root: install "
        "pycor-hooks as root, with make install or sudo pipx install --global; or --no-systemd"
    )


class NoIdMap(PycorError):
    """The daemon has not given a container ids yet."""

    template = "the daemon has not said by which ids {name} will run: start it once"


class NotFound(PycorError):
    """A container was named that no daemon has."""

    template = "there is no container {name} in {directories}: names are NAME or PROJECT/NAME"


class NoManifest(PycorError):
    """It cannot be told what has changed in a base."""

    template = (
        "base {base} {reason}, so it cannot be told what has changed in it: pycor-hooks watch "
        "writes the manifest whenever it sees the base stopped and containers on it"
    )


class NoLayer(PycorError):
    """A container was named that has no overlay, live or stopped."""

    template = (
        "no container {name} with a layer of its own: names are NAME or PROJECT/NAME, "
        "and another daemon's directory is named with --daemon"
    )


class Ambiguous(UsageError):
    """A name is that of containers in several daemons."""

    template = "{name} is in several daemons ({daemons}): name one with --daemon"


class BaseUnknown(PycorError):
    """It cannot be told what a stopped container's layer was written on."""

    template = "{reason}: name the base that {name} was last started on with --base"


class BaseRuns(PycorError):
    """Nothing can be given back to, or started from, a base that is being changed."""

    template = "base {base} runs: stop it first, and try again"


class Restarted(PycorError):
    """A container was started or stopped while somebody worked on it."""

    template = "{name} has been started or stopped in the meantime: look again"


class HiddenAbove(UsageError):
    """The base would not show at a path that is given back to it."""

    template = (
        "{path} is in {above}, which the container has made anew, so nothing of the base shows "
        "in it: drop {above}"
    )


class NotOwn(PycorError):
    """A path was named that is the base's already."""

    template = "{name} has nothing of its own at {path}: see pycor-hooks diff {name}"


class NotTold(PycorError):
    """Something is about to be lost, and nobody has said that it may be."""

    template = "nothing was dropped: this would be lost, and --yes drops it"


class BadPath(UsageError):
    """A path was given that is none below the root of a container."""

    template = "{path!r} is no path in a container: write it from its root, such as /etc/hosts"


class MaskingDropped(UsageError):
    """`--drop` was given with `--masking`: it takes all of the container's own at a path."""

    template = "--masking shows, and --drop takes all that is at a path: give one of them"


class NothingToDrop(UsageError):
    """`--drop` was given without a path."""

    template = "nothing to drop: name paths, such as pycor-hooks diff NAME --drop /etc/hosts"
