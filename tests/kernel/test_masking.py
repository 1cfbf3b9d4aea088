# SPDX-License-Identifier: GPL-3.0-or-later
"""What hides a newer file of the base, told from real layers."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab.wait import until
from pycor_hooks import dpkg, layerdiff, masking
from tests.kernel.test_hooks import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.liblxc import Container

TOOL = "usr/bin/tool"
HOSTNAME = "etc/hostname"


@pytest.fixture
def merged(web: Container) -> Iterator[str]:
    """The container's tree, while it runs."""
    web.start()
    yield web.merged
    web.stop()


def masked(web: Container, base: str) -> dict[str, str]:
    """What is told, with its reason."""
    found = layerdiff.differences(web.upper, base, 0)
    return {
        one.difference.path: one.reason for one in masking.masked(found, web.upper, base, "web1")
    }


def replace(path: str, text: str = "of the base, later\n") -> None:
    """Put another file there, as a package manager does, whose mtime is that of its package."""
    write(f"{path}.new", text)
    os.utime(f"{path}.new", (1, 1))
    os.rename(f"{path}.new", path)


def rewrite(path: str, text: str = "of the base, later\n") -> None:
    """Write the same file anew, and keep its mtime."""
    before = os.stat(path)
    write(path, text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def wait_for_the_clock(web: Container) -> None:
    """Wait until what is done from now on has a later time than what was done before."""
    probe = f"{web.volume}/probe"

    def moment() -> int:
        write(probe, "")
        return os.stat(probe).st_ctime_ns

    before = moment()
    until(lambda: moment() > before + 10_000_000, what="the clock has moved on")
    os.unlink(probe)


def own(path: str) -> None:
    """Write to a file, which copies it up."""
    with open(path, "a") as file:
        file.write("own\n")


def own_by_rename(path: str) -> None:
    """Put a file of its own there, as an editor does."""
    write(f"{path}.own", "own\n")
    os.rename(f"{path}.own", path)


@pytest.mark.parametrize("change", [replace, rewrite])
@pytest.mark.parametrize("write_own", [own, own_by_rename])
def test_base_changed_afterwards(
    web: Container,
    base: str,
    merged: str,
    change: Callable[[str], None],
    write_own: Callable[[str], None],
) -> None:
    """A file that the base has changed after the container made its own is hidden by that."""
    write_own(f"{merged}/{TOOL}")
    own(f"{merged}/{HOSTNAME}")
    write(f"{merged}/added", "own\n")
    assert masked(web, base) == {}
    wait_for_the_clock(web)
    change(f"{base}/{TOOL}")
    assert set(masked(web, base)) == {TOOL}


@pytest.mark.parametrize("write_own", [own, own_by_rename])
def test_base_changed_before(
    web: Container, base: str, merged: str, write_own: Callable[[str], None]
) -> None:
    """What the container made of the file that the base has now hides nothing newer."""
    replace(f"{base}/{TOOL}")
    wait_for_the_clock(web)
    write_own(f"{merged}/{TOOL}")
    assert masked(web, base) == {}


def test_same_content(web: Container, base: str, merged: str) -> None:
    """A copy with what the base has by now hides nothing."""
    write(f"{merged}/{TOOL}", "later\n")
    wait_for_the_clock(web)
    replace(f"{base}/{TOOL}", "later\n")
    os.chmod(f"{base}/{TOOL}", os.stat(f"{merged}/{TOOL}").st_mode & 0o7777)
    assert masked(web, base) == {}


def test_copied_volume(web: Container, base: str, merged: str, tmp_path: Path) -> None:
    """A copy of the volume, whose files are all born later, still knows what it is a copy of."""
    own(f"{merged}/{TOOL}")
    web.stop()
    replace(f"{base}/{TOOL}")
    wait_for_the_clock(web)
    copy = f"{tmp_path}/copy"
    subprocess.run(["cp", "-a", web.upper, copy], check=True)
    found = layerdiff.differences(copy, base, 0)
    (one,) = masking.masked(found, copy, base, "web1")
    assert one.reason == "it is a copy of a file that the base has replaced since"
    web.start()


def test_deleted(web: Container, base: str, merged: str) -> None:
    """A whiteout, of a file or of a directory, hides what the base changes later."""
    os.unlink(f"{merged}/{HOSTNAME}")
    shutil.rmtree(f"{merged}/usr")
    assert masked(web, base) == {}
    wait_for_the_clock(web)
    for path in (HOSTNAME, TOOL):
        replace(f"{base}/{path}")
    assert set(masked(web, base)) == {HOSTNAME, TOOL}
    wait_for_the_clock(web)
    write(f"{merged}/etc/own", "own\n")  # from now on it cannot be told
    assert set(masked(web, base)) == {TOOL}


def test_opaque(web: Container, base: str, merged: str) -> None:
    """A directory made anew hides what the base changes in it later."""
    shutil.rmtree(f"{merged}/usr")
    os.mkdir(f"{merged}/usr")
    wait_for_the_clock(web)
    replace(f"{base}/{TOOL}")
    wait_for_the_clock(web)
    write(f"{merged}/usr/own", "own\n")
    assert set(masked(web, base)) == {TOOL}


def test_directory_in_the_place_of_a_file(web: Container, base: str, merged: str) -> None:
    """A directory may hide a file, and a file a directory of files."""
    os.unlink(f"{merged}/{TOOL}")
    os.mkdir(f"{merged}/{TOOL}")
    shutil.rmtree(f"{merged}/etc")
    write(f"{merged}/etc", "own\n")
    assert masked(web, base) == {}
    wait_for_the_clock(web)
    for path in (HOSTNAME, TOOL):
        replace(f"{base}/{path}")
    assert set(masked(web, base)) == {HOSTNAME, TOOL}


def status(packages: dict[str, str]) -> str:
    """A status file."""
    return "".join(
        f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n"
        for name, version in packages.items()
    )


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        (HOSTNAME, "put into it what you need of the base's; or {drop}"),
        ("etc/passwd", "add to it the accounts that only the base's has; or {drop}"),
        ("etc/gshadow", "add to it the accounts that only the base's has; or {drop}"),
        (
            masking.CACHE,
            "run ldconfig in web1; or {drop}, where it has no libraries of its own",
        ),
    ],
)
def test_remedies(web: Container, base: str, path: str, remedy: str) -> None:
    """What a file is for tells what to do about it, before it is dropped."""
    write(f"{base}/{path}", "of the base\n")
    web.start()
    own(f"{web.merged}/{path}")
    wait_for_the_clock(web)
    replace(f"{base}/{path}")
    found = layerdiff.differences(web.upper, base, 0)
    (one,) = masking.masked(found, web.upper, base, "web1")
    assert one.remedy == remedy.format(drop=f"pycor-hooks diff web1 --drop /{path}")
    web.stop()


