# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of `impact`: changes by package, and who uses what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pycor_hooks import impact, manifest
from pycor_hooks.impact import Seen, User
from pycor_hooks.plan import Base
from tests.unit.test_manifest import DIRECTORY, entry
from tests.unit.test_status import LXD, recorded

if TYPE_CHECKING:
    from pycor_hooks.manifest import Change, Entry

BASE = Base(LXD, "default", "base")


def changed(path: str, old: Entry | None, new: Entry | None) -> Change:
    """What became of a path, of which these entries are the two sides."""
    sides = (side and side._replace(path=path) for side in (old, new))
    (change,) = manifest.change(*sides)
    return change


def seen(**fields: Any) -> Seen:
    """A base of which nothing is to be told, but for these."""
    nothing = Seen(base=BASE, changes=[], owners={}, before={}, now={}, users=[])
    return nothing._replace(**fields)


def test_nothing_changed() -> None:
    """No row."""
    assert impact.rows(seen(before={"a": "1"}, now={"a": "1"})) == []


def test_by_package() -> None:
    """A row for each package, with both versions, and one for the files of none, the last."""
    changes = [
        changed("usr/bin/a", entry(""), entry("", ino=6)),
        changed("usr/lib/new", None, entry("")),
        changed("usr/lib/old", entry(""), None),
        changed("var/log", None, entry("", DIRECTORY)),
        changed("var/log/x", None, entry("")),
        changed("usr/share/a", entry("", DIRECTORY), entry("", DIRECTORY, ino=6)),
    ]
    owners = {"usr/bin/a": "a", "usr/lib/new": "a", "usr/share/a": "a", "usr/lib/old": "b"}
    before, now = {"a": "1", "b": "1", "same": "1", "gone": "1"}, {"a": "2", "b": "1", "same": "1"}
    rows = impact.rows(seen(changes=changes, owners=owners, before=before, now=now))
    assert [
        tuple(row[key] for key in ("package", "version", "new_version", *manifest.KINDS))
        for row in rows
    ] == [
        ("a", "1", "2", 1, 1, 0, 1),
        ("b", "1", "1", 0, 0, 1, 0),
        ("gone", "1", None, 0, 0, 0, 0),
        (None, None, None, 1, 0, 0, 0),
    ]
    for row in rows:
        assert tuple(row) == impact.KEYS
        assert [row[key] for key in impact.USER_KEYS] == [None] * 6


def test_who_uses_it() -> None:
    """One row for each unit, of all its processes, and for each process without a unit."""
    web1, web2 = recorded(), recorded(name="web2", project="blue")
    users = [
        User(web2, None, 9, "sh", frozenset(["usr/lib/b"])),
        User(web2, None, 10, "sh", frozenset(["usr/lib/b"])),
        User(web1, "a.service", 3, "a", frozenset(["usr/bin/a", "usr/lib/b"])),
        User(web1, "a.service", 5, "worker", frozenset(["usr/bin/b"])),
    ]
    paths = ("usr/bin/a", "usr/bin/b", "usr/lib/b")
    changes = [changed(path, entry(""), entry("", ino=6)) for path in paths]
    owners = {"usr/bin/a": "a", "usr/bin/b": "b", "usr/lib/b": "b"}
    rows = impact.rows(seen(changes=changes, owners=owners, users=users))
    assert [
        tuple(row[key] for key in ("package", "changed", *impact.USER_KEYS)) for row in rows
    ] == [
        ("a", 1, "default", "web1", "a.service", 3, "a", ["/usr/bin/a"]),
        ("b", 2, "blue", "web2", None, 9, "sh", ["/usr/lib/b"]),
        ("b", 2, "blue", "web2", None, 10, "sh", ["/usr/lib/b"]),
        ("b", 2, "default", "web1", "a.service", 3, "a", ["/usr/bin/b", "/usr/lib/b"]),
    ]
