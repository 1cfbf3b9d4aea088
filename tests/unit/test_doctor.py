# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgements of `doctor` that need no host: limits, watchers, raw.lxc, storage drivers."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pycor_hooks import (
    __version__,
    instance,
    intact,
    prestart,
    pulse,
    rawlxc,
    record,
    registry,
    tree,
)
from pycor_hooks import install as installing
from pycor_hooks.client import Connection
from pycor_hooks.doctor import (
    bases,
    containers,
    examine,
    install,
    inventory,
    kernel,
    leaks,
    limits,
    nextstart,
    watching,
)
from pycor_hooks.doctor.check import Check, names, refused
from pycor_hooks.doctor.inventory import Base, Container, House
from pycor_hooks.doctor.limits import Limit, judge, key_usage
from pycor_hooks.errors import StillHeld
from pycor_hooks.host_errors import NoDaemon, NoIdMap
from pycor_hooks.pulse import Followed, Pulse
from pycor_hooks.sockets import Daemon
from tests.unit.fake_api import FakeApi
from tests.unit.fake_api import instance as api

if TYPE_CHECKING:
    from pathlib import Path

LXD = Daemon("lxd", "/var/lib/lxd")
HOOKS = """\
lxc.rootfs.options =
lxc.hook.pre-start = /opt/x/hooks/pre-start --base base
lxc.hook.start-host = /opt/x/hooks/start-host
lxc.hook.stop = /opt/x/hooks/stop
lxc.hook.post-stop = /opt/x/hooks/post-stop
"""


def limit(used: int, *, of: int = 128, containers: int = 10, theirs: int | None = None) -> Check:
    """The judgement of a limit."""
    by_containers = used if theirs is None else theirs
    return judge(Limit("inotify instances", "fs.x", of, 1048576, used, by_containers, containers))


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (limit(0, containers=0), "ok"),
        (limit(10), "ok"),  # 118 left, one each
        (limit(60), "warn"),  # 11 more containers
        (limit(60, theirs=5), "ok"),  # the host's own
        (limit(60, of=4096), "ok"),
        (limit(120), "FAIL"),
        (limit(128, containers=0), "FAIL"),
    ],
)
def test_limits(found: Check, state: str) -> None:
    """A limit is judged by how many more containers like those that run it has room for."""
    assert found.state == state
    if state == "ok":
        assert found.remedy == ""
    else:
        assert found.remedy == "sysctl -w fs.x=1048576, and the same in /etc/sysctl.d"


def test_the_cause_of_a_limit() -> None:
    """It says what is used, what is there, and what would fit."""
    cause = "60 of 128 used: room for about 11 more containers like the 10 that run"
    assert limit(60).cause == cause
    assert limit(10).cause == "10 of 128 used (the daemons recommend 1048576)"


def test_keys(tmp_path: Path) -> None:
    """The user who is nearest to the limit counts, and root, who has others, does not."""
    (tmp_path / "sys/kernel/keys").mkdir(parents=True)
    for name, value in (("maxkeys", 200), ("maxbytes", 20000)):
        (tmp_path / "sys/kernel/keys" / name).write_text(f"{value}\n")
    (tmp_path / "key-users").write_text(
        "    0:   190 189/189 186/1000000 1860/25000000\n"
        "  998:     1 1/1 1/200 9000/20000\n"
        "100000:   152 152/152 150/200 1200/20000\n"
    )
    assert key_usage(str(tmp_path)) == ((200, 2000, 150, 150), (20000, 2000000, 9000, 9000))


def followed(state: str = pulse.FOLLOWING, *, since: float = 0, heard: float = 95) -> Followed:
    """What a watcher says of LXD."""
    return Followed(LXD.directory, state, f"it is {state}", since, heard)


@pytest.mark.parametrize(
    ("said", "host", "state", "words"),
    [
        ([followed()], {}, "ok", "followed, last heard of 5 s ago"),
        ([followed(heard=30)], {}, "FAIL", "has said nothing for 70 s, not even to a ping"),
        ([followed("lost"), followed()], {}, "ok", "followed"),
        ([followed(heard=30), followed()], {}, "ok", "followed"),
        ([followed("failing", since=10)], {}, "FAIL", "not followed, for 90 s: it is failing"),
        ([followed("lost", since=99)], {}, "warn", "not followed, for 1 s: it is lost"),
        ([followed("stopped")], {"answers": False}, "ok", "waited for: it is stopped"),
        ([], {}, "FAIL", "no watcher follows it: 3 live overlays would"),
        ([], {"live": 0}, "warn", "no watcher follows it"),
    ],
)
def test_daemons_that_are_watched(
    said: list[Followed], host: dict[str, Any], state: str, words: str
) -> None:
    """The best of what the watchers say counts, and how long ago the daemon was heard of."""
    one = watching.judge_daemon(LXD.directory, said, 100, **{"live": 3, "answers": True} | host)
    assert (one.state, words in one.cause) == (state, True), one


