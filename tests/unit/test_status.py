# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of `status`: records, mounts and bases, joined."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pycor_hooks import descent, live, lost, plan, record, registry, status, usage
from pycor_hooks.live import BaseState
from pycor_hooks.mountinfo import Mount
from pycor_hooks.record import Record
from pycor_hooks.status import Seen

if TYPE_CHECKING:
    from pathlib import Path

    from pycor_hooks.plan import Base

LXD = "/var/lib/lxd"
STOPPED = BaseState(running=False, identity="1:2:3:0")


def recorded(**changes: Any) -> Record:
    """The record of web1 on base, in LXD's default project."""
    values: dict[str, Any] = {
        "daemon": LXD,
        "project": "default",
        "name": "web1",
        "base_project": "default",
        "base_name": "base",
        "lower_identity": "1:2:3:0",
        "lowerdirs": ["/pool/base/rootfs"],
        "upperdir": "/pool/web1/overlay/upper",
        "workdir": "/pool/web1/overlay/work",
        "rootfs": "/pool/web1/rootfs",
        "monitor": 41,
        "monitor_start": 1,
        "init": 42,
        "init_start": 2,
        "started_at": 0.5,
        "refreshed_at": 86400.9,
        "converged": 2,
    }
    return Record(**values | changes)


def mounted(path: str, source: str = "pycor-hooks", options: str = "rw") -> Mount:
    """A line of the mount table."""
    target = path.replace("\\", "\\134")
    return Mount(f"86 52 0:78 / {target} rw shared:72 - overlay {source} {options}")


def seen(
    *records: Record, base: BaseState = STOPPED, mounts: bool = True, gone: bool = False
) -> Seen:
    """What a host with these records is like: all mounted or not, all gone or not."""
    return Seen(
        records=records,
        mounts={one.merged: mounted(one.merged) for one in records if mounts},
        bases=dict.fromkeys(plan.by_base(records), base),
        generations=dict.fromkeys(plan.by_base(records), 3),
        gone=frozenset(one.directory for one in records if gone),
    )


def test_row() -> None:
    """The fields are those that are promised, times in ISO 8601 and UTC."""
    assert status.rows(seen(recorded())) == [
        {
            "daemon": "/var/lib/lxd",
            "project": "default",
            "name": "web1",
            "base": "base",
            "base_state": "stopped",
            "state": "mounted",
            "pid": 42,
            "merged": "/run/pycor-hooks/var-lib-lxd/web1/merged",
            "lowerdirs": ["/pool/base/rootfs"],
            "upperdir": "/pool/web1/overlay/upper",
            "upper_bytes": None,
            "started_at": "1970-01-01T00:00:00Z",
            "refreshed_at": "1970-01-02T00:00:00Z",
            "generation": 3,
            "converged": 2,
        }
    ]
    assert tuple(status.rows(seen(recorded()))[0]) == status.KEYS


@pytest.mark.parametrize(
    ("host", "state", "base_state"),
    [
        ({}, "mounted", "stopped"),
        ({"base": BaseState(running=True, identity="1:2:3:0")}, "mounted", "running"),
        ({"base": BaseState(running=False, identity="1:9:3:0")}, "detached", "stopped"),
        ({"base": BaseState(running=False, identity=None)}, "detached", "missing"),
        ({"gone": True}, "orphaned", "stopped"),
        ({"mounts": False}, "missing", "stopped"),
        ({"mounts": False, "gone": True}, "missing", "stopped"),
        ({"gone": True, "base": BaseState(running=False, identity=None)}, "orphaned", "missing"),
    ],
)
def test_states(host: dict[str, Any], state: str, base_state: str) -> None:
    """What is mounted, who lives and what the base is make the state."""
    (row,) = status.rows(seen(recorded(), **host))
    assert (row["state"], row["base_state"]) == (state, base_state)


@pytest.mark.parametrize(
    ("project", "base_project", "base"),
    [
        ("default", "default", "base"),
        ("shop", "shop", "base"),
        ("shop", "default", "default/base"),
        ("default", "shop", "shop/base"),
    ],
)
def test_base_in_another_project(project: str, base_project: str, base: str) -> None:
    """A base is named with its project where that is not the container's."""
    (row,) = status.rows(seen(recorded(project=project, base_project=base_project)))
    assert row["base"] == base


def test_not_started_yet() -> None:
    """Between pre-start and start-host there is no init, so no pid."""
    (row,) = status.rows(seen(recorded(init=0)))
    assert row["pid"] is None


@pytest.mark.parametrize(("gone", "state"), [(False, "unrecorded"), (True, "orphaned")])
def test_mount_without_record(gone: bool, state: str) -> None:  # noqa: FBT001 - a parameter
    """A mount of ours whose record is lost has a state of its own while its container lives."""
    one = recorded()
    (row,) = status.rows(seen(one, gone=gone)._replace(records=[], lost=[one]))
    assert (row["name"], row["base"], row["state"]) == ("web1", "base", state)
    assert row["refreshed_at"] is None


