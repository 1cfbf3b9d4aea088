# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bases an event makes the watcher look at, and what is done after a look."""

from __future__ import annotations

from typing import Any

import pytest

from pycor_hooks.events import Change, LifecycleEvent
from pycor_hooks.plan import (
    PATIENCE,
    Base,
    Look,
    by_base,
    decide,
    profiles_naming,
    react,
    react_to_flood,
)
from pycor_hooks.record import Record

LXD = "/var/lib/lxd"
BASE = Base(LXD, "default", "base")


def overlay(name: str, *, base: Base = BASE, identity: str = "8:1:2:0") -> Record:
    """A live overlay in the default project."""
    return Record(
        daemon=base.daemon,
        project="default",
        name=name,
        base_project=base.project,
        base_name=base.name,
        lower_identity=identity,
    )


def event(
    change: Change, name: str = "base", project: str = "default", old: str = ""
) -> LifecycleEvent:
    """An event from a lone daemon."""
    return LifecycleEvent(change, project, name, old_name=old)


def test_by_base() -> None:
    """Overlays are sorted by daemon, project and name of their base."""
    other = BASE._replace(project="web")
    incus = BASE._replace(daemon="/var/lib/incus")
    web1, web2, web3, web4 = (
        overlay("web1"),
        overlay("web2", base=other),
        overlay("web3"),
        overlay("web4", base=incus),
    )
    assert by_base([web1, web2, web3, web4]) == {BASE: [web1, web3], other: [web2], incus: [web4]}


def test_a_project_of_a_hostile_name() -> None:
    """The daemons take any name of a project; people are shown one line, and no commands."""
    assert str(Base(LXD, "a\x1b[31m\n\u202e", "base")) == r"a\x1b[31m\n\u202e/base"


def test_a_hook_line_that_names_nothing() -> None:
    """An empty hook line, which takes hooks back, is one like others."""
    profiles = [("default", {"name": "p", "config": {"raw.lxc": "lxc.hook.stop =\nlxc.hook.x"}})]
    assert profiles_naming(BASE, profiles) == []


def test_stopped() -> None:
    """A base that was said to have stopped is given time to do so."""
    assert react(event(Change.STOPPED), LXD, {BASE}) == [Look(BASE, "stopped", PATIENCE)]


def test_flood() -> None:
    """Of a daemon that said too much, every base is looked at, as if it had just stopped."""
    elsewhere = BASE._replace(daemon="/var/lib/incus")
    (look,) = react_to_flood({LXD}, [BASE, elsewhere])
    assert (look.base, look.patience) == (BASE, PATIENCE)


@pytest.mark.parametrize("change", [Change.RESTARTED, Change.STARTED, Change.CHANGED])
def test_looked_at_once(change: Change) -> None:
    """After any other change the base is looked at, without waiting for it to stop."""
    assert react(event(change), LXD, {BASE}) == [Look(BASE, change.name.lower())]


def test_renamed() -> None:
    """A rename concerns the base under its old name, which profiles still say."""
    renamed = event(Change.RENAMED, "base2", old="base")
    assert react(renamed, LXD, {BASE}) == [Look(BASE, "renamed to base2", name_is_gone=True)]


def test_renamed_to_the_name_of_a_base() -> None:
    """A rename to a base's name gives it another tree, or its own back."""
    renamed = event(Change.RENAMED, "base", old="other")
    assert react(renamed, LXD, {BASE}) == [Look(BASE, "renamed from other")]


def test_renamed_between_two_bases() -> None:
    """A rename may concern a base under either name."""
    other = BASE._replace(name="other")
    looks = react(event(Change.RENAMED, "base", old="other"), LXD, {BASE, other})
    assert [look.base for look in looks] == [other, BASE]


def test_deleted() -> None:
    """After a deletion the name is gone, too."""
    assert react(event(Change.DELETED), LXD, {BASE}) == [Look(BASE, "deleted", name_is_gone=True)]


