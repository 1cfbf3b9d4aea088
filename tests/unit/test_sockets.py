# SPDX-License-Identifier: GPL-3.0-or-later
"""Which daemons are found, and which are known to run, on real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import instance, sockets
from pycor_hooks.sockets import Daemon, find_daemons, is_listening
from tests.unit.fake_daemon import listen

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The usual places, somewhere else: LXD, Incus and the snap, without their sockets."""
    places = {kind: str(tmp_path / kind) for kind in ("lxd", "incus", "snap")}
    for place in places.values():
        os.mkdir(place)
    monkeypatch.setattr(
        sockets, "USUAL_PLACES", (("lxd", places["lxd"]), ("incus", places["incus"]))
    )
    monkeypatch.setattr(sockets, "SNAP_PLACE", places["snap"])
    return places


def touch_socket(place: str) -> None:
    """Leave an API socket's file behind, on which nobody listens."""
    listen(f"{place}/unix.socket").close()


def test_nothing_there(usual: dict[str, str]) -> None:  # noqa: ARG001
    """Without a socket in a usual place there is no daemon, even if there is a directory."""
    assert find_daemons(environ={}) == []


def test_usual_places(usual: dict[str, str]) -> None:
    """A socket in a usual place is a daemon's."""
    touch_socket(usual["lxd"])
    touch_socket(usual["incus"])
    found = [Daemon("lxd", usual["lxd"]), Daemon("incus", usual["incus"])]
    assert find_daemons(environ={}) == found
    assert found[0].socket == f"{usual['lxd']}/unix.socket"


def test_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nobody's INCUS_DIR, and need not be there."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert find_daemons([str(here)], environ={}) == [Daemon("lxd", str(here))]
    here.rmdir()
    assert find_daemons([str(here)], environ={}) == [Daemon("lxd", str(here))]


def test_snap(usual: dict[str, str]) -> None:
    """LXD's snap is found as any other daemon."""
    touch_socket(usual["snap"])
    assert find_daemons(environ={}) == [Daemon("lxd", usual["snap"])]


def test_environment_overrides_the_usual_places(usual: dict[str, str], tmp_path: Path) -> None:
    """With LXD_DIR or INCUS_DIR set, those alone count, whether or not a socket is there."""
    touch_socket(usual["lxd"])
    mine = str(tmp_path / "mine")
    assert find_daemons(environ={"LXD_DIR": mine, "INCUS_DIR": ""}) == [Daemon("lxd", mine)]


def test_options_override_the_environment(usual: dict[str, str], tmp_path: Path) -> None:
    """--daemon overrides both; each directory counts once."""
    touch_socket(usual["lxd"])
    (tmp_path / "a" / "guestapi").mkdir(parents=True)
    (tmp_path / "b" / "devlxd").mkdir(parents=True)
    named = [f"{tmp_path}/a", f"{tmp_path}/b/", f"{tmp_path}/a"]
    assert find_daemons(named, environ={"LXD_DIR": "/elsewhere"}) == [
        Daemon("incus", f"{tmp_path}/a"),
        Daemon("lxd", f"{tmp_path}/b"),
    ]


@pytest.mark.parametrize(("name", "kind"), [("my-incus", "incus"), ("lxd", "lxd"), ("x", "lxd")])
def test_kind_of_a_daemon_that_never_ran(name: str, kind: str, tmp_path: Path) -> None:
    """Before its first start a directory is known by its name alone."""
    assert find_daemons([f"{tmp_path}/{name}"], environ={}) == [Daemon(kind, f"{tmp_path}/{name}")]


@pytest.mark.parametrize("variable", ["LXD_DIR", "INCUS_DIR"])
def test_kind_by_the_variable(variable: str, tmp_path: Path) -> None:
    """A directory of which nothing is known is of the kind whose variable names it."""
    (daemon,) = find_daemons(environ={variable: f"{tmp_path}/x"})
    assert daemon.kind == variable.removesuffix("_DIR").lower()


