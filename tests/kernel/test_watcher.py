# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher on real overlays: what is refreshed, left for later, taken down and said."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from lab.liblxc import REPOSITORY, Container, make_base
from lab.wait import until
from pycor_hooks import (
    afterupdate,
    converge,
    instance,
    kernel,
    live,
    overlay,
    patience,
    record,
    refreshing,
    registry,
    upkeep,
    watcher,
)
from pycor_hooks.events import Change, LifecycleEvent
from pycor_hooks.live import Records
from pycor_hooks.plan import Base
from pycor_hooks.reconciler import Reconciler
from pycor_hooks.sockets import Daemon
from tests.unit.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")


@pytest.fixture
def daemon() -> Iterator[Path]:
    """A made-up daemon's directory, whose path leaves room for the names of sockets."""
    with TemporaryDirectory(prefix="pycor-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def two(daemon: Path, base: str) -> Iterator[list[Container]]:  # noqa: ARG001 - it has to be there
    """Two containers that run on the base, ended after the test."""
    containers = [Container(str(daemon), name) for name in ("web1", "web2")]
    for container in containers:
        container.start()
    yield containers
    for container in containers:
        if container.init and container.monitor:
            container.stop()
        container.end()


@contextmanager
def running(base: Base) -> Iterator[None]:
    """Have an instance run, as far as anybody can tell without its daemon."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.bind(instance.command_socket(f"{base.daemon}/containers", base.name))
        monitor.listen()
        yield


def upgrade(base: str, container: Container) -> Callable[[], bool]:
    """Replace a file of the base that the container has seen; the answer tells who sees it."""
    tool = f"{container.merged}/usr/bin/tool"
    fresh = f"{base}/usr/bin/fresh"
    with open(tool) as file:
        file.read()
    assert not os.path.exists(f"{container.merged}/usr/bin/fresh")
    with open(fresh, "w") as file:
        file.write("fresh\n")

    def sees() -> bool:
        return os.path.exists(f"{container.merged}/usr/bin/fresh")

    assert not sees(), "the kernel shows it by itself, so this test tells nothing"
    return sees


def reconciling(scenario: Callable[[Reconciler], Awaitable[T]]) -> T:
    """Run a scenario with a reconciler for all overlays."""

    async def main() -> T:
        async with asyncio.TaskGroup() as group:
            return await scenario(Reconciler(group, Records()))

    return asyncio.run(main())


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition, and let the event loop go on meanwhile."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it depends on the kernel
            await asyncio.sleep(0.005)


def of(container: Container) -> Base:
    """The base of a container of the harness."""
    return Base(container.daemon, "default", "base")


def record_of(container: Container) -> record.Record:
    """What is recorded of a container's overlay."""
    return record.read(container.directory)


# -- refresh


def test_refresh_shows_the_change(two: list[Container], base: str) -> None:
    """Reconciling refreshes every overlay whose base is stopped, and notes when."""
    sees = [upgrade(base, container) for container in two[:1]]
    os.utime(f"{two[0].directory}/state", (1, 1))
    assert reconciling(lambda reconciler: reconciler.reconcile()) == 0
    assert all(see() for see in sees)
    assert time.time() - record_of(two[0]).refreshed_at < 10


def test_running_base_is_left_alone_until_it_stops(two: list[Container], base: str) -> None:
    """While the base runs nothing is refreshed; the first tick after its stop does it."""

    async def scenario(reconciler: Reconciler) -> None:
        with running(of(two[0])):
            await reconciler.reconcile()
            await reconciler.tick()
            assert not sees()
        await reconciler.tick()
        await eventually(sees)

    sees = upgrade(base, two[0])
    reconciling(scenario)


def test_base_that_started_unheard(two: list[Container], base: str) -> None:
    """A base that starts and stops without a single event is refreshed all the same."""

    async def scenario(reconciler: Reconciler) -> None:
        await reconciler.reconcile()
        with running(of(two[0])):
            await reconciler.tick()
            sees = upgrade(base, two[0])
        await reconciler.tick()
        await eventually(sees)

    reconciling(scenario)


def test_event_before_the_monitor_is_gone(two: list[Container], base: str) -> None:
    """The event may come before the monitor ends: the refresh waits for that, not for a tick."""

    async def scenario(reconciler: Reconciler) -> None:
        with running(of(two[0])):
            reconciler.heard(Daemon("lxd", two[0].daemon), stopped)
            reconciler.heard(Daemon("lxd", two[0].daemon), stopped)
            await asyncio.sleep(0.2)  # that nothing happens can only be seen by waiting
            assert not sees()
        await eventually(sees)

    stopped = LifecycleEvent(Change.STOPPED, "default", "base")
    sees = upgrade(base, two[0])
    reconciling(scenario)


@pytest.mark.parametrize("change", [Change.RESTARTED, Change.STARTED, Change.CHANGED])
def test_other_events(two: list[Container], base: str, change: Change) -> None:
    """Whatever else happens to a stopped base, its overlays are refreshed at once."""

    async def scenario(reconciler: Reconciler) -> None:
        event = LifecycleEvent(change, "default", "base")
        reconciler.heard(Daemon("lxd", two[0].daemon), event)
        await eventually(sees)

    sees = upgrade(base, two[0])
    reconciling(scenario)


def test_overlay_of_another_base_is_left_alone(two: list[Container], base: str) -> None:
    """An event of one instance refreshes the overlays of no other."""

    async def scenario(reconciler: Reconciler) -> None:
        for event in (
            LifecycleEvent(Change.STOPPED, "default", "other"),
            LifecycleEvent(Change.STOPPED, "web", "base"),
        ):
            reconciler.heard(Daemon("lxd", two[0].daemon), event)
        reconciler.heard(
            Daemon("lxd", "/elsewhere"), LifecycleEvent(Change.STOPPED, "default", "base")
        )

    sees = upgrade(base, two[0])
    reconciling(scenario)
    assert not sees()


def test_one_failure_does_not_stop_the_rest(
    two: list[Container], base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An overlay that cannot be refreshed is named in the log, and the next one is refreshed."""
    sees = upgrade(base, two[1])
    kernel.umount(two[0].merged)
    assert reconciling(lambda reconciler: reconciler.reconcile()) == 1
    assert sees()
    (said,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert said.getMessage().startswith("web1: ")


def test_record_that_was_being_written_is_seen_at_the_next_glance(two: list[Container]) -> None:
    """A start that was looked at between its directory and its record is not forgotten."""
    records = Records([two[0].daemon])
    late = record_of(two[1])
    os.rename(late.state_path, f"{late.directory}/.late")
    assert [one.name for one in records.scan()] == [two[0].name]
    os.rename(f"{late.directory}/.late", late.state_path)
    assert {one.name for one in records.glance()} == {two[0].name, two[1].name}


def test_changes_within_a_tick_of_the_clock_are_seen(two: list[Container]) -> None:
    """A record that came with the look, and gave its directory no other time, is not forgotten."""
    records = Records([two[0].daemon])
    late, aside = two[1].directory, f"{record.RUN}/.aside"
    os.rename(late, aside)
    parents = (record.RUN, os.path.dirname(late))
    times = [os.stat(path).st_mtime_ns for path in parents]
    assert [one.name for one in records.scan()] == [two[0].name]
    os.rename(aside, late)
    for path, time_ns in zip(parents, times, strict=True):
        os.utime(path, ns=(time_ns, time_ns))
    assert {one.name for one in records.glance()} == {two[0].name, two[1].name}


def test_overlay_that_went_away_is_no_failure(two: list[Container]) -> None:
    """An overlay that its container's stop takes down meanwhile is passed over, and forgotten."""
    before = [record_of(container) for container in two]
    two[0].stop()
    assert refreshing.refresh_records(before) == []
    assert not os.path.exists(two[0].directory)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a refresh did not work, and what is left is to wait for the overlay's lock."""
    exists, reached = kernel.exists, threading.Event()

    def and_tell(path: str) -> bool:
        found = exists(path)
        reached.set()
        return found

    monkeypatch.setattr(kernel, "exists", and_tell)
    return reached


def test_overlay_that_is_being_taken_down_is_no_failure(
    two: list[Container], tried: threading.Event
) -> None:
    """Between the unmount and the end of the record, whoever holds the lock is waited for."""
    before = record_of(two[0])
    failures: list[refreshing.Failure] = []
    with registry.Lock(before.directory):
        kernel.umount(two[0].merged)
        tried.clear()
        refresher = threading.Thread(
            target=lambda: failures.extend(refreshing.refresh_records([before]))
        )
        refresher.start()
        assert tried.wait(timeout=10)
        os.unlink(before.state_path)
        os.rmdir(before.merged)
    refresher.join()
    assert failures == []
    assert not os.path.exists(before.directory)


def test_overlay_that_is_about_to_be_mounted_is_waited_for(
    two: list[Container], base: str, tried: threading.Event
) -> None:
    """Recorded and not mounted yet, as in the midst of a start: it is refreshed in the end."""
    before = record_of(two[0])
    sees = upgrade(base, two[0])
    with ThreadPoolExecutor(1) as pool:
        with registry.Lock(before.directory):
            mounted = kernel.open_tree_clone(before.merged)
            kernel.umount(before.merged, kernel.MNT_DETACH)
            tried.clear()
            failures = pool.submit(refreshing.refresh_records, [before])
            assert tried.wait(timeout=10)
            kernel.move_mount(mounted, before.merged)
            os.close(mounted)
        assert failures.result() == []
    assert sees()


def test_overlay_of_a_new_start_is_no_failure(two: list[Container]) -> None:
    """A record of an earlier start is nobody's failure when a new start has taken its place."""
    before = record_of(two[0])
    before.monitor_start -= 1
    kernel.umount(two[0].merged)
    assert refreshing.refresh_records([before]) == []
    assert len(refreshing.refresh_records([record_of(two[0])])) == 1


def test_base_that_cannot_be_looked_at(
    two: list[Container], base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A base whose pool is broken is named in the log, once, and the watcher goes on."""

    async def scenario(reconciler: Reconciler) -> list[int]:
        link = f"{two[0].daemon}/containers/base"
        os.unlink(link)
        os.symlink(link, link)
        failures = [await reconciler.reconcile(), await reconciler.reconcile()]
        os.unlink(link)
        os.symlink(os.path.dirname(base), link)
        return [*failures, await reconciler.reconcile()]

    assert reconciling(scenario) == [1, 1, 0]
    assert caplog.text.count("base: cannot be looked at: ") == 1


def test_two_watchers_do_no_harm(two: list[Container], base: str) -> None:
    """Two reconcilers at once refresh twice, and take an orphan down once."""
    orphan(two[1])

    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            both = [Reconciler(group, Records()) for _ in range(2)]
            return await asyncio.gather(*(each.reconcile() for each in both))

    sees = upgrade(base, two[0])
    assert asyncio.run(main()) == [0, 0]
    assert sees()
    assert not os.path.exists(two[1].directory)


def test_event_loop_is_not_held_up(two: list[Container], monkeypatch: pytest.MonkeyPatch) -> None:
    """While overlays are refreshed, however long that takes, the event loop goes on."""

    def slow(merged: str) -> None:
        time.sleep(0.2)
        refresh(merged)

    async def scenario(reconciler: Reconciler) -> float:
        longest, last = 0.0, time.monotonic()
        work = asyncio.create_task(reconciler.reconcile())
        while not work.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest

    refresh = overlay.refresh
    monkeypatch.setattr(overlay, "refresh", slow)
    assert len(two) == 2
    assert reconciling(scenario) < 0.15


@pytest.mark.parametrize(
    ("limit", "value"),
    [("pycor_hooks.reconciler.SLICE", 1), ("pycor_hooks.refreshing.LOOK_EVERY", 0.0)],
)
def test_base_that_starts_during_a_refresh(
    two: list[Container], base: str, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """A base that starts between two slices, or within one, leaves the rest for its next stop."""
    monkeypatch.setattr(limit, value)
    monitor = running(of(two[0]))

    def and_start_base(merged: str) -> None:
        refresh(merged)
        if not started:
            started.append(merged)
            monitor.__enter__()

    async def scenario(reconciler: Reconciler) -> None:
        await reconciler.reconcile()
        assert [see() for see in sees] == [True, False]
        monitor.__exit__(None, None, None)
        await reconciler.tick()
        await eventually(sees[1])

    refresh = overlay.refresh
    started: list[str] = []
    monkeypatch.setattr(overlay, "refresh", and_start_base)
    sees = [upgrade(base, two[0]), _also_sees(two[1])]
    reconciling(scenario)


def _also_sees(container: Container) -> Callable[[], bool]:
    """Like `upgrade`, for a second container, after the base has changed."""
    path = f"{container.merged}/usr/bin/later"
    assert not os.path.exists(path)
    with open(f"{container.daemon}/containers/base/rootfs/usr/bin/later", "w") as file:
        file.write("later\n")
    return lambda: os.path.exists(path)


def test_one_that_never_ends_holds_up_no_other(
    two: list[Container], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container that keeps its converge waiting is given up, and let alone while it goes on."""
    asked: list[str] = []
    free = threading.Event()

    def slow(found: record.Record, *arguments: Any, **named: Any) -> object:
        asked.append(found.name)
        if found.name == "web1":
            free.wait(30)
        return converge.converge(found, *arguments, **named)

    async def scenario(reconciler: Reconciler) -> None:
        for _ in range(2):
            await reconciler.reconcile()
            assert await reconciler.settled() == 1
        assert sorted(asked) == ["web1", "web2", "web2"]
        free.set()
        async with asyncio.timeout(10):
            while record_of(two[0]).converged is None:
                await reconciler.reconcile()
                await reconciler.settled()

    monkeypatch.setattr(upkeep, "converge", slow)
    monkeypatch.setattr(patience, "LONGEST", 1.0)
    monkeypatch.setattr(upkeep, "CORES", 1)
    reconciling(scenario)
    said = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]
    assert [text.split(":")[0] for text in said] == ["web1"]
    assert "does not answer; restart container web1" in said[0]
    assert record_of(two[0]).converged == record_of(two[1]).converged == 1


def test_who_could_not_be_asked_is_asked_again(
    two: list[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that wants its units restarted gets that when its daemon is back."""
    wanted: list[str] = []
    back: list[bool] = []

    async def ask(_found: record.Record) -> str:
        if not back:
            raise ConnectionRefusedError
        return "restart"

    async def want(_restarts: object, found: record.Record, *, again: bool) -> None:  # noqa: ARG001
        wanted.append(found.name)

    async def scenario(reconciler: Reconciler) -> None:
        await reconciler.reconcile()
        assert await reconciler.settled() == 0
        assert record_of(two[0]).converged == 1
        assert wanted == []
        back.append(True)
        await eventually(lambda: sorted(wanted) == ["web1", "web2"])

    monkeypatch.setattr(afterupdate, "_ask", ask)
    monkeypatch.setattr(afterupdate.Restarts, "want", want)
    monkeypatch.setattr(upkeep, "RETRY", 0.05)
    reconciling(scenario)


# -- detached


def test_replaced_base_is_said_once(
    two: list[Container],  # noqa: ARG001 - they run
    base: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the base's tree is another one, each container that needs a restart is named, once."""
    shutil.move(base, f"{base}.old")
    os.mkdir(base)

    async def scenario(reconciler: Reconciler) -> None:
        await reconciler.reconcile()
        await reconciler.reconcile()

    reconciling(scenario)
    said = [entry.getMessage() for entry in caplog.records]
    assert [text.split(":")[0] for text in said] == ["web1", "web2"]
    assert all("restart" in text for text in said)


def test_missing_base_is_said(
    two: list[Container], base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the base is gone, each container that stands on its tree is named."""
    shutil.move(base, f"{base}.old")
    assert reconciling(lambda reconciler: reconciler.reconcile()) == 0
    assert [entry.getMessage().split(":")[0] for entry in caplog.records] == ["web1", "web2"]
    assert len(two) == 2


class Api(BaseHTTPRequestHandler):
    """The two questions about profiles, answered as the daemons do."""

    def do_GET(self) -> None:
        """Answer."""
        raw = "lxc.hook.pre-start = /x/hooks/pre-start --base base"
        answer = (
            '{"metadata":[{"name":"default","config":{"features.profiles":"true"}}]}'
            if self.path.startswith("/1.0/projects")
            else f'{{"metadata":[{{"name":"overlay","config":{{"raw.lxc":"{raw}"}}}}]}}'
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        """A unix socket's peer has none."""
        return "-"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (LifecycleEvent(Change.RENAMED, "default", "base2", old_name="base"), "renamed to base2"),
        (LifecycleEvent(Change.DELETED, "default", "base"), "deleted"),
    ],
)
def test_profiles_that_still_say_the_old_name(
    two: list[Container], caplog: pytest.LogCaptureFixture, event: LifecycleEvent, said: str
) -> None:
    """After the base was renamed or deleted, the log names the profiles that still name it."""
    where = Daemon("lxd", two[0].daemon)
    os.unlink(f"{two[0].daemon}/containers/base")
    with UnixStreamServer(where.socket, Api) as api:
        threading.Thread(target=api.serve_forever, args=(0.01,), daemon=True).start()

        async def scenario(reconciler: Reconciler) -> None:
            reconciler.heard(where, event)
            await eventually(lambda: "overlay" in caplog.text)

        reconciling(scenario)
        api.shutdown()
    assert f"base: {said}; " in caplog.text


def test_base_that_goes_while_it_is_pending(
    two: list[Container], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its containers are seen to once, and not again every two seconds."""
    seen_to: list[Base] = []
    monkeypatch.setattr(upkeep.Upkeep, "want", lambda _, wanted: seen_to.append(wanted))

    async def scenario(reconciler: Reconciler) -> None:
        with running(of(two[0])):
            await reconciler.reconcile()
        assert seen_to == []
        shutil.move(base, f"{base}.old")
        for _ in range(3):
            await reconciler.tick()
            await eventually(lambda: not reconciler._working)
        assert seen_to == [of(two[0])]

    reconciling(scenario)


# -- orphans


def orphan(container: Container) -> None:
    """Kill monitor and init, as nobody announces."""
    container.kill_init()
    container.kill_monitor()


def test_orphan_is_taken_down(two: list[Container]) -> None:
    """A tick takes down the overlay whose monitor and init are gone, and no other."""
    orphan(two[0])

    async def scenario(reconciler: Reconciler) -> None:
        assert await reconciler.tick() == 2

    reconciling(scenario)
    assert not os.path.exists(two[0].directory)
    assert kernel.is_mount_root(two[1].merged)


def test_init_that_outlives_its_monitor(two: list[Container]) -> None:
    """As long as the container's init lives, its overlay stays."""
    two[0].kill_monitor()
    assert reconciling(lambda reconciler: reconciler.reconcile()) == 0
    assert kernel.is_mount_root(two[0].merged)
    two[0].kill_init()
    assert reconciling(lambda reconciler: reconciler.reconcile()) == 0
    assert not os.path.exists(two[0].directory)


def test_orphan_in_use(two: list[Container], caplog: pytest.LogCaptureFixture) -> None:
    """An orphan that a process of the host holds is named once, and taken down when it is free."""

    async def scenario(reconciler: Reconciler) -> None:
        with open(f"{two[0].merged}/etc/hostname"):  # noqa: ASYNC230 - to hold it is the point
            await reconciler.tick()
            await reconciler.tick()
            assert kernel.is_mount_root(two[0].merged)
        await reconciler.tick()

    orphan(two[0])
    reconciling(scenario)
    assert not os.path.exists(two[0].directory)
    said = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert [text.split(":")[0] for text in said] == ["web1"]


# -- records


def test_records_are_read_once(two: list[Container], monkeypatch: pytest.MonkeyPatch) -> None:
    """A record is read again when its state file was replaced, not when it was refreshed."""
    reads: list[str] = []

    def counted(directory: str) -> record.Record:
        reads.append(directory)
        return read(directory)

    read = record.read
    monkeypatch.setattr(record, "read", counted)
    records = Records([two[0].daemon])
    assert {found.name for found in records.scan()} == {"web1", "web2"}
    assert refreshing.refresh_records(records.scan()) == []
    records.scan()
    assert len(reads) == 2
    changed = record_of(two[0])
    reads.clear()
    changed.init = 4711
    changed.write()
    assert {found.init for found in records.scan()} == {4711, record_of(two[1]).init}
    assert reads[0] == two[0].directory


def test_glance(two: list[Container], monkeypatch: pytest.MonkeyPatch) -> None:
    """A glance sees who started and who stopped, and costs nothing where nobody did."""
    records = Records()
    assert [found.name for found in records.scan()] == ["web1", "web2"]
    two[1].stop()
    assert [found.name for found in records.glance()] == ["web1"]
    two[1].start()
    assert [found.name for found in records.glance()] == ["web1", "web2"]
    monkeypatch.setattr(live, "_TICK", 0)
    records.scan()
    monkeypatch.delattr(registry, "directories")
    assert [found.name for found in records.glance()] == ["web1", "web2"]


def test_glance_at_nothing() -> None:
    """Before the first overlay of this boot there is nothing to see."""
    assert Records().glance() == []


def test_records_of_other_daemons(two: list[Container]) -> None:
    """With daemons named, what belongs to others is left alone."""
    assert Records(["/elsewhere"]).scan() == []
    assert len(Records([two[0].daemon]).scan()) == 2


# -- the process


@contextmanager
def watching(directory: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the watcher as a process of its own."""
    code = (
        "import sys; from pycor_hooks import logs, watcher;"
        "logs.set_up(debug=True); sys.exit(watcher.watch(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, directory],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def systemd(directory: Path) -> Iterator[tuple[str, Callable[[str], str]]]:
    """What systemd does: a path to notify, and a way to wait for a message."""
    path = f"{directory}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(10)

        def wait(wanted: str) -> str:
            while wanted not in (said := listening.recv(1000).decode()):
                pass
            return said

        yield path, wait


def test_process(two: list[Container], base: str, daemon: Path) -> None:
    """Ready with no daemon there, it follows one that starts, refreshes on its word, and ends."""
    fake = FakeDaemon(str(daemon))
    with (
        systemd(daemon) as (path, wait),
        watching(str(daemon), NOTIFY_SOCKET=path, WATCHDOG_USEC="200000") as process,
    ):
        wait("READY=1")
        wait("STATUS=2 overlays")
        wait("WATCHDOG=1")
        with fake:
            until(lambda: fake.followers, what="it follows the daemon")
            with running(of(two[0])):  # so that nothing is looked at yet
                sees = upgrade(base, two[0])
            fake.say("not an event")
            fake.announce("instance-shutdown")
            until(sees, what="web1 sees the change", timeout_s=1)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            assert time.monotonic() - began < 1
        wait("STOPPING=1")


def test_process_reconnects_and_catches_up(two: list[Container], base: str, daemon: Path) -> None:
    """What happened while the connection was lost is made good within 5 s of its return."""
    with systemd(daemon) as (path, wait), watching(str(daemon), NOTIFY_SOCKET=path):
        wait("READY=1")
        with FakeDaemon(str(daemon)) as fake:
            until(lambda: fake.followers, what="it follows the daemon")
        with running(of(two[0])):  # so that nothing is looked at yet
            sees = upgrade(base, two[0])
        with FakeDaemon(str(daemon)):
            until(sees, what="web1 sees the change", timeout_s=5)


def test_process_on_sighup(two: list[Container], base: str, daemon: Path) -> None:
    """SIGHUP looks at everything at once."""
    with systemd(daemon) as (path, wait), watching(str(daemon), NOTIFY_SOCKET=path) as process:
        wait("READY=1")
        with running(of(two[0])):  # so that nothing is looked at yet
            sees = upgrade(base, two[0])
        process.send_signal(signal.SIGHUP)
        until(sees, what="web1 sees the change", timeout_s=1)


def test_every_ten_minutes(
    two: list[Container], base: str, daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is looked at, whether or not anything was heard."""
    assert watcher.RECONCILE == 600
    monkeypatch.setattr(watcher, "RECONCILE", 0.1)
    monkeypatch.setattr(watcher, "TICK", 1000.0)

    async def run(path: str, wait: Callable[[str], str]) -> None:
        watching = watcher.Watcher([str(daemon)], {"NOTIFY_SOCKET": path})
        working = asyncio.create_task(watching.run())
        await asyncio.to_thread(wait, "READY=1")
        sees = upgrade(base, two[0])
        await asyncio.to_thread(until, sees, what="web1 sees the change")
        working.cancel()
        await working

    with systemd(daemon) as (path, wait):
        asyncio.run(run(path, wait))


def test_process_takes_down_an_orphan(two: list[Container], daemon: Path) -> None:
    """A killed container's overlay is gone within 5 s."""
    with systemd(daemon) as (path, wait), watching(str(daemon), NOTIFY_SOCKET=path):
        wait("READY=1")
        orphan(two[0])
        until(lambda: not os.path.exists(two[0].directory), what="it is gone", timeout_s=5)


def test_once(two: list[Container], base: str, daemon: Path) -> None:
    """`watch --once` looks at everything and tells by its exit code whether all went well."""
    sees = upgrade(base, two[0])
    assert watcher.once([str(daemon)], {}) == 0
    assert sees()
    kernel.umount(two[0].merged)
    assert watcher.once([str(daemon)], {}) == 1


def test_memory(daemon: Path) -> None:
    """The watcher's process stays below 35 MiB."""
    make_base(daemon, "unused")
    with systemd(daemon) as (path, wait), watching(str(daemon), NOTIFY_SOCKET=path) as process:
        wait("STATUS=")
        with open(f"/proc/{process.pid}/status") as file:
            (resident,) = [line.split()[1] for line in file if line.startswith("VmRSS:")]
    assert int(resident) < 35 * 1024
