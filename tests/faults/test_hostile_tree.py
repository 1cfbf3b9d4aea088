# SPDX-License-Identifier: GPL-3.0-or-later
"""What root of a container does to its own tree, for the host's root to fall over."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lab import live, tree
from lab.attacker import Attacker
from lab.client import ClientError
from pycor_hooks import usage
from pycor_hooks.tree import PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays
    from lab.tally import Tally

NOBODY = 65534
BIG = 8 << 20


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that no container has any business in: it stays as it is."""
    directory = tmp_path / "victim"
    directory.mkdir()
    (directory / "secret").write_text("secret\n")
    (directory / "secret").chmod(0o600)
    (directory / "big").write_bytes(os.urandom(BIG))
    (directory / "empty").mkdir()
    before = tree.describe(str(directory))
    yield directory
    assert tree.changes(before, tree.describe(str(directory))) == []


def from_both(overlays: Overlays, attack: Callable[[Attacker], None]) -> None:
    """Attack from an ordinary container and from a privileged one, side by side."""

    def launch_and_attack(words: tuple[str, ...]) -> None:
        attack(Attacker(overlays.launch(*words)))

    kinds = [("plain",), ("privileged", "-c", "security.privileged=true")]
    with ThreadPoolExecutor(len(kinds)) as pool:
        list(pool.map(launch_and_attack, kinds))


def restart(container: Instance, path: str = "") -> None:
    """Kill it, push something to a path meanwhile if one is given, and start it again."""
    container.stop(force=True)
    container.wait("Stopped")
    if path:
        put_into(container.rootfs, path, "pushed\n")
    container.start()


def ways_to(path: Path) -> list[str]:
    """What a link may say in order to lead to a path of the host, or to the host's root."""
    up = "../" * 30
    return [
        *(str(path), f"{up}{path}"),
        *(f"/proc/{process}/root{path}" for process in ("1", "self", "thread-self")),
        *("/proc/self/cwd/secret", "/proc/self/fd/3", "/proc/self/exe", "/proc/1/ns/mnt"),
    ]


_LINKS = """
for number, target in enumerate(sys.argv[1:]):
    for directory in ("/etc", "/srv", "/home/user"):
        os.symlink(target, f"{directory}/evil{number}")
for directory in ("/", "/etc", "/srv", "/home/user"):
    os.symlink(sys.argv[1], f"{directory}/.pycor-hooks.new")
"""


def put_into(bare: str, path: str, text: str) -> None:
    """Put a file into the rootfs of a stopped container, as ``file push`` does."""
    owner = os.stat(bare).st_uid
    for part in (os.path.dirname(path), path):
        if part != path:
            os.makedirs(f"{bare}/{part}", exist_ok=True)
        else:
            with open(f"{bare}/{path}", "w", encoding="utf-8") as file:
                file.write(text)
        os.chown(f"{bare}/{part}", owner, owner)


def test_links(overlays: Overlays, tally: Tally, victim: Path) -> None:
    """Links and magic links, wherever the host writes or measures, lead nowhere."""
    targets = ways_to(victim / "secret")
    places = [f"{place}/evil{i}" for place in ("etc", "srv") for i in range(len(targets))]

    def attack(attacker: Attacker) -> None:
        container = attacker.container
        attacker(_LINKS, *targets)
        container.stop(force=True)
        container.wait("Stopped")
        with tally.injected("a link out, in the place of a file", len(places)):
            for place in places:
                put_into(container.rootfs, place, "pushed\n")
            container.start()
            pushed = container.exec("cat", *(f"/{place}" for place in places))
            assert pushed == "pushed\n" * len(places)
            assert "pycor-hooks.new" not in container.exec("ls", "-A", "/etc", "/srv")
        with tally.injected("a link out, in a tree that is measured", len(targets)):
            assert 0 < usage.upper_bytes(container.upper) < BIG

    from_both(overlays, attack)


_FLIP = """
directory = "/srv/flip"
os.makedirs(f"{directory}/a/b/c")
os.symlink(sys.argv[1], f"{directory}/link")
print(flush=True)
RENAME_EXCHANGE = 2
while not os.path.exists("/srv/stop"):
    for one in (b"/srv/flip/a", b"/srv/flip/a/b", b"/srv/flip/a/b/c"):
        libc.renameat2(-100, one, -100, b"/srv/flip/link", RENAME_EXCHANGE)
"""