def test_processes_that_watch() -> None:
    """A watcher that no longer ticks, and one of another version."""
    sound = Pulse(7, 1, __version__, 98.0, ())
    assert list(watching.judge_process(sound, 100)) == []
    (stuck,) = watching.judge_process(sound._replace(ticked_at=60), 100)
    assert (stuck.subject, stuck.state) == ("process 7", "FAIL")
    assert stuck.cause == "it has done nothing for 40 s"
    (old,) = watching.judge_process(sound._replace(version="0.0.1"), 100)
    assert (old.state, "version 0.0.1" in old.cause) == ("warn", True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of our own instead of /run/pycor-hooks."""
    for module in (record, registry):
        monkeypatch.setattr(module, "RUN", str(tmp_path / "run"))
    return tmp_path / "run"


def test_the_pulse_of_a_watcher(run: Path) -> None:
    """What it shows is read back, is no overlay of anybody, and is gone when it hides."""
    pulse.show([followed()], 42.5)
    (mine,) = pulse.pulses()
    start = instance.process_start(os.getpid())
    assert mine == Pulse(os.getpid(), start, __version__, 42.5, (followed(),))
    assert registry.directories() == []
    pulse.hide()
    assert pulse.pulses() == []
    assert os.listdir(run) == []


def test_pulses_of_nobody(run: Path) -> None:
    """Files of dead watchers, garbled ones, and ones of a pid that was used again do not count."""
    pulse.show([], 1.0)
    home = run / pulse.HOME
    mine = json.loads((home / str(os.getpid())).read_text())
    (home / str(os.getpid())).write_text(json.dumps(mine | {"start": 1}))
    (home / "4194304").write_text(json.dumps(mine | {"pid": 4194304}))
    for number, text in enumerate(
        ("", "[]", "{", '{"pid": 1}', json.dumps(mine | {"daemons": 1}))
    ):
        (home / str(4194305 + number)).write_text(text)
    (home / "4194399.new").write_text("")
    assert pulse.pulses() == []
    (home / "stray").touch()
    pulse.hide()
    assert os.listdir(home) == ["stray"]


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ("", []),
        ("lxc.environment = A=1\n# lxc.hook.stop =\n", []),
        ("lxc.hook.stop =\n", ["lxc.hook.stop"]),
        ("lxc.hook.stop =\nlxc.hook.stop = /y/hooks/stop\n", []),
        ("lxc.hook.stop = /bin/true\n", []),
        ("lxc.hook =\n", [f"lxc.hook.{kind}" for kind in rawlxc.HOOKS]),
        ("lxc.rootfs.options = idmap=container\n", ["lxc.rootfs.options (empty)"]),
    ],
)
def test_hooks_in_effect(more: str, missing: list[str]) -> None:
    """Liblxc adds a hook's lines up, and an empty one takes back those before."""
    assert rawlxc.missing(HOOKS + more) == missing


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("/opt/x/hooks/pre-start --base base", ("/opt/x", ["--base", "base"])),
        ("/opt/x/hooks/pre-start --base=p/b", ("/opt/x", ["--base=p/b"])),
        (
            "/usr/bin/env -u A /usr/bin/python3 -I /x/hooks/pre-start --base b",
            ("/x", ["--base", "b"]),
        ),
        ("/bin/true", None),
        ("/opt/x/hooks/pre-start 'open", ("/opt/x", ["'open"])),
    ],
)
def test_our_pre_start(line: str, found: tuple[str, list[str]] | None) -> None:
    """It is found whatever runs it, with what follows its path."""
    assert rawlxc.pre_start(f"lxc.hook.pre-start = /bin/a\nlxc.hook.pre-start = {line}") == found


def container(name: str = "web1", **config: str) -> Container:
    """A container on a base, as the API shows it, in the pool of its own name."""
    api = {
        "project": "default",
        "name": name,
        "expanded_config": {"raw.lxc": HOOKS} | config,
        "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": name}},
    }
    return Container(LXD, api)


