# SPDX-License-Identifier: GPL-3.0-or-later
"""What was put into the bare rootfs of a stopped container is in the container after a start."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from pycor_hooks.strays import create_only_paths
from tests.kernel.test_hooks import read, write

if TYPE_CHECKING:
    from lab.liblxc import Container


@pytest.fixture
def bare(web: Container) -> str:
    """The bare rootfs, with an ``etc`` in it as a template leaves it."""
    os.mkdir(f"{web.rootfs}/etc")
    return web.rootfs


def start_and_stop(web: Container) -> None:
    """One run, so that the strays are moved."""
    web.start()
    web.stop()


@pytest.mark.host_root
def test_a_new_file_arrives_with_owner_mode_and_times(web: Container, bare: str) -> None:
    """A pushed file keeps what it was pushed with, and leaves the bare rootfs empty."""
    write(f"{bare}/etc/pushed", "pushed\n")
    os.chown(f"{bare}/etc/pushed", 1000, 1001)
    os.chmod(f"{bare}/etc/pushed", 0o4750)
    os.utime(f"{bare}/etc/pushed", (1, 2))
    start_and_stop(web)
    found = os.stat(f"{web.upper}/etc/pushed")
    assert (found.st_uid, found.st_gid, found.st_mtime) == (1000, 1001, 2)
    assert stat.S_IMODE(found.st_mode) == 0o4750
    assert os.listdir(bare) == []


def test_a_file_replaces_the_one_that_the_container_has(web: Container, bare: str) -> None:
    """A pushed file takes the place of the base's or the container's own."""
    write(f"{bare}/etc/hostname", "web1\n")
    web.start()
    assert read(f"{web.merged}/etc/hostname") == "web1\n"
    web.stop()


@pytest.mark.host_root
def test_an_existing_directory_keeps_owner_and_mode(web: Container, bare: str) -> None:
    """A directory that stands in both is the container's."""
    os.chmod(f"{bare}/etc", 0o700)
    os.chown(f"{bare}/etc", 7, 7)
    write(f"{bare}/etc/pushed", "")
    web.start()
    found = os.stat(f"{web.merged}/etc")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o755)
    web.stop()


def test_a_new_directory_and_a_symlink_arrive(web: Container, bare: str) -> None:
    """Directories, with their mode, and symlinks, as they are, arrive as well."""
    os.makedirs(f"{bare}/srv/www")
    os.chmod(f"{bare}/srv/www", 0o1770)
    os.symlink("/etc/shadow", f"{bare}/srv/www/link")
    start_and_stop(web)
    assert stat.S_IMODE(os.stat(f"{web.upper}/srv/www").st_mode) == 0o1770
    assert os.readlink(f"{web.upper}/srv/www/link") == "/etc/shadow"


def test_a_stray_bin_does_not_hide_the_base(web: Container, bare: str) -> None:
    """A directory ``bin`` where the base has a link is refused by name, and nothing is moved."""
    os.mkdir(f"{bare}/bin")
    write(f"{bare}/bin/tool", "")
    write(f"{bare}/etc/pushed", "")
    assert web.pre_start() == 1
    assert "/bin was put into the stopped container as a directory, " in web.log()
    assert "where the container has a symlink" in web.log()
    assert os.path.exists(f"{bare}/etc/pushed")
    assert not os.path.exists(f"{web.upper}/etc")


def test_a_file_on_a_directory_is_refused(web: Container, bare: str) -> None:
    """A file cannot take the place of a directory."""
    write(f"{bare}/usr", "")
    assert web.pre_start() == 1
    assert "/usr was put into the stopped container as a file, " in web.log()


