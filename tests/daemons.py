# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for cases on real daemons, for the conftest.py of each package that has such cases.

A case asks for ``overlays`` and gets a stopped base and a way to launch containers on it::

    def test_writes_stay_in_the_container(overlays: Overlays) -> None:
        web1, web2 = overlays.launch("web1"), overlays.launch("web2")
        web1.exec("touch", "/etc/mine")
        assert web2.run("ls", "/etc/mine").returncode

It runs once for each daemon of this run (``@pytest.mark.once``: on the first one). Whatever it
made is deleted afterwards, and it fails when something is left: a mount, a process, a state file,
an ``overlayfs:`` line in the kernel log, or a base that is not byte for byte what it was
(``@pytest.mark.updates_base`` allows that one, ``takes_base_away`` the kernel's line about it).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lab import debian
from lab import overlays as setup
from lab.daemon import Daemon
from lab.leaks import BASE_GONE, Watch
from lab.overlays import Overlays
from lab.private import PrivateDaemon
from lab.reset import Inventory
from lab.snap import SnapDaemon
from lab.wait import until
from lab.watcher import Watcher
from lab.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pair(NamedTuple):
    """A daemon, its storage driver, whether it may use idmapped mounts, and where it lives.

    ``place``: "" for the host's mount namespace, "snap" for LXD's snap, "private" for a unit with
    PrivateMounts=.
    """

    kind: str
    driver: str
    idmapped: bool = True
    place: str = ""

    def __str__(self) -> str:
        shifted = "" if self.idmapped else "-shifted"
        return f"{self.kind}-{self.driver}{shifted}" + (f"-{self.place}" if self.place else "")

    def daemon(self, world: World) -> Daemon:
        """The daemon itself, to be started."""
        if self.place == "snap":
            return SnapDaemon(world, self.driver, idmapped=self.idmapped)
        made = PrivateDaemon if self.place else Daemon
        return made(world, self.kind, self.driver, idmapped=self.idmapped)


PAIRS = [Pair("lxd", "dir"), Pair("incus", "btrfs")]
ALL_PAIRS = [
    *PAIRS,
    Pair("lxd", "btrfs"),
    Pair("incus", "dir"),
    Pair("incus", "dir", idmapped=False),
    Pair("incus", "btrfs", idmapped=False),
    Pair("lxd", "dir", place="snap"),
]


def on_each_daemon(metafunc: pytest.Metafunc) -> None:
    """Run a case once for each daemon: what a conftest.py calls in pytest_generate_tests."""
    if "daemon" in metafunc.fixturenames:
        pairs = ALL_PAIRS
        if not metafunc.config.getoption("--all-pairs"):
            pairs = PAIRS
            if metafunc.definition.get_closest_marker("slow_on_lxd"):
                pairs = [pair for pair in pairs if pair.kind != "lxd"]
        if metafunc.definition.get_closest_marker("host_s_mounts"):
            pairs = [pair for pair in pairs if not pair.place]
        if metafunc.definition.get_closest_marker("once"):
            pairs = pairs[:1]
        metafunc.parametrize("daemon", pairs, ids=str, scope="package", indirect=True)


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    """The namespaces that pytest itself moves into."""
    if os.geteuid():
        pytest.skip("a private LXD or Incus needs root")
    with World() as entered:
        yield entered


@pytest.fixture(scope="package")
def daemon(world: World, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A private daemon, with the busybox image in it and nothing else."""
    pair: Pair = request.param
    with pair.daemon(world) as started:
        setup.import_busybox(started.client, world.directory)
        yield started


@pytest.fixture(scope="package")
def installed(daemon: Daemon) -> Overlays:
    """The base ``base``, from busybox, with hooks, profile and image installed for it."""
    return _prepare(daemon, "busybox", "base")


@pytest.fixture(scope="package")
def debian_installed(daemon: Daemon) -> Overlays:
    """The base ``debian``, a Debian with systemd, with hooks, profile and image for it."""
    path = debian.image(daemon.world)
    daemon.client("image", "import", path, "--alias", "debian-image")
    return _prepare(daemon, "debian-image", "debian")


def _prepare(daemon: Daemon, image: str, base: str) -> Overlays:
    setup.make_base(daemon.client, image, base)
    overlays = Overlays(daemon, base)
    overlays.install()
    return overlays


@pytest.fixture
def overlays(installed: Overlays, request: pytest.FixtureRequest) -> Iterator[Overlays]:
    """A small base, stopped, and what to launch containers on it with."""
    yield from _watched(installed, request, image="busybox")


@pytest.fixture
def debian_overlays(
    debian_installed: Overlays, request: pytest.FixtureRequest
) -> Iterator[Overlays]:
    """As ``overlays``, on a Debian with systemd and networkd, which takes 2 s to boot."""
    yield from _watched(debian_installed, request, image="debian-image")


@pytest.fixture
def reinstalled(overlays: Overlays) -> Iterator[None]:
    """Let the case install and uninstall as it likes: in the end all is as it was."""
    bases = {instance.name for instance in overlays.client.instances()} & {"base", "debian"}
    yield
    for base in bases:
        Overlays(overlays.daemon, base).install()


@pytest.fixture
def watcher(overlays: Overlays) -> Iterator[Watcher]:
    """``pycor-hooks watch`` on the daemon of this case, ready."""
    with Watcher(overlays.daemon) as watching:
        yield watching


def _watched(
    overlays: Overlays, request: pytest.FixtureRequest, *, image: str
) -> Iterator[Overlays]:
    """Run one case; afterwards clean up, and fail on what it left behind."""
    inventory = Inventory(overlays.client)
    watch = Watch(overlays.daemon, overlays.base.rootfs)
    try:
        yield overlays
        if overlays.base.status != "Stopped":
            overlays.base.stop(force=True)
        inventory.remove_what_came_since()
        passing = _what_stays(watch)
        lasting = watch.lasting()
    finally:
        watch.close()
    changed = [line for line in lasting if line.startswith("base:")]
    if changed:
        _make_anew(overlays, image)
    allowed = changed if request.node.get_closest_marker("updates_base") else []
    if request.node.get_closest_marker("takes_base_away"):
        allowed += filter(BASE_GONE.search, lasting)
    leaks = [*passing, *(line for line in lasting if line not in allowed)]
    assert not leaks, "left behind:\n" + "\n".join(leaks)


def _what_stays(watch: Watch) -> list[str]:
    """Wait for what is about to go, as an unmount in post-stop may be; return the rest."""
    try:
        until(lambda: not watch.passing(), what="all is gone", timeout_s=5)
    except TimeoutError:
        return watch.passing()
    return []


def _make_anew(overlays: Overlays, image: str) -> None:
    overlays.base.set(**{"security.protection.delete": "false"})
    overlays.base.delete()
    setup.make_base(overlays.client, image, overlays.base.name)
    overlays.install()