@pytest.mark.parametrize("kind", ["lxd", "incus"])
def test_listening(kind: str, tmp_path: Path) -> None:
    """A daemon runs exactly as long as it listens for its guests."""
    guests = tmp_path / sockets.GUEST_SOCKETS[kind]
    guests.parent.mkdir()
    daemon = Daemon(kind, str(tmp_path))
    assert not is_listening(daemon)
    with listen(str(guests)):
        assert is_listening(daemon)
    assert guests.exists()
    assert not is_listening(daemon)


_IMPOSTOR = """
import os, socket, sys
jail, path, queue = sys.argv[1:]
os.chroot(jail)
os.setuid(65534)
server, other = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(int(queue))
other.connect(path)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.host_root
@pytest.mark.parametrize("queue", [0, 5])
def test_another_user_s_process_is_no_daemon(queue: int, tmp_path: Path) -> None:
    """Whatever it is called and listens on in a root of its own, and with a full queue, too."""
    directory = f"{tmp_path}/lxd"
    jail = f"{tmp_path}/jail"
    os.makedirs(f"{jail}{directory}/devlxd")
    os.chown(f"{jail}{directory}/devlxd", 65534, 65534)
    tmp_path.joinpath("bin").mkdir()
    tmp_path.joinpath("bin", "lxd").symlink_to("/usr/bin/python3")
    with subprocess.Popen(
        [
            f"{tmp_path}/bin/lxd",
            "-IS",
            "-c",
            _IMPOSTOR,
            jail,
            f"{directory}/devlxd/sock",
            f"{queue}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as impostor:
        assert impostor.stdout is not None
        assert impostor.stdout.readline() == b"\n"
        assert instance.read_of(impostor.pid, "comm") == b"lxd\n"
        assert sockets.find_process(Daemon("lxd", directory)) is None
        impostor.communicate()


def test_listening_by_another_name(tmp_path: Path) -> None:
    """The daemon may have been given its directory by a symlink, or we may."""
    (tmp_path / "real" / "devlxd").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with listen(str(tmp_path / "link" / "devlxd" / "sock")):
        assert is_listening(Daemon("lxd", str(tmp_path / "real")))
    with listen(str(tmp_path / "real" / "devlxd" / "sock")):
        assert is_listening(Daemon("lxd", str(tmp_path / "link")))


def test_socket_of_systemd(tmp_path: Path) -> None:
    """That systemd listens on unix.socket does not mean that the daemon runs."""
    (tmp_path / "devlxd").mkdir()
    with listen(f"{tmp_path}/unix.socket"):
        assert not is_listening(Daemon("lxd", str(tmp_path)))


def test_bound_is_not_listening(tmp_path: Path) -> None:
    """A socket that is bound and does not listen, and one of another daemon, do not count."""
    for name in ("a", "b"):
        (tmp_path / name / "devlxd").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as bound, listen(f"{tmp_path}/b/devlxd/sock"):
        bound.bind(f"{tmp_path}/a/devlxd/sock")
        assert not is_listening(Daemon("lxd", f"{tmp_path}/a"))
        assert is_listening(Daemon("lxd", f"{tmp_path}/b"))


@pytest.mark.parametrize("flags", ["00010000", "garbled"])
def test_a_name_that_looks_like_a_line_of_the_kernel_s_table(flags: str) -> None:
    """Any user may give a socket a name of several lines; none of them speaks for a daemon."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="") as directory,
        socket.socket(socket.AF_UNIX) as forged,
    ):
        forged.bind(f"\0\n0: 2 0 {flags} 0001 01 1 {directory}/devlxd/sock")
        forged.listen()
        assert not is_listening(Daemon("lxd", directory))


def test_a_relative_name_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that a socket was bound to says nothing without the directory it began in."""
    for directory in (tmp_path / "lxd", tmp_path / "home" / "lxd"):
        (directory / "devlxd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    with listen("lxd/devlxd/sock"):
        monkeypatch.chdir(tmp_path)
        assert not is_listening(Daemon("lxd", f"{tmp_path}/lxd"))


def test_busy(tmp_path: Path) -> None:
    """A daemon whose guests keep its queue full runs."""
    (tmp_path / "devlxd").mkdir()
    with listen(f"{tmp_path}/devlxd/sock") as busy:
        busy.listen(0)
        for _ in range(3):
            assert is_listening(Daemon("lxd", str(tmp_path)))
