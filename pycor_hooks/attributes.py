# SPDX-License-Identifier: GPL-3.0-or-later
"""What a directory has besides its entries: mode, owner, mtime, extended attributes, ACLs.

As stored on disk, by whichever ids its layer uses; ``shifted`` goes from one layer to another.

Imported by the hooks: standard library only.
"""

from __future__ import annotations

import os
import stat
from struct import Struct

OPAQUE = ("user.overlay.opaque", "trusted.overlay.opaque")
_OVERLAY = ("user.overlay.", "trusted.overlay.")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
# struct posix_acl_xattr_header and _entry of linux/posix_acl_xattr.h
_HEADER = Struct("<I")
_ENTRY = Struct("<HHI")
_ACL_WITH_ID = {0x02, 0x08}  # ACL_USER, ACL_GROUP


class Attributes:
    """The attributes of one directory; equal where all of them are."""

    __slots__ = ("gid", "mode", "mtime_ns", "uid", "xattrs")

    def __init__(
        self, *, mode: int, uid: int, gid: int, mtime_ns: int, xattrs: dict[str, bytes]
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.xattrs = xattrs

    def __str__(self) -> str:
        """Everything in one word, to be compared."""
        xattrs = "".join(f":{name}={self.xattrs[name].hex()}" for name in sorted(self.xattrs))
        return f"{self.mode:o}:{self.uid}:{self.gid}:{self.mtime_ns}{xattrs}"

    def same_but_for_times(self, other: Attributes) -> bool:
        """Whether two that are stored by the same ids differ in nothing but the mtime."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("mode", "uid", "gid", "xattrs")
        )

    def shifted(self, by: int) -> Attributes:
        """The same for a layer whose ids are stored ``by`` higher."""
        return Attributes(
            mode=self.mode,
            uid=self.uid + by,
            gid=self.gid + by,
            mtime_ns=self.mtime_ns,
            xattrs={
                name: _shift_acl(value, by) if name in _ACLS else value
                for name, value in self.xattrs.items()
            },
        )

    def give(self, descriptor: int) -> None:
        """Give them to a directory, in place of those that it has."""
        now = of(descriptor)
        for name in now.xattrs.keys() - self.xattrs.keys():
            os.removexattr(descriptor, name)
        if (now.uid, now.gid) != (self.uid, self.gid):
            os.fchown(descriptor, self.uid, self.gid)
        for name, value in self.xattrs.items():
            if now.xattrs.get(name) != value:
                os.setxattr(descriptor, name, value)
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != self.mode:  # an ACL sets it, too
            os.fchmod(descriptor, self.mode)
        os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, self.mtime_ns))


def of(descriptor: int) -> Attributes:
    """The attributes of an open directory, without OverlayFS's own."""
    found = os.fstat(descriptor)
    return Attributes(
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
        xattrs={
            name: os.getxattr(descriptor, name)
            for name in os.listxattr(descriptor)
            if not name.startswith(_OVERLAY)
        },
    )


def is_opaque(descriptor: int) -> bool:
    """Whether OverlayFS shows nothing of the base in this directory of an upper."""
    return b"y" in opaque_marks(descriptor)


def opaque_marks(descriptor: int) -> list[bytes]:
    """The values of the mark of opaque directories, which an open directory of an upper has.

    By either name (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
    """
    return [os.getxattr(descriptor, name) for name in os.listxattr(descriptor) if name in OPAQUE]


def _shift_acl(value: bytes, by: int) -> bytes:
    entries = _ENTRY.iter_unpack(value[_HEADER.size :])
    return value[: _HEADER.size] + b"".join(
        _ENTRY.pack(tag, permissions, identity + by if tag in _ACL_WITH_ID else identity)
        for tag, permissions, identity in entries
    )