def test_package_database(web: Container, base: str) -> None:
    """That of dpkg is compared by packages, and the remedy names what would be lost."""
    os.makedirs(f"{base}/var/lib/dpkg")
    write(f"{base}/{dpkg.STATUS}", status({"libc6": "1"}))
    web.start()
    write(f"{web.merged}/{dpkg.STATUS}", status({"libc6": "1", "mine": "1"}))
    os.makedirs(f"{web.merged}/{dpkg.LISTS}")
    write(f"{web.merged}/{dpkg.LISTS}/mine:amd64.list", "/.\n")
    wait_for_the_clock(web)
    replace(f"{base}/{dpkg.STATUS}", status({"libc6": "1"}))
    assert masked(web, base) == {}
    replace(f"{base}/{dpkg.STATUS}", status({"libc6": "2"}))
    wait_for_the_clock(web)
    replace(f"{web.merged}/{dpkg.STATUS}", status({"libc6": "1", "mine": "2"}))
    found = layerdiff.differences(web.upper, base, 0)
    (one,) = masking.masked(found, web.upper, base, "web1")
    assert one.reason == "package database: the base has libc6 2 (here 1)"
    assert one.remedy == (
        "install in the base what web1 alone has (mine), "
        "then pycor-hooks diff web1 --drop /var/lib/dpkg"
    )
    web.stop()