class Pools:
    """An API that knows the driver of each pool."""

    def __init__(self, **drivers: str) -> None:
        self._drivers = drivers

    def get(self, *path: str) -> dict[str, str]:
        """GET /1.0/storage-pools/NAME."""
        assert path[0] == "storage-pools"
        return {"driver": self._drivers[path[1]]}


def test_pools() -> None:
    """Containers on a driver that nobody has tried are named."""
    pools: Any = Pools(web1="dir", web2="zfs", web3="btrfs", web4="lvm")
    some = [container(f"web{number}") for number in range(1, 5)]
    found = containers.check_pools(House(LXD, None, [pools], some, []), some)
    assert [(one.subject, one.state) for one in found] == [("web2", "warn"), ("web4", "warn")]
    (zfs, _) = containers.check_pools(House(LXD, None, [pools], some, []), some)
    assert "pool web2 is on zfs" in zfs.cause
    assert zfs.remedy == "lxc move web2 -s POOL, to dir or btrfs"


def test_a_volume_that_is_unmounted_while_its_container_is_stopped(tmp_path: Path) -> None:
    """Its next start cannot be tried, which is no fault of it, and nothing is to be deleted."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks/pre-start").touch(mode=0o755)
    volume = tmp_path / "storage-pools/pool/containers/web1"
    volume.mkdir(parents=True)
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/web1").symlink_to(volume)
    config = {
        "raw.lxc": HOOKS.replace("/opt/x", str(tmp_path)),
        "security.privileged": "true",
    }
    web = Container(Daemon("lxd", str(tmp_path)), container(**config).api)
    (found,) = nextstart.check([web])
    assert (found.subject, found.state) == ("web1", "warn")
    assert found.cause.startswith(f"{volume}/rootfs is not there while the container is stopped")
    assert found.remedy == "look again when it runs"


def test_a_base_that_has_a_rootfs_only_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On zfs the host sees a base while it runs, which tells nothing: the driver does."""
    monkeypatch.setattr(prestart, "check_base", lambda *_: "/the/rootfs")
    with FakeApi(str(tmp_path / "lxd")) as fake:
        fake.default.instances["base"] = api(project="default", name="base")
        fake.pools["pool"] = "zfs"
        with Connection(fake.daemon) as connection:
            base = Container(fake.daemon, fake.default.instances["base"])
            house = House(fake.daemon, None, [connection], [base], [])
            (one,) = bases.check_base(house, Base(base.where, base, [], [], []))
    assert (one.name, one.state) == ("base", "FAIL")
    assert one.cause.startswith("base default/base is in pool pool, on zfs, whose stopped")
    assert "lxc storage create bases dir" in f"{one.cause}{one.remedy}"


def test_ids_of_the_next_start() -> None:
    """They are those that the daemon has planned; none for a privileged one."""
    extents = [
        {"Isuid": True, "Isgid": False, "Hostid": 100000, "Nsid": 0, "Maprange": 65536},
        {"Isuid": True, "Isgid": True, "Hostid": 7, "Nsid": 70000, "Maprange": 1},
    ]
    found = container(**{"volatile.idmap.next": json.dumps(extents)}).config()
    assert found.idmap == ["u 0 100000 65536", "u 70000 7 1", "g 70000 7 1"]
    assert container(**{"security.privileged": "true"}).config().idmap == []
    with pytest.raises(NoIdMap, match="web1"):
        container().config()


def test_an_error_as_a_check() -> None:
    """What an error says is told as cause and remedy."""
    one = refused("x", "y", StillHeld(path="/p", holder="z", remedy="end it with: kill 1"))
    assert (one.cause, one.remedy) == ("/p is still held by z", "end it with: kill 1")


def test_many_names() -> None:
    """A line names a few, and counts the rest."""
    assert names(["b", "a"]) == "a, b"
    assert names(map(str, range(7))) == "0, 1, 2, 3, 4 and 2 more"


