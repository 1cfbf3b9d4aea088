# SPDX-License-Identifier: GPL-3.0-or-later
"""Id maps: what a container's is, and which map each of its layers needs.

A layer is stored with its ids shifted by its owner (user id 0 of the container that wrote it).
The map of a layer goes from on-disk id to host id: ``owner + n`` to what the container that
mounts it has for ``n``. user_namespaces(7) describes the form of a map.
"""

from __future__ import annotations

_MAX_ID = 4294967294


class IdMap:
    """A container's map: for users and for groups, extents of (in the container, host, count)."""

    __slots__ = ("gids", "uids")

    def __init__(self, uids: list[tuple[int, int, int]], gids: list[tuple[int, int, int]]) -> None:
        self.uids = uids
        self.gids = gids

    def uid(self, inside: int) -> int | None:
        """The host's user id for one of the container's, None where it has none."""
        return _translate(self.uids, inside)

    def gid(self, inside: int) -> int | None:
        """The host's group id for one of the container's, None where it has none."""
        return _translate(self.gids, inside)

    def layer(self, owner: int) -> tuple[str, str] | None:
        """The map of a layer whose container's root is stored as ``owner``.

        Returns:
            The texts for uid_map and gid_map of a user namespace, or None where the ids are
            stored as the host's already and no mapping is needed.
        """
        uids = _shift(self.uids, owner)
        gids = _shift(self.gids, owner)
        if all(stored == host for stored, host, _ in uids + gids):
            return None
        return _render(uids), _render(gids)


def from_config(values: list[str]) -> IdMap:
    """The map that ``lxc.idmap`` lines give.

    Args:
        values: right-hand sides such as ``u 0 100000 65536``; none for a privileged container.

    Raises:
        ValueError: a line is not of that form (lxc.container.conf(5), "USER NAMESPACE MAPS").
    """
    if not values:
        everything = [(0, 0, _MAX_ID + 1)]
        return IdMap(everything, everything)
    uids: list[tuple[int, int, int]] = []
    gids: list[tuple[int, int, int]] = []
    for value in values:
        kind, inside, host, count = value.split()
        extent = (int(inside), int(host), int(count))
        if kind not in {"u", "g", "b"}:
            reason = f"lxc.idmap = {value}"
            raise ValueError(reason)
        if kind != "g":
            uids.append(extent)
        if kind != "u":
            gids.append(extent)
    return IdMap(uids, gids)


def _translate(extents: list[tuple[int, int, int]], inside: int) -> int | None:
    for first, host, count in extents:
        if first <= inside < first + count:
            return host + inside - first
    return None


def _shift(extents: list[tuple[int, int, int]], owner: int) -> list[tuple[int, int, int]]:
    """Extents of (on disk, host, count), cut off where ids end."""
    return [
        (owner + inside, host, min(count, _MAX_ID + 1 - owner - inside, _MAX_ID + 1 - host))
        for inside, host, count in extents
        if owner + inside <= _MAX_ID
    ]


def _render(extents: list[tuple[int, int, int]]) -> str:
    return "".join(f"{stored} {host} {count}\n" for stored, host, count in extents)