def test_mount_without_record_nor_base() -> None:
    """What cannot be told is left out."""
    one = recorded(base_project="", base_name="", upperdir="", lowerdirs=["/pool/base:1"])
    (row,) = status.rows(seen(one)._replace(records=[], lost=[one]))
    assert (row["base"], row["base_state"], row["upperdir"]) == (None, None, None)


def test_order() -> None:
    """Rows are sorted by daemon, project and name."""
    records = [
        recorded(name="web2"),
        recorded(project="a", name="web9"),
        recorded(name="web1"),
        recorded(daemon="/a", name="web3"),
    ]
    names = [row["name"] for row in status.rows(seen(*records))]
    assert names == ["web3", "web9", "web1", "web2"]


def test_foreign_mounts() -> None:
    """Mounts of others, and ours of daemons that were not asked for, are no overlays of ours."""
    table = [
        mounted(f"{record.RUN}/var-lib-lxd/web1/merged"),
        mounted(f"{record.RUN}/var-lib-incus/web1/merged"),
        mounted(f"{record.RUN}/var-lib-lxd/web1/lower"),
        mounted("/pool/web1/merged"),
        mounted(f"{record.RUN}/var-lib-lxd/web2/merged", source="overlay"),
        mounted("/merged"),
    ]
    assert list(lost.our_mounts(table)) == [table[0].target, table[1].target]
    assert list(lost.our_mounts(table, [LXD])) == [table[0].target]


def test_a_base_whose_pool_gives_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is unknown, and the containers of all bases are shown."""
    records = [recorded(), recorded(name="web2", base_name="broken")]

    def base_state(base: Base, **_: object) -> BaseState:
        if base.name == "broken":
            raise OSError(5, "Input/output error")
        return STOPPED

    monkeypatch.setattr(live, "base_state", base_state)
    monkeypatch.setattr(registry, "records", lambda _: records)
    monkeypatch.setattr(lost, "records", lambda _: [])
    rows = status.rows(status.look())
    assert [row["base_state"] for row in rows] == ["stopped", "unknown"]


def test_look_without_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a host where no container of ours was ever started there are no rows."""
    monkeypatch.setattr(record, "RUN", str(tmp_path / "none"))
    monkeypatch.setattr("pycor_hooks.registry.RUN", record.RUN)
    assert status.rows(status.look()) == []


def blocks(*paths: Path) -> int:
    """The bytes that these take on disk."""
    return sum(os.lstat(path).st_blocks for path in paths) * 512


def test_size(tmp_path: Path) -> None:
    """Files, directories and links count as what they take on disk, a file of two names once."""
    upper = tmp_path / "upper"
    below = upper / "etc" / "deep"
    below.mkdir(parents=True)
    (below / "file").write_bytes(b"x" * 70_000)
    os.link(below / "file", upper / "again")
    (upper / "link").symlink_to("file")
    sparse = upper / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 30)
    everything = [upper, upper / "etc", below, below / "file", upper / "link", sparse]
    assert usage.upper_bytes(str(upper)) == blocks(*everything)


def test_size_follows_no_link(tmp_path: Path) -> None:
    """A link that a container made into the host's tree leads nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(b"x" * 1_000_000)
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "etc").symlink_to(outside)
    assert usage.upper_bytes(str(upper)) == blocks(upper, upper / "etc")
    (tmp_path / "linked").symlink_to(upper)
    with pytest.raises(NotADirectoryError):
        usage.upper_bytes(str(tmp_path / "linked"))


def test_size_of_a_pit(tmp_path: Path) -> None:
    """A tree made to exhaust whoever walks it is measured with few descriptors, all closed."""
    before = len(os.listdir("/proc/self/fd"))
    depth = descent.HELD + 100
    directory = os.open(tmp_path, os.O_RDONLY)
    size = os.fstat(directory).st_blocks * 512
    for _ in range(depth):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    assert usage.upper_bytes(str(tmp_path)) == size * (depth + 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_is_moved_while_one_is_in_it(tmp_path: Path) -> None:
    """Beyond what is kept open, the way up is the way down, or none: nobody is led elsewhere."""
    with descent.Place(str(tmp_path)) as place:
        for _ in range(descent.HELD + 1):
            os.mkdir("d", dir_fd=place.fd)
            place.enter("d")
        above = os.dup(place.fd)
        os.mkdir("d", dir_fd=above)
        place.enter("d")
        os.rename("d", tmp_path / "moved", src_dir_fd=above)
        os.close(above)
        with pytest.raises(OSError, match="moved meanwhile"):
            place.leave()
