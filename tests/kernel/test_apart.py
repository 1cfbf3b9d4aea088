# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of a daemon in a mount namespace of its own: what they mount where."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab import apart
from lab.apart import Apart
from lab.liblxc import REPOSITORY, make_base
from lab.starts import IDMAP
from lab.wait import until
from pycor_hooks import generations, instance, kernel, namespaces, record, recovery
from pycor_hooks.instance import Instance
from pycor_hooks.layer import PARENTS
from pycor_hooks.plan import Base
from pycor_hooks.sockets import GUEST_SOCKETS
from tests.kernel.test_hooks import read, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.host_root


@pytest.fixture
def keeper() -> Iterator[int]:
    """A process that stands for the daemon."""
    with apart.namespace() as process:
        yield process


@pytest.fixture
def web(daemon: Path, base: str, keeper: int) -> Iterator[Apart]:  # noqa: ARG001
    """A container of such a daemon."""
    container = make(str(daemon), "web1", keeper)
    yield container
    container.end()


def make(daemon: str, name: str, keeper: int) -> Apart:
    """A container of such a daemon, whose ids have to be mapped."""
    container = Apart(daemon, name, keeper)
    container.idmap = IDMAP
    return container


def test_the_rootfs_is_there_and_merged_is_here(web: Apart) -> None:
    """From pre-start to start-host the daemon's namespace has the overlay, the host to the end."""
    assert web.pre_start() == 0, web.log()
    assert web.mounts_elsewhere() == [web.rootfs]
    assert [mount.target for mount in web.overlays()] == [web.merged]
    place = os.stat(f"/proc/{web.keeper}/ns/mnt").st_ino
    assert record.read(web.directory).namespace == place
    assert web.hook("start-host") == 0
    assert web.mounts_elsewhere() == []
    assert read(f"{web.merged}/etc/os-release") == "etc/os-release of base\n"
    assert web.hook("post-stop") == 0
    assert (web.overlays(), web.mounts_elsewhere()) == ([], [])
    assert not os.path.exists(web.directory)


def test_what_is_kept_of_the_base_is_the_host_s(web: Apart) -> None:
    """A container has converged to the generation of its base, which the host alone keeps."""
    with namespaces.of_process(web.keeper):
        kernel.mount("tmpfs", os.path.dirname(instance.STATE), "tmpfs", 0, "mode=0755")
    generations.update(Base(web.daemon, "default", web.base))
    assert web.pre_start() == 0, web.log()
    assert record.read(web.directory).converged == 1
    assert web.hook("post-stop") == 0
    generations.remove(web.daemon)
    assert not os.path.exists(instance.STATE)


class Unseen(Apart):
    """One whose volume is on a file system that is mounted in its daemon's namespace alone."""

    def command(self, hook: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """The words are written into a configuration that is there, too."""
        with namespaces.of_process(self.keeper):
            return super().command(hook, *arguments)


@pytest.fixture
def unseen(tmp_path: Path) -> Iterator[Unseen]:
    """A container on a pool that the host does not see; its daemon answers."""
    tmp_path.chmod(0o755)
    with apart.namespace(str(tmp_path)) as keeper:
        with namespaces.of_process(keeper):
            kernel.mount("tmpfs", str(tmp_path), "tmpfs", 0, "mode=0755")
            make_base(tmp_path)
            web = Unseen(str(tmp_path), "web1", keeper)
            write(f"{web.rootfs}/etc-stray", "stray\n")
        web.idmap = IDMAP
        yield web
        web.end()
        assert (web.overlays(), web.mounts_elsewhere()) == ([], [])


def test_volumes_that_only_the_daemon_sees(unseen: Unseen) -> None:
    """A pool that is mounted there and not here: base, layer and strays are found all the same."""
    assert unseen.pre_start() == 0
    assert not os.path.exists(unseen.volume)
    assert read(f"{unseen.merged}/etc-stray") == "stray\n"
    assert unseen.hook("post-stop") == 0
    with namespaces.of_process(unseen.keeper):
        assert unseen.log() == ""
        assert read(f"{unseen.upper}/etc-stray") == "stray\n"


def test_a_refusal_is_told_where_the_daemon_has_its_log(unseen: Unseen) -> None:
    """Its configuration and its log are files that only its namespace shows, maybe."""
    assert unseen.pre_start(base="nobody") == 1
    with namespaces.of_process(unseen.keeper):
        assert "base nobody" in unseen.log()


def test_a_lost_record_there_waits_for_the_daemon(
    unseen: Unseen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is down nothing is done; then the record is made anew, with namespace and base."""
    assert unseen.pre_start() == 0
    assert unseen.hook("start-host") == 0
    assert unseen.monitor is not None
    listening = unseen.monitor.pid  # ours is a shell, and does not
    monkeypatch.setattr(Instance, "monitor", lambda self: listening * (self.name == "web1"))
    before = record.read(unseen.directory)
    os.unlink(f"{unseen.directory}/state")
    down = f"{unseen.daemon}/{GUEST_SOCKETS['lxd']}"
    os.rename(down, f"{down}.away")
    (finding,) = recovery.recover([unseen.daemon])
    assert finding.failed
    assert "wait until it is back" in finding.text
    assert [mount.target for mount in unseen.overlays()] == [unseen.merged]
    os.rename(f"{down}.away", down)
    (finding,) = recovery.recover([unseen.daemon])
    assert not finding.failed, finding
    after = record.read(unseen.directory)
    assert (after.namespace, after.lower_identity) == (before.namespace, before.lower_identity)
    assert unseen.hook("post-stop") == 0


def test_what_a_cure_left_is_tidied_there(web: Apart) -> None:
    """In a namespace that has none of our modules, too: they are loaded before."""
    web.start()
    web.stop()
    left = f"{web.volume}/overlay/{PARENTS}"
    write(left, "pycor-hooks parents 1\n")
    with namespaces.of_process(web.keeper):
        kernel.mount("tmpfs", f"{REPOSITORY}/pycor_hooks", "tmpfs", 0)
    assert web.pre_start() == 0, web.log()
    assert not os.path.exists(left)
    assert web.hook("post-stop") == 0


@pytest.mark.parametrize("user", [0, 65534])
def test_a_recorded_namespace_is_found_by_our_own_processes_only(user: int) -> None:
    """The number of one that is gone may be that of any user's, or of a container's, by now."""
    command = ["unshare", "--mount", "setpriv", f"--reuid={user}", "sleep", "infinity"]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: instance.read_of(process.pid, "comm") == b"sleep\n", what="it runs")
            theirs = os.stat(f"/proc/{process.pid}/ns/mnt").st_ino
            found = namespaces.recorded(theirs)
            assert found.identity == (theirs if user == 0 else 0)
        finally:
            process.kill()


def test_a_namespace_that_went_meanwhile(keeper: int) -> None:
    """The process by which it was found may be another one, in another namespace, by now."""
    ours = os.stat("/proc/self/ns/mnt").st_ino
    place = namespaces.of_process(keeper)
    wrong = namespaces.Place(str(os.getpid()), place.identity)
    with pytest.raises(FileNotFoundError, match="namespace is gone"), wrong:
        pass
    assert os.stat("/proc/self/ns/mnt").st_ino == ours
