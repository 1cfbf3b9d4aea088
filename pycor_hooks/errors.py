# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, each with its cause and the way out in one line.

Imported by the hooks: standard library only, and nothing that loads slowly.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Escape what a terminal or a log would act on; a container may have chosen the text.

    Args:
        text: any string, with surrogates where a file name is not UTF-8.

    Returns:
        The text with control characters and surrogates written as ``\\xNN`` or ``\\uNNNN``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class PycorError(Exception):
    """The root of all errors that have a name here.

    A subclass states its ``template``; ``raise`` gives the values by keyword, and they stay
    readable as attributes.
    """

    exit_code = 1
    template = "{reason}"

    def __init__(self, **data: object) -> None:
        super().__init__(data)
        self.__dict__.update(data)

    def __str__(self) -> str:
        return printable(self.template.format(**self.__dict__))


class UsageError(PycorError):
    """A command or a hook was called with words that it does not know."""

    exit_code = 2


class UnknownOption(UsageError):
    """raw.lxc gives a hook an option that it does not have."""

    template = (
        "unknown option {option!r} for the {hook} hook: "
        "correct the lxc.hook lines in raw.lxc of the profile ({usage})"
    )


class BadName(UsageError):
    """A base was named in a way that no instance can be called."""

    template = (
        "{name!r} is not the name of an instance: "
        "write --base NAME or --base PROJECT/NAME in raw.lxc of the profile"
    )


class NotAHook(UsageError):
    """A hook script was run by hand."""

    template = (
        "{variable} is not set: this script is run by liblxc, "
        "as a hook named in raw.lxc of a profile, and not by hand"
    )


class UnknownLayout(PycorError):
    """LXC_ROOTFS_PATH is nowhere where LXD or Incus keep a container."""

    template = (
        "cannot tell the daemon's directory from {path}: expected "
        "DIR/storage-pools/POOL/containers/NAME/rootfs; is lxc.rootfs.path set in raw.lxc?"
    )


class BaseNotFound(PycorError):
    """No instance of the base's name exists."""

    template = (
        "base {base} does not exist ({path} is missing): "
        "create it, or name another base in raw.lxc of the profile"
    )


class BaseWithoutRootfs(PycorError):
    """The base's volume is there, but its tree is not mounted while it is stopped."""

    template = (
        "base {label} has no rootfs at {path}: its pool is on {driver}, where the volume of a "
        "stopped instance is not mounted; move the base to a dir or btrfs pool "
        "({client} storage create bases dir; {client} move {name} -s bases{flag})"
    )


class BaseIsSelf(PycorError):
    """A container was given the profile of which it is the base."""

    template = (
        "{label} cannot be its own base: take the overlay profile off it "
        "({client} profile remove {name} PROFILE{flag})"
    )


class BaseIsOverlay(PycorError):
    """The base is itself an overlay container, so its rootfs is not the whole tree."""

    template = (
        "base {base} is itself an overlay container ({path} exists): "
        "name the base that it stands on in raw.lxc of the profile"
    )


class BaseEmpty(PycorError):
    """The base's rootfs holds nothing, so a container on it could not start."""

    template = "the rootfs of base {base} at {path} is empty: start the base from a full image"


class BaseReplaced(PycorError):
    """The base's tree was exchanged between the look at it and the mount."""

    template = (
        "base {base} was deleted, replaced or re-owned at {path} while {name} started: "
        "start {name} again when that is done"
    )


class BaseOwnerMixed(PycorError):
    """The owner of the base's root directory does not tell where its ids begin."""

    template = (
        "the root directory of base {base} is owned by {uid}:{gid}, not by its root, so the ids "
        "of its files cannot be told: in the base, run chown root:root / /etc /usr"
    )


class RootNotMapped(PycorError):
    """The container's id map has no place for the base's root."""

    template = (
        "the id map of {name} has no {kind} 0, so it cannot hold the root of base {base}: "
        "correct raw.idmap or lxc.idmap of the container"
    )


