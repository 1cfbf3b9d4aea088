# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of /1.0/events, as LXD 5.0 and Incus 6.0 send them, and what neither should."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycor_hooks.events import ACTIONS, Change, LifecycleEvent, MalformedEvent, parse

LXD = (
    '{"type":"lifecycle","timestamp":"2025-01-01T10:00:00.000000001Z",'
    '"metadata":{"action":"instance-shutdown","source":"/1.0/instances/base","context":{},'
    '"requestor":{"username":"root","protocol":"unix","address":"@"}},'
    '"location":"none","project":"default"}'
)
INCUS = (
    '{"type":"lifecycle","timestamp":"2025-01-01T10:00:00.000000001Z",'
    '"metadata":{"action":"instance-renamed","source":"/1.0/instances/new?project=web",'
    '"context":{"old_name":"old"},"name":"new","project":"web"},'
    '"location":"none","project":"web"}'
)


def message(
    action: str = "instance-stopped",
    source: str = "/1.0/instances/base",
    *,
    inside: dict[str, Any] | None = None,
    **outside: Any,
) -> str:
    """A lifecycle event as JSON, with more in its metadata and around it."""
    metadata = {"action": action, "source": source, **(inside or {})}
    return json.dumps({"type": "lifecycle", "metadata": metadata, **outside})


def test_lxd() -> None:
    """LXD names the instance in the source alone, and says "none" for no cluster."""
    assert parse(LXD) == LifecycleEvent(Change.STOPPED, "default", "base")


def test_incus() -> None:
    """Incus repeats name and project in the metadata; a rename gives the old name as well."""
    assert parse(INCUS) == LifecycleEvent(Change.RENAMED, "web", "new", old_name="old")


def test_bytes() -> None:
    """A binary frame is read like a text frame."""
    assert parse(LXD.encode()) == parse(LXD)


@pytest.mark.parametrize(
    ("action", "change"),
    [
        ("instance-shutdown", Change.STOPPED),
        ("instance-stopped", Change.STOPPED),
        ("instance-restarted", Change.RESTARTED),
        ("instance-started", Change.STARTED),
        ("instance-restored", Change.CHANGED),
        ("instance-created", Change.CHANGED),
        ("instance-file-pushed", Change.CHANGED),
        ("instance-file-deleted", Change.CHANGED),
        ("instance-deleted", Change.DELETED),
    ],
)
def test_meaning(action: str, change: Change) -> None:
    """Each action that touches a tree or ends a run means what FACTS.md's table says."""
    event = parse(message(action))
    assert event is not None
    assert event.change is change


@pytest.mark.parametrize(
    "action", ["instance-exec", "instance-file-retrieved", "instance-snapshot-created", "x"]
)
def test_no_meaning(action: str) -> None:
    """An action that leaves the tree alone, or that nobody knows, is no event for us."""
    assert parse(message(action)) is None


def test_other_types() -> None:
    """Messages of another type are passed over, whatever is in them."""
    assert parse('{"type":"logging","metadata":17}') is None


@pytest.mark.parametrize(
    ("text", "project"),
    [
        (message(source="/1.0/instances/base?project=a"), "a"),
        (message(source="/1.0/instances/base?project=a%20b&x=y"), "a b"),
        (message(project="b"), "b"),
        (message(source="/1.0/instances/base?project=a", project="b"), "a"),
        (message(inside={"project": "c"}, project="b"), "c"),
        (message(), "default"),
        (message(project=""), "default"),
    ],
)
def test_project(text: str, project: str) -> None:
    """The project is the metadata's, else the source's, else the message's, else default."""
    event = parse(text)
    assert event is not None
    assert event.project == project


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/1.0/instances/web-1", "web-1"),
        ("/1.0/containers/base", "base"),
        ("/1.0/instances/base/files?path=%2Fetc%2Fmotd&project=p", "base"),
        ("/1.0/instances/b%61se", "base"),
    ],
)
def test_name_in_source(source: str, name: str) -> None:
    """The name is the component after the collection, unescaped."""
    event = parse(message(source=source))
    assert event is not None
    assert event.name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"lifecycle"',
        "{}",
        '{"type":"lifecycle"}',
        '{"type":"lifecycle","metadata":null}',
        '{"type":"lifecycle","metadata":{"action":["a"],"source":""}}',
        message(source=""),
        message(source="/1.0/instances"),
        message(source="/1.0/instances/"),
        message(source="/1.0/networks/base"),
        message(source="http://[/1.0/instances/base"),
        message(inside={"name": 17}),
        message(inside={"context": "old"}),
        message(project=["p"]),
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_malformed(text: str | bytes) -> None:
    """What is not an event is refused with one printable line that shows it."""
    with pytest.raises(MalformedEvent) as caught:
        parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    type_=st.just("lifecycle") | _json,
    action=st.sampled_from(sorted(ACTIONS)) | _json,
    source=st.just("/1.0/instances/x?project=y") | _json,
    more=st.dictionaries(st.sampled_from(["name", "project", "context"]), _json),
    project=_json,
)
def test_any_json(
    type_: Any, action: Any, source: Any, more: dict[str, Any], project: Any
) -> None:
    """Whatever JSON comes, it is an event, nothing, or MalformedEvent."""
    metadata = {"action": action, "source": source, **more}
    text = json.dumps({"type": type_, "metadata": metadata, "project": project})
    try:
        event = parse(text)
    except MalformedEvent:
        return
    assert event is None or (event.name and event.project)


@given(st.text() | st.binary())
def test_any_text(text: str | bytes) -> None:
    """Whatever else comes is nothing or MalformedEvent."""
    with contextlib.suppress(MalformedEvent):
        assert parse(text) is None