@pytest.mark.once
def test_a_race(overlays: Overlays, tally: Tally, victim: Path) -> None:
    """Directories that turn into links and back, while the host measures and refreshes."""
    attacker = Attacker(overlays.launch("racer"))
    container = attacker.container
    with ThreadPoolExecutor(1) as pool:
        flipping = pool.submit(attacker, _FLIP, str(victim))
        try:
            for _ in range(300):
                with tally.injected("a race between directory and link"):
                    assert usage.upper_bytes(container.upper) < BIG
            assert overlays.pycor_hooks("status", "--size").returncode == 0
            assert overlays.pycor_hooks("remount", "--all").returncode == 0
        finally:
            container.exec("touch", "/srv/stop")
        flipping.result()


@pytest.mark.once
def test_a_root_without_its_directories(
    overlays: Overlays, tally: Tally, victim: Path, *, soak: bool
) -> None:
    """Links out where liblxc mounts: it starts or is refused, and touches nothing of the host."""
    names = ["etc", "dev", "proc", "sys", "run"] if soak else ["etc", "dev", "proc"]

    def attack(name: str) -> None:
        container = overlays.launch(f"no{name}")
        script = f"umount -l /{name}; mv /{name} /{name}.moved; ln -s {victim}/empty /{name}"
        container.run("sh", "-c", script)
        with tally.injected("etc, dev or proc is a link out"):
            container.stop(force=True)
            container.wait("Stopped")
            try:
                container.start()
            except ClientError:
                container.wait("Stopped")
                assert live.mounts(overlays).count(container.merged) == 0

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(attack, names))


_BAIT = """
rm -r /etc/machine-id /var/lib
mkfifo /etc/machine-id
mkdir /var/lib
ln -s "$0" /var/lib/docker
ln -s /proc/self/root /var/lib/containers
"""


@pytest.mark.once
def test_a_bait_for_doctor(overlays: Overlays, tally: Tally, tmp_path: Path) -> None:
    """Where doctor looks into a container, it waits for no fifo and follows no link."""
    (tmp_path / "overlay2" / "layer").mkdir(parents=True)
    overlays.launch("baited").exec("sh", "-c", _BAIT, str(tmp_path))
    with tally.injected("a bait in a tree that doctor looks into", 3):
        done = overlays.pycor_hooks("doctor", "baited", "--format=json", check=False)
        (store,) = [row for row in json.loads(done.stdout) if row["name"] == "nested store"]
        assert store["state"] == "ok"


_PLANT = """
os.makedirs("/srv/planted")
os.chdir("/srv/planted")
for name in ("setuid", "setgid"):
    with open("/usr/bin/busybox", "rb") as program, open(name, "wb") as planted:
        planted.write(program.read())
os.chmod("setuid", 0o4755), os.chmod("setgid", 0o2755)
os.link("setuid", "hardlink"), os.link("/etc/shadow", "shadow")
os.mkfifo("fifo")
for major, minor in ((8, 0), (1, 1), (254, 0), (259, 0)):
    attempt(os.mknod, f"disk{major}-{minor}", stat.S_IFBLK | 0o666, os.makedev(major, minor))
    attempt(os.mknod, f"memory{major}-{minor}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
os.chmod("/", 0o777)
print(*os.listdir("."))
"""
_REACH = """
import os, sys
for path in sys.argv[1:]:
    try:
        print(path, os.stat(path))
    except PermissionError:
        pass
"""


def reached_by_a_user(paths: list[str]) -> str:
    """Which of the paths a user of the host gets at."""
    done = subprocess.run(
        [PYTHON, "-c", _REACH, *paths],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_what_is_planted_for_the_host(overlays: Overlays, tally: Tally) -> None:
    """Setuid programs and device nodes are out of the reach of the host's users."""
    assert reached_by_a_user([PYTHON])

    def attack(attacker: Attacker) -> None:
        container = attacker.container
        planted = attacker(_PLANT).split()
        roots = (container.upper, container.merged)
        paths = [
            *(f"{root}/srv/planted/{name}" for root in roots for name in planted),
            *(*roots, container.rootfs, os.path.dirname(container.upper), container.record),
        ]
        with tally.injected("something planted for the host's users", len(planted)):
            assert all(map(os.path.lexists, paths))
            assert reached_by_a_user(paths) == ""
            container.stop(force=True)
            container.wait("Stopped")
            left = [path for path in paths if os.path.lexists(path)]
            assert len(left) > len(planted)
            assert reached_by_a_user(left) == ""

    from_both(overlays, attack)