class HostLimit(PycorError):
    """The kernel makes no more user namespaces (namespaces(7)), or mounts."""

    template = (
        "the host has as many user namespaces or mounts as it may have ({error}): raise "
        "user.max_user_namespaces or fs.mount-max with sysctl"
    )


class NoIdmappedMounts(PycorError):
    """The ids differ and the kernel or the file system cannot map a layer."""

    template = (
        "cannot map the ids of {path} ({error}): this needs idmapped mounts for its file system "
        "below OverlayFS (Linux 5.19 or newer); give base and container the same ids instead "
        "(security.privileged and security.idmap.isolated alike, "
        "LXD_IDMAPPED_MOUNTS_DISABLE or INCUS_IDMAPPED_MOUNTS_DISABLE for the daemon)"
    )


class BadLayer(PycorError):
    """A directory of the container's own layer is something else."""

    template = (
        "{path} is not a directory but {kind}, and pycor-hooks never leaves it so: "
        "restore the container from a snapshot, or move all of overlay/ away and start afresh"
    )


class BadRootfs(PycorError):
    """The rootfs of an instance is not a directory, so it would lead elsewhere."""

    template = (
        "{path} is not a directory but {kind}, as no daemon makes it: {label} was imported from a "
        "backup that somebody tampered with; find out who, and delete it "
        "({client} delete {name}{flag})"
    )


class MonitorGone(PycorError):
    """[lxc monitor] was killed while its pre-start hook ran: nobody would take anything down."""

    template = (
        "the [lxc monitor] of {label} has died while it started: "
        "start it again ({client} start {name}{flag})"
    )


class RootDiskReadonly(PycorError):
    """The root disk is read-only, which an overlay's upper cannot be."""

    template = (
        "the root disk of {label} has readonly=true, and an overlay needs a writable one: "
        "{client} config device set {name} root readonly=false{flag}"
    )


class NoSpace(PycorError):
    """The container's own layer or /run cannot take another directory."""

    template = "no space left at {path} ({error}): free some, or raise the quota of the root disk"


class LayerReadonly(PycorError):
    """The overlay could not be mounted for writing."""

    template = (
        "the overlay at {path} came up read-only: the file system of {upperdir} is read-only "
        "or full, or does not support what OverlayFS needs; the kernel log (dmesg) names it"
    )


class MountFailed(PycorError):
    """mount(2) refused the overlay."""

    template = (
        "cannot mount the overlay ({error}): lowerdir={lowerdir} upperdir={upperdir}: {hint}"
    )


class StrayClash(PycorError):
    """Something in the bare rootfs cannot be put into the container."""

    template = (
        "{path} was put into the stopped container as {kind}, where the container has {other}: "
        "remove it from {bare}, or push it to another path"
    )


class StrayFailed(PycorError):
    """Something in the bare rootfs could not be read, or not be written into the container."""

    template = (
        "cannot put {path} into the container ({error}, errno {code}): what came before it is "
        "there; see what is wrong with that file or its disk, and start the container again"
    )


class OwnSystem(PycorError):
    """The container's rootfs is not bare but holds an operating system."""

    template = (
        "{name} has an operating system of its own ({path}), which the overlay would hide: "
        "launch it from the image of the overlay profile, or take the profile off it"
    )


class StillHeld(PycorError):
    """Another overlay, a process or a lock stands in the way of this start."""

    template = "{path} is still held by {holder}: {remedy}"


class NotOurs(PycorError):
    """Something that we did not mount stands where our overlay belongs."""

    template = "{path} is a mount that pycor-hooks did not make: unmount it first (findmnt {path})"


class CannotFreeze(PycorError):
    """A container's processes do not stop."""

    template = "the container cannot be frozen: {reason}"


class BadState(PycorError):
    """A state file does not say what it should."""

    template = "{path} is not a state file of pycor-hooks: {reason}"


class BadJournal(BadState):
    """The journal of a cure is not one of ours: it came with the volume, or is damaged."""

    template = (
        "{path} is not the journal of a cure ({reason}): remove in upper what whiteouts are not"
        " the container's own (find upper -type c), then cure beside it"
    )
