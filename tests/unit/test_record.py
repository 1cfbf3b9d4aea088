# SPDX-License-Identifier: GPL-3.0-or-later
"""State files: what is written is read again, what is not ours is named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycor_hooks import record
from pycor_hooks.errors import BadState

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mock import MockerFixture


@pytest.fixture
def sample(tmp_path: Path, mocker: MockerFixture) -> record.Record:
    """A record with a /run of its own."""
    mocker.patch.object(record, "RUN", str(tmp_path))
    found = record.Record(
        daemon="/var/lib/lxd",
        project="blue",
        name="web1",
        base_project="default",
        base_name="base",
        lowerdirs=["/pool/base/rootfs", "/other"],
        upperdir="/pool/a b\\c\nd\udcff/upper",
        workdir="/pool/work",
        rootfs="/pool/rootfs",
        lower_identity="1:2:3:4",
        monitor=12,
        monitor_start=34,
        init=0,
        init_start=0,
        converged=3,
        started_at=1795490340.25,
    )
    os.makedirs(found.directory)
    return found


def test_a_record_is_read_as_it_was_written(sample: record.Record) -> None:
    """Every field, with blanks, line ends, backslashes and bytes that are not UTF-8."""
    sample.write()
    again = record.read(sample.directory)
    for attribute in record.Record.__slots__:
        if attribute != "refreshed_at":
            assert getattr(again, attribute) == getattr(sample, attribute)
    assert again.refreshed_at == os.stat(sample.state_path).st_mtime
    assert os.listdir(sample.directory) == ["state"]


def test_a_record_that_is_written_again_keeps_the_time_of_the_refresh(
    sample: record.Record,
) -> None:
    """It tells when the overlay was refreshed, and not when anything else was noted."""
    sample.write()
    os.utime(sample.state_path, (1000, 1000))
    record.read(sample.directory).write()
    assert record.read(sample.directory).refreshed_at == 1000


def test_names_below_run(sample: record.Record) -> None:
    """Key and directories follow liblxc's name of the container, and of its base."""
    assert (sample.key, sample.base_key) == ("blue_web1", "base")
    assert sample.merged == f"{record.RUN}/var-lib-lxd/blue_web1/merged"


@pytest.mark.parametrize(
    "change",
    [
        ("VERSION=1", "VERSION=2"),
        ("VERSION=1\n", ""),
        ("MONITOR=12", "MONITOR=twelve"),
        ("NAME=web1\n", ""),
        ("NAME=web1", "NAME=web2"),
        ("STARTED_AT=", "STARTED_AT=x"),
        ("STARTED_AT=1795490340.25", "STARTED_AT=inf"),
        ("STARTED_AT=1795490340.25", "STARTED_AT=253402300800"),
        ("NAME=web1", r"NAME=\9"),
    ],
)
def test_a_state_file_that_is_not_ours_is_named(
    sample: record.Record, change: tuple[str, str]
) -> None:
    """Another version, a missing or garbled field, another container's file."""
    sample.write()
    with open(sample.state_path, encoding="utf-8") as file:
        text = file.read().replace(*change)
    with open(sample.state_path, "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(BadState, match="is not a state file of pycor-hooks"):
        record.read(sample.directory)


@pytest.mark.parametrize(
    ("project", "name", "key"), [("default", "web1", "web1"), ("a_b", "web1", "a_b_web1")]
)
def test_keys(project: str, name: str, key: str) -> None:
    """The project stands before the name, but for the default one; it may have underscores."""
    assert record.key_of(project, name) == key
    assert record.split_key(key) == (project, name)


@pytest.mark.parametrize("name", [r"\x", r"\xzz", r"\x+1"])
def test_a_name_below_run_that_is_not_ours(name: str) -> None:
    """Whatever an operator put there, its name is shown."""
    assert record.unescape(name) == f"/{name}"


def test_directories_are_escaped_as_systemd_does() -> None:
    """Readable, one file name, and reversible."""
    assert record.escape("/var/lib/lxd") == "var-lib-lxd"
    assert record.escape("/srv/my-lxd.d") == "srv-my\\x2dlxd.d"


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_escaping_loses_nothing(text: str) -> None:
    """Any absolute path comes back."""
    try:
        path = "/" + os.fsdecode(os.fsencode(text)).strip("/")
    except UnicodeEncodeError:
        return
    name = record.escape(path)
    assert "/" not in name
    assert record.unescape(name) == path