def test_a_link_of_the_container_is_replaced_not_followed(
    web: Container, bare: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where the container made a link out of itself, the host's file is left alone."""
    outside = tmp_path_factory.mktemp("outside") / "host"
    outside.write_text("host\n")
    web.start()
    os.symlink(outside, f"{web.merged}/etc/evil")
    web.stop()
    os.makedirs(f"{bare}/etc", exist_ok=True)
    write(f"{bare}/etc/evil", "pushed\n")
    start_and_stop(web)
    assert outside.read_text() == "host\n"
    assert read(f"{web.upper}/etc/evil") == "pushed\n"


def test_a_directory_that_the_container_turned_into_a_link_is_refused(
    web: Container, bare: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``etc`` as a link to a host directory leads nothing there."""
    outside = tmp_path_factory.mktemp("outside")
    web.start()
    os.rename(f"{web.merged}/etc/hostname", f"{web.merged}/var/hostname")
    os.mkdir(f"{web.merged}/srv")
    os.rmdir(f"{web.merged}/srv")
    os.symlink(outside, f"{web.merged}/srv")
    web.stop()
    os.makedirs(f"{bare}/srv")
    write(f"{bare}/srv/pushed", "")
    assert web.pre_start() == 1
    assert "/srv was put into the stopped container as a directory" in web.log()
    assert list(outside.iterdir()) == []


def test_create_only_yields_to_what_the_container_has(web: Container, bare: str) -> None:
    """A create_only template does not overwrite, and arrives where there is nothing yet."""
    write(
        f"{web.volume}/metadata.yaml",
        "templates:\n  /etc/hostname:\n    when:\n    - create\n    create_only: true\n"
        '  "/etc/first":\n    create_only: true\n  /etc/other:\n    create_only: false\n',
    )
    for name in ("hostname", "first", "other"):
        write(f"{bare}/etc/{name}", "template\n")
    web.start()
    assert read(f"{web.merged}/etc/hostname") == "etc/hostname of base\n"
    assert read(f"{web.merged}/etc/first") == "template\n"
    assert read(f"{web.merged}/etc/other") == "template\n"
    assert not os.path.exists(f"{bare}/etc") or os.listdir(f"{bare}/etc") == []
    web.stop()


def test_a_fifo_in_the_place_of_the_metadata_is_not_waited_for(web: Container) -> None:
    """An imported instance may hold anything there."""
    os.mkfifo(f"{web.volume}/metadata.yaml")
    reading = threading.Thread(target=create_only_paths, args=(web.volume,))
    reading.start()
    reading.join(10)
    waits = reading.is_alive()
    if waits:
        os.close(os.open(f"{web.volume}/metadata.yaml", os.O_WRONLY))
        reading.join()
    assert not waits


@pytest.mark.parametrize("path", ["etc/os-release", "sbin/init", "usr/lib/os-release"])
def test_an_operating_system_of_its_own_is_refused(web: Container, bare: str, path: str) -> None:
    """A rootfs with its own init or os-release is refused, not hidden."""
    os.makedirs(os.path.dirname(f"{bare}/{path}"), exist_ok=True)
    write(f"{bare}/{path}", "")
    assert web.pre_start() == 1
    assert "web1 has an operating system of its own" in web.log()
    assert os.path.exists(f"{bare}/{path}")


def test_a_device_is_refused(web: Container, bare: str) -> None:
    """What neither daemon puts there is not carried into the container."""
    os.mkfifo(f"{bare}/etc/pipe")
    assert web.pre_start() == 1
    assert "/etc/pipe was put into the stopped container as a fifo" in web.log()


def test_a_kill_between_two_strays_loses_none(web: Container, bare: str) -> None:
    """A half-written copy of an earlier try is thrown away, and the stray moved again."""
    write(f"{bare}/etc/hostname", "web1\n")
    assert web.pre_start() == 0
    assert web.hook("post-stop") == 0
    os.makedirs(f"{bare}/etc", exist_ok=True)
    write(f"{bare}/etc/hostname", "again\n")
    write(f"{web.upper}/etc/.pycor-hooks.new", "half")
    web.start()
    assert read(f"{web.merged}/etc/hostname") == "again\n"
    assert sorted(os.listdir(f"{web.merged}/etc")) == ["hostname", "os-release"]
    web.stop()