def test_a_host_without_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is one failure, and the rest of the host is looked at."""
    for theme in (kernel, install, limits, leaks):
        monkeypatch.setattr(theme, "check", lambda *_, **__: iter(()))
    order = examine.Order([], None, "/nonexistent", sure=False, fix=False)
    assert list(examine.examine(order)) == [refused("daemon", "this host", NoDaemon())]


def test_a_theme_that_cannot_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a failure of its own, and the others go on."""

    def fail() -> Any:
        raise PermissionError(13, "Permission denied", "/proc/x")

    for theme in (kernel, install, leaks):
        monkeypatch.setattr(theme, "check", lambda *_, **__: iter(()))
    monkeypatch.setattr(limits, "measure", fail)
    order = examine.Order([], None, "/nonexistent", sure=False, fix=False)
    *_, one = examine.examine(order)
    assert (one.name, one.cause) == (
        "limits",
        "could not be looked at: Permission denied at /proc/x",
    )


def test_a_base_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a failure of its own, and the other bases are looked at."""

    def look(_house: object, base: Any) -> Any:
        if base.where.name == "broken":
            raise OSError(errno.EIO, "Input/output error")
        yield Check("base", base.where.label, "ok", "fine")

    wheres = [instance.Instance(LXD.directory, "default", name) for name in ("broken", "whole")]
    found = [Base(where, None, [], [], []) for where in wheres]
    monkeypatch.setattr(inventory, "bases", lambda _house: found)
    monkeypatch.setattr(bases, "check_base", look)
    told = list(bases.check(House(LXD, None, [], [], [])))
    assert [(one.subject, one.state) for one in told] == [("broken", "FAIL"), ("whole", "ok")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hooks that were installed and are not touched."""
    path = tmp_path_factory.mktemp("installed")
    list(installing.install_hooks(str(path / "prefix"), owner=os.geteuid()))
    return path / "prefix"


def _copy(installed: Path, tmp_path: Path) -> tuple[str, Path]:
    """A prefix to spoil, and the directory of its version."""
    home = tmp_path / "prefix"
    shutil.copytree(installed, home, symlinks=True)
    return str(home), home / str(tree.current(str(home)))


@pytest.mark.skipif(os.geteuid() != 0, reason="installed hooks are root's")
def test_hooks_that_others_can_change(installed: Path, tmp_path: Path) -> None:
    """A file, or a directory above, that somebody else may write to, is named."""
    path, version = _copy(installed, tmp_path)
    one = install.check_safe(path)  # /tmp is open to others, and root is sticky about it
    assert one.state == "ok", one
    (version / "hooks" / "stop").chmod(0o775)
    one = install.check_safe(path)
    assert (one.state, f"{version}/hooks/stop can be written by others" in one.cause) == (
        "FAIL",
        True,
    )
    (version / "hooks" / "stop").chmod(0o755)
    os.chown(version / "pycor_hooks" / "hook.py", 1000, 1000)
    one = install.check_safe(path)
    assert (one.state, "hook.py belongs to user 1000" in one.cause) == ("FAIL", True)
    tmp_path.chmod(0o777)
    one = install.check_safe(path)
    assert (one.state, "can be written by others" in one.cause) == ("FAIL", True)
    assert str(version) not in one.cause


def test_hooks_of_another_version(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed since they were installed, of another version than the command, not compiled."""
    path, version = _copy(installed, tmp_path)
    tag = tree.ask_python()
    assert install.check_version(path, tag).state == "ok"
    assert install.check_compiled(path).state == "ok"
    assert install.check_version(path, "cpython-99").state == "FAIL"
    with monkeypatch.context() as patch:
        patch.setattr(tree, "__version__", "9.9")
        other = install.check_version(path, tag)
    assert (other.state, "those of this command 9.9-" in other.cause) == ("warn", True)
    (compiled,) = (version / "pycor_hooks" / "__pycache__").glob("record.*")
    compiled.write_bytes(b"\0" * 16 + compiled.read_bytes()[16:])
    one = install.check_compiled(path)
    assert (one.state, one.cause.startswith("record.py")) == ("warn", True)
    with (version / "pycor_hooks" / "record.py").open("a") as file:
        file.write("\n")
    one = install.check_version(path, tag)
    assert (one.state, "is not what was installed" in one.cause) == ("FAIL", True)
    assert (
        one.remedy
        == f"run pycor-hooks install --prefix {path} (and the --base, --daemon that it had)"
    )
    assert not intact.is_intact(str(version), tag, os.geteuid())


def test_a_host_without_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the Python that runs the hooks nothing else is looked at."""
    monkeypatch.setattr(tree.ask_python, "__defaults__", ("/nonexistent/python3",))
    (one,) = install.check("/nonexistent", "/nonexistent")
    assert (one.name, one.state) == ("python", "FAIL")
    assert one.remedy == "install Python 3.11 or newer"
