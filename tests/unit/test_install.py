# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks' tree, where it may be, and the systemd unit, on real files."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import install, intact, prefix, share, systemd, tree, uninstall
from pycor_hooks.host_errors import (
    BadPrefix,
    SystemdFailed,
    SystemPython,
    UnsafePrefix,
    UnsafeProgram,
)
from pycor_hooks.rawlxc import HOOKS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ME = os.geteuid()


def install_hooks(path: Path) -> list[str]:
    """Install the hooks as the user who runs the tests."""
    return list(install.install_hooks(str(path), owner=ME))


def newer(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Let this package be another version."""
    monkeypatch.setattr(tree, "__version__", version)


def test_tree(tmp_path: Path) -> None:
    """Hooks and modules are there for all to read, compiled, and the link leads to them."""
    (line,) = install_hooks(tmp_path / "new" / "prefix")
    home = tmp_path / "new" / "prefix"
    version = os.path.dirname(os.readlink(home / "hooks"))
    assert str(home / version) in line
    assert set(os.listdir(home)) == {"hooks", version, install.LOCK}
    assert sorted(os.listdir(home / "hooks")) == sorted(HOOKS)
    for hook in HOOKS:
        assert stat.S_IMODE((home / "hooks" / hook).stat().st_mode) == 0o755
    modules = [name for name in os.listdir(home / version / "pycor_hooks") if name[0] != "_"]
    assert "hook.py" in modules
    assert "cli.py" not in modules
    cache = os.listdir(home / version / "pycor_hooks" / "__pycache__")
    assert len(cache) == len(modules) + 1


def test_modes_whatever_the_umask(tmp_path: Path) -> None:
    """An operator's strict umask does not lock out who has to read the hooks."""
    before = os.umask(0o077)
    try:
        install_hooks(tmp_path / "prefix")
    finally:
        os.umask(before)
    for directory, _, files in os.walk(tmp_path / "prefix"):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o755
        for file in set(files) - {install.LOCK}:
            assert os.stat(os.path.join(directory, file)).st_mode & 0o444 == 0o444


def test_compiled_for_good(tmp_path: Path) -> None:
    """The compiled modules are not compared with their sources at each start (PEP 552)."""
    install_hooks(tmp_path / "prefix")
    version = tree.current(str(tmp_path / "prefix"))
    cache = tmp_path / "prefix" / str(version) / "pycor_hooks" / "__pycache__"
    for compiled in cache.iterdir():
        content = compiled.read_bytes()
        assert int.from_bytes(content[4:8], "little") == 0b01
        assert b".unfinished" not in content


def test_installed_hooks_run(tmp_path: Path) -> None:
    """An installed stub finds its modules by itself, and says that it is no command."""
    install_hooks(tmp_path / "prefix")
    for hook in HOOKS:
        done = subprocess.run(
            [tmp_path / "prefix" / "hooks" / hook],
            env={},
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert "LXC_CONFIG_FILE is not set" in done.stderr


def test_twice(tmp_path: Path) -> None:
    """The second time nothing is said, and not a file is touched."""
    install_hooks(tmp_path / "prefix")

    def times() -> dict[str, int]:
        return {str(path): path.lstat().st_ctime_ns for path in (tmp_path / "prefix").rglob("*")}

    before = times()
    assert install_hooks(tmp_path / "prefix") == []
    assert times() == before


def _changed(version: Path) -> None:
    (version / "pycor_hooks" / "hook.py").write_text("")


def _not_compiled(version: Path) -> None:
    (compiled,) = (version / "pycor_hooks" / "__pycache__").glob("hook.*")
    compiled.unlink()


def _half_gone(version: Path) -> None:
    shutil.rmtree(version / "hooks")


def _open_to_others(version: Path) -> None:
    (version / "hooks" / "stop").chmod(0o777)


def _link(version: Path) -> None:
    (version / "pycor_hooks" / "kernel.py").unlink()
    (version / "pycor_hooks" / "kernel.py").symlink_to("/tmp/kernel.py")


@pytest.mark.parametrize("damage", [_changed, _not_compiled, _half_gone, _open_to_others, _link])
def test_repairs(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A version that is not as it was installed is made anew, and nothing else is left."""
    home = tmp_path / "prefix"
    install_hooks(home)
    version = home / str(tree.current(str(home)))
    assert intact.is_intact(str(version), tree.ask_python(), ME)
    damage(version)
    (line,) = install_hooks(home)
    assert line == f"hooks repaired in {version}"
    assert intact.is_intact(str(version), tree.ask_python(), ME)
    assert set(os.listdir(home)) == {"hooks", version.name, install.LOCK}


def test_upgrades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade keeps the version before, and removes those before that, and nothing else."""
    home = tmp_path / "prefix"
    install_hooks(home)
    first = tree.current(str(home))
    (home / "9.9-notes").mkdir()
    (home / "0.0.1-0123456789ab").mkdir()
    (home / ".unfinished-interrupted").mkdir()
    newer(monkeypatch, "8.0.0")
    (line,) = install_hooks(home)
    second = tree.current(str(home))
    assert second is not None
    assert second.startswith("8.0.0-")
    assert f"after {first}" in line
    assert tree.versions(str(home)) == sorted([str(first), second])
    newer(monkeypatch, "9.0.0")
    install_hooks(home)
    third = str(tree.current(str(home)))
    others = {"9.9-notes", "0.0.1-0123456789ab"}
    assert set(os.listdir(home)) == {"hooks", second, third, install.LOCK, *others}


def test_hooks_start_while_upgrading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook whose link was switched in the middle of its start finishes in its own version."""
    home = tmp_path / "prefix"
    install_hooks(home)
    resolved = os.path.realpath(home / "hooks" / "stop")
    newer(monkeypatch, "8.0.0")
    install_hooks(home)
    done = subprocess.run([resolved], env={}, check=False, capture_output=True, text=True)
    assert "LXC_CONFIG_FILE is not set" in done.stderr


def test_an_interrupted_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where compiling fails the link stays as it was, and the next install cleans up."""
    home = tmp_path / "prefix"
    install_hooks(home)
    before = os.readlink(home / "hooks")
    newer(monkeypatch, "8.0.0")
    build = tree.build

    def fail(prefix: str, name: str, files: dict[str, bytes]) -> None:
        build(prefix, name, files, python="/bin/false")

    with monkeypatch.context() as patch:
        patch.setattr(tree, "build", fail)
        with pytest.raises(subprocess.CalledProcessError):
            install_hooks(home)
    assert os.readlink(home / "hooks") == before
    install_hooks(home)
    assert len(os.listdir(home)) == 4


def test_removed(tmp_path: Path) -> None:
    """Uninstalling takes the tree, and the prefix where nothing else is in it."""
    home = tmp_path / "prefix"
    install_hooks(home)
    (home / "notes").touch()
    (line,) = uninstall.remove_hooks(str(home))
    assert str(home) in line
    assert os.listdir(home) == ["notes"]
    (home / "notes").unlink()
    install_hooks(home)
    list(uninstall.remove_hooks(str(home)))
    assert not home.exists()
    assert list(uninstall.remove_hooks(str(home))) == []


def test_two_at_once(tmp_path: Path) -> None:
    """One waits until the other is done."""
    order = []

    def second() -> None:
        with install.alone_in(str(tmp_path)):
            order.append("second")

    thread = threading.Thread(target=second)
    with install.alone_in(str(tmp_path)):
        thread.start()
        lock = tmp_path / ".lock"
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_who_may_only_read_holds_nothing_up(tmp_path: Path) -> None:
    """Anybody may lock a directory that he can open, and an install does not wait for him."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    installing = threading.Thread(target=install_hooks, args=(tmp_path,))
    installing.start()
    installing.join(60)
    os.close(descriptor)
    installed = not installing.is_alive()
    installing.join()
    assert installed


def test_fast_half_only() -> None:
    """What is copied is what the stubs import, and that is standard library and each other."""
    copied = tree.sources()
    assert {os.path.dirname(path) for path in copied} == {"hooks", "pycor_hooks"}
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pycor_hooks.hook; print(*sys.modules)"
    )
    command = [tree.PYTHON, "-I", "-S", "-c", script, os.path.dirname(share.PACKAGE)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    loaded = {name for name in done.stdout.split() if name.startswith("pycor_hooks.")}
    assert {f"pycor_hooks/{name.partition('.')[2]}.py" for name in loaded} <= set(copied)


@pytest.mark.parametrize("path", ["relative", "", "/", "/a b", "/a$(id)", "/a;b", "/a\nb", "/é"])
def test_bad_prefixes(path: str) -> None:
    """A path that a shell would take apart is used wrongly."""
    with pytest.raises(BadPrefix, match="write an absolute path") as caught:
        prefix.check(path)
    assert caught.value.exit_code == 2


def open_to_others(directory: Path) -> None:
    """Let everybody write there."""
    directory.chmod(0o777)


def open_to_a_group(directory: Path) -> None:
    """Let a group write there."""
    directory.chmod(0o775)


def a_link(directory: Path) -> None:
    """Put a link in its place."""
    directory.rmdir()
    directory.symlink_to("/usr")


def a_file(directory: Path) -> None:
    """Put a file in its place."""
    directory.rmdir()
    directory.touch()


@pytest.mark.parametrize("spoil", [open_to_others, open_to_a_group, a_link, a_file])
@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_unsafe_prefixes(tmp_path: Path, spoil: Callable[[Path], None], below: str) -> None:
    """Where somebody else could put other hooks, the directory is named and the way out."""
    directory = tmp_path / "dir"
    directory.mkdir()
    spoil(directory)
    with pytest.raises(UnsafePrefix, match=str(directory)):
        prefix.check(str(directory / below), owner=ME)


def test_directory_of_somebody_else(tmp_path: Path) -> None:
    """A directory of a user who is not root is refused."""
    directory = tmp_path / "dir"
    directory.mkdir()
    stranger = ME or 12345
    if not ME:
        os.chown(directory, stranger, -1)
    with pytest.raises(UnsafePrefix, match=f"belongs to user {stranger}"):
        prefix.check(str(directory), owner=0)


def test_sticky_directory(tmp_path: Path) -> None:
    """In a directory like /tmp others can add, and not replace what is root's."""
    tmp_path.chmod(0o1777)
    (tmp_path / "mine").mkdir()
    assert prefix.check(f"{tmp_path}//mine/../mine/", owner=ME) == str(tmp_path / "mine")
    with pytest.raises(UnsafePrefix, match="can be written by others"):
        prefix.check(str(tmp_path), owner=ME)


@pytest.mark.parametrize(("python", "reason"), [("/nonexistent", "does not run"), ("old", "3.10")])
def test_system_python(tmp_path: Path, python: str, reason: str) -> None:
    """A system without Python 3.11 is told before anything is done."""
    if python == "old":
        python = str(tmp_path / "python3")
        with open(python, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\necho '[[3, 10], \"cpython-310\"]'\n")
        os.chmod(python, 0o755)
    with pytest.raises(SystemPython, match=reason):
        tree.ask_python(python)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that notes how it is called, and answers as its files say."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
        f'case $1 in is-*) test -e "{tmp_path}/$1";; enable) touch {tmp_path}/is-enabled;;\n'
        f"restart) touch {tmp_path}/is-active; test ! -e {tmp_path}/broken;;\n"
        f"show) stat --format=@%Y {tmp_path}/is-active;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def calls(systemctl: Path) -> list[str]:
    """The changes that were asked for since the last time."""
    path = systemctl / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if not line.startswith(("is-", "show "))]


def test_unit(systemctl: Path) -> None:
    """It is written and started; again when it changes or its program does, else left alone."""
    place = str(systemctl)
    text = systemd.unit_text("/opt/bin/pycor-hooks", [])
    assert "ExecStart=/opt/bin/pycor-hooks watch\n" in text
    assert len(list(systemd.ensure(text, 1000, directory=place))) == 3
    assert (systemctl / systemd.UNIT).read_text() == text
    started = [f"enable {systemd.UNIT}", f"restart {systemd.UNIT}"]
    assert calls(systemctl) == ["daemon-reload", *started]
    assert list(systemd.ensure(text, 1000, directory=place)) == []
    assert calls(systemctl) == []
    later = time.time() + 1000
    assert len(list(systemd.ensure(text, later, directory=place))) == 1
    assert calls(systemctl) == [f"restart {systemd.UNIT}"]
    list(systemd.ensure(text + "#", 1000, directory=place))
    assert calls(systemctl) == ["daemon-reload", f"restart {systemd.UNIT}"]


def test_unit_does_not_start(systemctl: Path) -> None:
    """A watcher that does not start is an error that says where to read more."""
    (systemctl / "broken").touch()
    with pytest.raises(SystemdFailed, match=f"journalctl -u {systemd.UNIT}"):
        list(systemd.ensure("text", 1000, directory=str(systemctl)))


def test_unit_removed(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninstalling stops and removes the unit, where there is one."""
    monkeypatch.setattr(systemd, "is_running", lambda: True)
    (systemctl / systemd.UNIT).touch()
    assert len(list(systemd.remove(str(systemctl)))) == 1
    assert calls(systemctl) == [f"disable --now {systemd.UNIT}", "daemon-reload"]
    assert not (systemctl / systemd.UNIT).exists()
    assert list(systemd.remove(str(systemctl))) == []


@pytest.mark.parametrize(
    "directories", [[], ["/srv/lxd"], ["/srv/50%/$x", "/srv/a b", '/srv/"q"\\']]
)
def test_daemons_of_the_unit(systemctl: Path, directories: list[str]) -> None:
    """Those that a unit was written for are found in it again, whatever they are called."""
    (systemctl / systemd.UNIT).write_text(systemd.unit_text("/opt/my bin/x", directories))
    assert systemd.watched(str(systemctl)) == directories


def test_no_unit(tmp_path: Path) -> None:
    """Where there is none, no daemon is named."""
    assert systemd.watched(str(tmp_path)) == []


@pytest.mark.parametrize("owner", [0, 1000])
def test_program_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int
) -> None:
    """No unit has root run what another user can change, by the file or a directory above."""
    place = tmp_path / "venv"
    place.mkdir(mode=0o755)
    command = place / "pycor-hooks"
    command.touch(mode=0o755)
    monkeypatch.setattr(systemd, "own_command", lambda: str(command))
    monkeypatch.setattr(sys, "prefix", str(place))
    if not owner:
        install.check_program()
        return
    for path in (place, command):
        os.chown(path, owner, owner)
        with pytest.raises(UnsafeProgram, match=f"{path} belongs to user {owner}"):
            install.check_program()
        os.chown(path, 0, 0)


def test_unit_quotes() -> None:
    """Paths stand in the unit so that systemd reads them as they are."""
    text = systemd.unit_text("/opt/my bin/pycor-hooks", ["/srv/50%/$x"])
    expected = '"/opt/my bin/pycor-hooks" watch --daemon "/srv/50%%/$$x"'
    assert f"ExecStart={expected}\n" in text


def test_a_prefix_that_is_a_clone(tmp_path: Path) -> None:
    """Where something else is called like our link, nothing is touched, and that is said."""
    (tmp_path / "hooks").mkdir(mode=0o755)
    with pytest.raises(BadPrefix, match="hooks in it is not our link"):
        list(install.install_hooks(str(tmp_path), owner=os.geteuid()))
    assert os.listdir(tmp_path / "hooks") == []
