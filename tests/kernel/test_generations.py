# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests of real trees: what is walked, when a generation begins, and who hears of it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import generations, instance, kernel, ledger, manifest, record
from pycor_hooks.ledger import Update
from pycor_hooks.plan import Base
from tests.kernel.test_hooks import write
from tests.kernel.test_watcher import eventually, reconciling, running, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.liblxc import Container
    from pycor_hooks.manifest import Entry
    from pycor_hooks.reconciler import Reconciler

NOTHING = dict.fromkeys(manifest.KINDS, 0)


@pytest.fixture
def of(daemon: Path, base: str) -> Base:  # noqa: ARG001 - it has to be there
    """The base called ``base``."""
    return Base(str(daemon), "default", "base")


def kept(base: Base) -> str:
    """The directory of what is kept of a base."""
    return instance.state_of(base.daemon, base.name)


def generation(base: Base) -> int | None:
    """The generation of the tree that the base has now."""
    identity = instance.identity_of(instance.Instance(*base).rootfs())
    return instance.generation_of(base.daemon, base.name, identity)


def since(base: Base, generation: int | None) -> list[tuple[str, bool]] | None:
    """The paths that may have changed, and whether they are there; None where that is each."""
    found = list(generations.touched_since(base, generation))
    entries = {one.path: one for one in generations.entries(base)}
    assert [one.new for one in found] == [entries.get(one.path) for one in found]
    every = [(one.path, one.new) for one in found] == list(entries.items())
    return None if every else [(one.path, bool(one.new)) for one in found]


# -- the walk