@pytest.mark.parametrize(
    ("daemon", "project", "name"),
    [
        (LXD, "default", "web1"),
        (LXD, "web", "base"),
        ("/var/lib/incus", "default", "base"),
    ],
)
def test_not_a_base(daemon: str, project: str, name: str) -> None:
    """An instance that no live overlay stands on is nobody's concern, a namesake included."""
    assert react(event(Change.STOPPED, name, project), daemon, {BASE}) == []


def test_stopped_base_is_refreshed() -> None:
    """With the base stopped, all its overlays are refreshed."""
    overlays = [overlay("web1"), overlay("web2")]
    decision = decide(overlays, running=False, identity="8:1:2:0")
    assert (decision.refresh, decision.pending, decision.detached) == (overlays, False, [])


def test_running_base_is_pending() -> None:
    """With the base running, nothing is refreshed until it stops."""
    decision = decide([overlay("web1")], running=True, identity="8:1:2:0")
    assert (list(decision.refresh), decision.pending, decision.detached) == ([], True, [])


def test_replaced_base() -> None:
    """Overlays mounted on another tree than the base's are named; newer ones are not."""
    old, new = overlay("old"), overlay("new", identity="8:1:3:0")
    decision = decide([old, new], running=False, identity="8:1:3:0")
    assert decision.detached == [old]
    assert decision.refresh == [old, new]


def test_restored_while_running() -> None:
    """A base that was replaced and runs again: its overlays are named at once."""
    old = overlay("old")
    decision = decide([old], running=True, identity="8:1:3:0")
    assert (decision.pending, decision.detached) == (True, [old])


def test_missing_base() -> None:
    """Without a base there is nothing to refresh, and every overlay is named."""
    web1 = overlay("web1")
    decision = decide([web1], running=False, identity=None)
    assert (list(decision.refresh), decision.pending, decision.detached) == ([], False, [web1])


RAW = """\
lxc.rootfs.options =
lxc.hook.pre-start = /usr/local/lib/pycor-hooks/hooks/pre-start {}
lxc.hook.stop = /usr/local/lib/pycor-hooks/hooks/stop
"""


@pytest.mark.parametrize(
    ("home", "arguments", "found"),
    [
        ("default", "--base base", True),
        ("default", "--base=base", True),
        ("default", "--base default/base", True),
        ("web", "--base default/base", True),
        ("default", "--base 'base'", True),
        ("web", "--base base", False),
        ("default", "--base base2", False),
        ("default", "--base web/base", False),
        ("default", "--base", False),
        ("default", "", False),
        ("default", "--base 'base", False),
    ],
)
def test_profiles_naming(home: str, arguments: str, found: bool) -> None:  # noqa: FBT001
    """A profile names a base in its hook line, bare within the project or in full anywhere."""
    profile = {"name": "overlay", "config": {"raw.lxc": RAW.format(arguments)}}
    where = "overlay" if home == "default" else f"{home}/overlay"
    assert profiles_naming(BASE, [(home, profile)]) == ([where] if found else [])


def test_profiles_of_default_serve_other_projects() -> None:
    """A bare name in the default project's profile may mean a base of any project."""
    profile = {"name": "overlay", "config": {"raw.lxc": RAW.format("--base base")}}
    in_web = BASE._replace(project="web")
    assert profiles_naming(in_web, [("default", profile)]) == ["overlay"]


def test_profiles_without_hooks() -> None:
    """Profiles without raw.lxc, and comments in it, name nothing."""
    profiles: list[tuple[str, dict[str, Any]]] = [
        ("default", {"name": "default", "config": {}}),
        ("default", {"name": "odd", "config": None}),
        ("default", {"name": "comment", "config": {"raw.lxc": "# lxc.hook.x = --base base\n"}}),
    ]
    assert profiles_naming(BASE, profiles) == []
