# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances from liblxc's variables, its configuration, and its names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab import processes
from lab.wait import until
from pycor_hooks import hooklog, instance
from pycor_hooks.errors import BadName, NotAHook, UnknownLayout
from pycor_hooks.instance import Config, Instance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENVIRON = {
    "LXC_NAME": "blue_web1",
    "LXC_ROOTFS_PATH": "/var/lib/lxd/storage-pools/p/containers/blue_web1/rootfs",
    "LXC_CONFIG_FILE": "/run/x",
}


def test_the_container_of_a_hook() -> None:
    """Daemon, project and name come from the rootfs and from liblxc's name."""
    found, rootfs = instance.from_environment(ENVIRON)
    assert (found.daemon, found.project, found.name) == ("/var/lib/lxd", "blue", "web1")
    assert (found.key, found.label) == ("blue_web1", "blue/web1")
    assert rootfs == ENVIRON["LXC_ROOTFS_PATH"]


def test_a_rootfs_with_a_type_before_it() -> None:
    """``dir:`` before the path is liblxc's, and no part of it."""
    path = ENVIRON["LXC_ROOTFS_PATH"]
    assert instance.from_environment({**ENVIRON, "LXC_ROOTFS_PATH": f"dir:{path}"})[1] == path


@pytest.mark.parametrize(
    ("title", "called"),
    [
        ("[lxc monitor] {link}/containers blue_web1", "link"),
        ("[lxc monitor] {link}/containers web1", "real"),
        ("[lxc monitor] {other}/containers blue_web1", "real"),
        ("[lxc monitor] {real}/containers blue_web1", "real"),
        ("sleep", "real"),
    ],
)
def test_a_state_directory_behind_a_link(tmp_path: Path, title: str, called: str) -> None:
    """It is called what its monitor calls it, as its sockets are, if that leads to the rootfs."""
    places = {name: str(tmp_path / name) for name in ("real", "link", "other")}
    for name in ("real", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("real")
    rootfs = f"{places['real']}/storage-pools/p/containers/blue_web1/rootfs"
    words = [title.format(**places), "infinity"]
    with subprocess.Popen(words, executable="/bin/sleep") as monitor:
        try:
            line = f"{words[0]}\0infinity\0".encode()
            until(lambda: instance.read_of(monitor.pid, "cmdline") == line, what="it is titled")
            environ = {**ENVIRON, "LXC_ROOTFS_PATH": rootfs}
            found, path = instance.from_environment(environ, monitor.pid)
        finally:
            monitor.kill()
    assert (found.daemon, found.key, path) == (places[called], "blue_web1", rootfs)


@pytest.mark.parametrize("path", ["/rootfs", "/a/containers/b/rootfs", "x", "/a/b/c/d/e/f"])
def test_a_rootfs_elsewhere_is_refused(path: str) -> None:
    """A path that no daemon gives is not taken apart by guesswork."""
    with pytest.raises(UnknownLayout):
        instance.from_environment({**ENVIRON, "LXC_ROOTFS_PATH": path})


@pytest.mark.parametrize("variable", ENVIRON)
def test_a_missing_variable_is_named(variable: str) -> None:
    """Without liblxc's variables this is no hook."""
    with pytest.raises(NotAHook, match=variable):
        instance.from_environment({k: v for k, v in ENVIRON.items() if k != variable})


def test_the_base_is_of_the_same_project_unless_another_is_given() -> None:
    """NAME is looked up in the container's project, PROJECT/NAME in that one."""
    web = Instance("/var/lib/lxd", "blue", "web1")
    assert instance.parse_base("base", web).key == "blue_base"
    assert instance.parse_base("default/base", web).key == "base"


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a/b/c", "../a", "./a", "a_b", "a b", "é"])
def test_an_impossible_name_is_refused(text: str) -> None:
    """No name of a base leads out of the daemon's directory."""
    with pytest.raises(BadName):
        instance.parse_base(text, Instance("/var/lib/lxd", "default", "web1"))


def test_config() -> None:
    """The lines that matter are found among those that do not."""
    text = (
        "lxc.log.file = /l\nlxc.idmap = u 0 1 2\nlxc.idmap=g 0 1 2\n# x\n"
        "lxc.rootfs.options = a,ro\nlxc.rootfs.options =\n"
    )
    config = Config(text)
    assert (config.idmap, config.readonly) == (["u 0 1 2", "g 0 1 2"], True)
    assert hooklog.log_file(text) == "/l"
    assert not Config("lxc.rootfs.options = idmap=container\n").readonly
    assert Config("lxc.idmap = u 0 1 2\nlxc.idmap =\nlxc.idmap = g 0 1 2\n").idmap == ["g 0 1 2"]


@pytest.mark.parametrize("mark", "\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
def test_a_setting_cannot_forge_a_line_of_the_config(mark: str) -> None:
    """Only a newline ends a line, which the daemons take in no setting of an instance."""
    forged = f"{mark}lxc.log.file = /etc/passwd{mark}lxc.idmap = b 0 0 9{mark}"
    text = f"lxc.environment = A=1{forged}\nlxc.log.file = /l\n"
    assert (hooklog.log_file(text), Config(text).idmap) == ("/l", [])


def test_a_long_command_socket_is_hashed() -> None:
    """A name that does not fit into sun_path is hashed, as liblxc does."""
    short = instance.command_socket("/var/lib/lxd/containers", "web1")
    assert short == b"\0/var/lib/lxd/containers/web1/command"
    long = instance.command_socket("/" + "x" * 100, "web1")
    assert long.startswith(b"\0lxc/")
    assert long.endswith(b"/command")
    assert len(long) == len("\0lxc/0123456789abcdef/command")


@pytest.fixture
def web() -> Iterator[tuple[Instance, socket.socket]]:
    """An instance, and a bound socket of its monitor's name."""
    found = Instance(f"/nowhere/{os.getpid()}", "default", "web1")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(instance.command_socket(f"{found.daemon}/containers", found.key))
        yield found, server


def test_an_instance_runs_while_its_command_socket_listens(
    web: tuple[Instance, socket.socket],
) -> None:
    """Nobody is asked but the kernel."""
    found, server = web
    assert not found.running()
    server.listen(0)
    assert found.running()
    server.close()
    assert not found.running()


def test_a_monitor_too_busy_to_answer_runs(web: tuple[Instance, socket.socket]) -> None:
    """With a full queue the socket tells nothing: then a process of its title counts."""
    found, server = web
    server.listen(0)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(server.getsockname())
        assert not found.running()
        title = f"[lxc monitor] {found.daemon}/containers web1"
        with subprocess.Popen([title, "infinity"], executable="/bin/sleep") as monitor:
            until(found.running, what="it is seen")
            monitor.kill()
        assert not found.running()


@pytest.mark.host_root
def test_a_process_of_a_container_is_no_monitor() -> None:
    """A privileged one's root is our own user, and gives its processes any title."""
    found = Instance(f"/nowhere/{os.getpid()}", "default", "web1")
    title = f"[lxc monitor] {found.daemon}/containers web1"
    script = f"exec -a '{title}' sleep infinity"
    apart = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with subprocess.Popen([title, "infinity"], executable="/bin/sleep") as monitor:
        try:
            until(lambda: found.monitor() == monitor.pid, what="it is seen")
        finally:
            monitor.kill()
    with subprocess.Popen([*apart, "bash", "-c", script]) as impostor:

        def titles() -> list[str]:
            return [row.command for row in processes.descendants(impostor.pid)]

        try:
            until(lambda: titles() == [f"{title} infinity"], what="the impostor runs")
            assert found.monitor() == 0
        finally:
            impostor.kill()


@pytest.mark.host_root
@pytest.mark.parametrize("queue", [0, 5])
def test_another_user_who_listens_in_its_place_is_not_its_monitor(queue: int) -> None:
    """Anybody may listen on an abstract name, and give a process any title."""
    found = Instance(f"/nowhere/{os.getpid()}", "default", "web1")
    address = instance.command_socket(f"{found.daemon}/containers", found.key)
    code = (
        "import socket, sys\n"
        f"server, other = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)\n"
        f"server.bind({address!r}); server.listen({queue}); other.connect({address!r})\n"
        "print(flush=True); sys.stdin.read()\n"
    )
    title = f"[lxc monitor] {found.daemon}/containers web1"
    with subprocess.Popen(
        [title, "-IS", "-c", code],
        executable="/usr/bin/python3",
        user=65534,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as impostor:
        assert impostor.stdout is not None
        impostor.stdout.readline()
        assert not found.running()
        impostor.communicate()


def test_processes_are_named_by_pid_and_start() -> None:
    """Another start time is another process; a zombie is dead."""
    start = instance.process_start(os.getpid())
    assert instance.process_alive(os.getpid(), start)
    assert not instance.process_alive(os.getpid(), start + 1)
    assert not instance.process_alive(0, 0)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert instance.process_start(child) == 0
    assert not instance.process_alive(child, 0)
    os.waitpid(child, 0)


_FIRST_THREAD_ENDS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_lives_on_without_its_first_thread() -> None:
    """It looks like a zombie, as an init may wish to; it is alive while another thread is."""
    command = [sys.executable, "-c", _FIRST_THREAD_ENDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        start = instance.process_start(process.pid)
        until(lambda: _state_of(process.pid) == "Z", what="its first thread has ended")
        assert instance.process_alive(process.pid, start)
        assert process.stdin is not None
        process.stdin.close()
        until(lambda: not instance.process_alive(process.pid, start), what="the others have, too")


def _state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rpartition(") ")[2][0]