def test_walk_is_what_lstat_says(base: str) -> None:
    """Every path, of whatever name and type, once and in order; no link is followed."""
    for name in ("a\nb", "\udcff", "z!", "usr-x"):
        os.makedirs(f"{base}/{name}/below")
        write(f"{base}/{name}/below/file", "")
    os.symlink("/etc", f"{base}/usr/etc")
    os.link(f"{base}/etc/hostname", f"{base}/etc/name")
    os.mkfifo(f"{base}/var/fifo")
    os.mknod(f"{base}/var/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    found = list(manifest.walk(base))
    assert [entry.path for entry in found] == sorted(
        _paths(base), key=lambda path: path.split("/") if path else []
    )
    for entry in found:
        status = os.lstat(os.path.join(base, entry.path))
        assert entry[1:7] == (
            *(status.st_mode, status.st_uid, status.st_gid),
            *(status.st_ino, status.st_ctime_ns, status.st_size),
        )
        link = stat.S_ISLNK(status.st_mode)
        assert entry.target == (os.readlink(f"{base}/{entry.path}") if link else "")


def _paths(base: str) -> list[str]:
    found = [
        os.path.relpath(os.path.join(path, name), base)
        for path, dirs, names in os.walk(base)
        for name in dirs + names
    ]
    return ["", *found]


def test_walk_enters_no_mount(base: str) -> None:
    """What the host has mounted in a base is not the base's, a bind of its own file system too."""
    os.mkdir(f"{base}/bound")
    kernel.mount(f"{base}/etc", f"{base}/bound", "", kernel.MS_BIND)
    try:
        paths = [entry.path for entry in manifest.walk(base)]
    finally:
        kernel.umount(f"{base}/bound")
    assert "bound" in paths
    assert "etc/hostname" in paths
    assert "bound/hostname" not in paths


def test_walk_of_a_tree_too_deep(base: str) -> None:
    """Root in a base cannot make the host run out of descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    deep = os.open(base, os.O_RDONLY)
    for _ in range(manifest.PATH_MAX // 2 + 1):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    with pytest.raises(OSError, match="name too long") as caught:
        list(manifest.walk(base))
    assert caught.value.errno == errno.ENAMETOOLONG
    assert len(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rm", "-r", f"{base}/d"], check=True)  # shutil.rmtree has a limit


def test_what_goes_meanwhile_is_left_out(base: str) -> None:
    """A file, or a directory, that is deleted while its base is walked is no error."""
    found = []
    for entry in manifest.walk(base):
        found.append(entry.path)
        if entry.path == "etc":
            shutil.rmtree(f"{base}/usr")
            os.unlink(f"{base}/etc/hostname")
    assert found == ["", "bin", "etc", "etc/os-release", "var"]


# -- generations


def test_generations(base: str, of: Base) -> None:
    """The number grows by one when something changed, and at no other time."""
    assert generation(of) is None
    assert generations.update(of) == Update(1, None)
    assert generation(of) == 1
    file = os.stat(f"{kept(of)}/manifest")
    assert generations.update(of) == Update(1, NOTHING)
    assert os.path.samestat(os.stat(f"{kept(of)}/manifest"), file)

    write(f"{base}/usr/bin/fresh", "fresh\n")
    os.unlink(f"{base}/etc/hostname")
    write(f"{base}/usr/bin/tool", "in place\n")
    assert generations.update(of) == Update(2, NOTHING | {"added": 1, "changed": 1, "deleted": 1})
    assert generation(of) == 2
    shutil.rmtree(f"{base}/var")
    os.symlink("usr", f"{base}/var")
    assert generations.update(of) == Update(3, NOTHING | {"replaced": 1})
    assert list(generations.entries(of)) == list(manifest.walk(base))

    first = [("etc/hostname", False), ("usr/bin/fresh", True), ("usr/bin/tool", True)]
    assert since(of, 1) == [*first, ("var", True)]
    assert since(of, 2) == [("var", True)]
    assert since(of, 3) == []
    assert [since(of, number) for number in (None, 0, 4)] == [None] * 3


def test_nobody_else_reads_it(of: Base, base: str) -> None:
    """What is kept of a base is root's alone: it names every file of it."""
    assert os.path.isdir(base)
    generations.update(of)
    for path in (instance.STATE, os.path.dirname(kept(of)), kept(of)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_running_base(base: str, of: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the base runs there is nothing to write, nor where it starts during the walk."""
    generations.update(of)
    write(f"{base}/usr/bin/fresh", "fresh\n")
    with running(of):
        assert generations.update(of) is None
    walk = manifest.walk
    with monkeypatch.context() as patched:
        starting = running(of)

        def disturbed(rootfs: str) -> Iterator[Entry]:
            yield from walk(rootfs)
            starting.__enter__()

        patched.setattr(manifest, "walk", disturbed)
        assert generations.update(of) is None
        starting.__exit__(None, None, None)
    assert sorted(os.listdir(kept(of))) == ["manifest", "packages"]
    assert generation(of) == 1
    assert generations.update(of) == Update(2, NOTHING | {"added": 1})


def test_another_tree(base: str, of: Base) -> None:
    """A tree in the place of another one is the next generation, and compared with nothing."""
    generations.update(of)
    write(f"{base}/usr/bin/fresh", "fresh\n")
    generations.update(of)
    shutil.copytree(base, f"{base}.new", symlinks=True)
    shutil.rmtree(base)
    os.rename(f"{base}.new", base)
    assert generation(of) is None
    assert generations.update(of) == Update(3, None)
    assert [since(of, number) for number in (1, 2, 3)] == [None, None, []]
    assert sorted(os.listdir(kept(of))) == ["manifest", "packages"]


def test_another_device_number(base: str, of: Base) -> None:
    """The same tree after a reboot, where its file system has another device number, is that."""
    generations.update(of)
    device, _, rest = instance.identity_of(base).partition(":")
    identity = f"{int(device) + 1}:{rest}"
    assert instance.generation_of(of.daemon, of.name, identity) == 1


def test_history_is_bounded(base: str, of: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of long ago go; who is that far behind is told that nobody knows."""
    monkeypatch.setattr(ledger, "HISTORY", 2)
    for number in range(5):
        write(f"{base}/file{number}", "")
        generations.update(of)
    assert sorted(os.listdir(kept(of))) == ["changes.4", "changes.5", "manifest", "packages"]
    assert since(of, 3) == [("file3", True), ("file4", True)]
    assert since(of, 2) is None


@pytest.mark.parametrize("published", [False, True])
def test_killed_while_it_writes(base: str, of: Base, *, published: bool) -> None:
    """What a killed watcher had begun, or half published, is done again by the next one."""
    generations.update(of)
    write(f"{base}/usr/bin/fresh", "fresh\n")
    for name in ("manifest.new", "changes.new", *(["changes.2"] if published else [])):
        write(f"{kept(of)}/{name}", "half of")
    assert generation(of) == 1
    assert since(of, 1) == []
    assert generations.update(of) == Update(2, NOTHING | {"added": 1})
    assert sorted(os.listdir(kept(of))) == ["changes.2", "manifest", "packages"]
    assert since(of, 1) == [("usr/bin/fresh", True)]


@pytest.mark.parametrize("length", [0, 22, 23, 25, 30, 300])
def test_damaged_manifest(base: str, of: Base, length: int) -> None:
    """A manifest that is not whole is written anew; the generation does not begin again."""
    generations.update(of)
    write(f"{base}/usr/bin/fresh", "fresh\n")
    generations.update(of)
    os.truncate(f"{kept(of)}/manifest", length)
    assert generations.update(of) == Update(3, None)
    assert generations.update(of) == Update(3, NOTHING)


# -- containers and the watcher


def test_what_a_start_records(web: Container, base: str, of: Base) -> None:
    """A container has converged to the generation that the base is in when it starts."""
    converged = []
    for change in (None, generations.update, write, _replace):
        if change is write:
            write(f"{base}/usr/bin/fresh", "fresh\n")
            generations.update(of)
        elif change is _replace:
            _replace(base)
        elif change:
            generations.update(of)
        web.start()
        converged.append(record.read(web.directory).converged)
        web.stop()
    assert converged == [None, 1, 2, None]


def _replace(base: str) -> None:
    shutil.copytree(base, f"{base}.new", symlinks=True)
    shutil.rmtree(base)
    os.rename(f"{base}.new", base)


def test_record_of_an_older_version(web: Container, of: Base) -> None:
    """A record without the field is sound; which generation it is of is not known."""
    generations.update(of)
    web.start()
    found = record.read(web.directory)
    with open(found.state_path) as file:
        lines = file.readlines()
    with open(found.state_path, "w") as file:
        file.writelines(line for line in lines if not line.startswith("CONVERGED="))
    assert (found.converged, record.read(web.directory).converged) == (1, None)
    web.stop()


def test_watcher_keeps_manifests(
    web: Container, base: str, of: Base, caplog: pytest.LogCaptureFixture
) -> None:
    """A base is recorded when an overlay on it is first seen, and whenever it stops."""

    async def scenario(reconciler: Reconciler) -> None:
        await reconciler.tick()
        await eventually(lambda: generation(of) == 1)
        with running(of):
            await reconciler.tick()
            write(f"{base}/usr/bin/fresh", "fresh\n")
        await reconciler.tick()
        await eventually(lambda: generation(of) == 2)
        await reconciler.tick()

    caplog.set_level("INFO")
    web.start()
    reconciling(scenario)
    web.stop()
    said = [entry.getMessage() for entry in caplog.records if "generation" in entry.getMessage()]
    assert said == [
        "base: generation 1: the first manifest of this tree",
        "base: generation 2: 1 added",
    ]


async def _later(reconciler: Reconciler) -> None:
    """Wait for looks that are under way, and for what they have left to do."""
    await reconciler.reconcile()
    assert await reconciler.settled() == 0


def test_no_refresh_waits_for_a_manifest(
    web: Container, base: str, of: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a tree is walked, however long that takes, its overlays are refreshed again."""
    goes_on = threading.Event()
    walks = []

    def slow(base: Base) -> Update | None:
        walks.append(base)
        assert goes_on.wait(10)
        return update(base)

    async def scenario(reconciler: Reconciler) -> None:
        await reconciler.reconcile()
        sees = upgrade(base, web)
        await reconciler.reconcile()
        assert sees()
        assert (walks, generation(of)) == ([of], None)
        goes_on.set()
        assert await reconciler.settled() == 0
        assert (walks, generation(of)) == ([of, of], 1)

    update = generations.update
    monkeypatch.setattr(generations, "update", slow)
    web.start()
    try:
        reconciling(scenario)
    finally:
        goes_on.set()
        web.stop()


def test_manifest_that_cannot_be_kept(
    web: Container, base: str, of: Base, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no room for it, that is said, and the overlays are refreshed all the same."""

    async def scenario(reconciler: Reconciler) -> list[int]:
        return [await reconciler.reconcile(), await reconciler.settled()]

    web.start()
    sees = upgrade(base, web)
    write(instance.STATE, "")
    assert reconciling(scenario) == [0, 1]
    assert sees()
    os.unlink(instance.STATE)
    assert reconciling(scenario) == [0, 0]
    web.stop()
    assert "base: its manifest cannot be kept: " in caplog.text
    assert generation(of) == 1


def test_event_loop_goes_on(web: Container, of: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk is no business of the event loop's thread."""

    def where(base: Base) -> Update | None:
        threads.append(threading.current_thread())
        return update(base)

    async def scenario(reconciler: Reconciler) -> None:
        await _later(reconciler)
        await asyncio.sleep(0)

    threads: list[threading.Thread] = []
    update = generations.update
    monkeypatch.setattr(generations, "update", where)
    web.start()
    reconciling(scenario)
    web.stop()
    assert generation(of) == 1
    assert threads
    assert threading.main_thread() not in threads
