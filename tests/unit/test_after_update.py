# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container has chosen to happen after an update, as its daemon tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lab.wait import until
from pycor_hooks import afterupdate, record
from pycor_hooks.afterupdate import KEY, Choices, Policy, Restarts
from pycor_hooks.plan import base_of
from tests.unit.test_api import answering
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pycor_hooks.record import Record

PATH = "/1.0/instances/web1?project=default"


def instance(**config: str) -> str:
    """A daemon's answer about an instance."""
    return json.dumps({"metadata": {"expanded_config": config}})


@contextlib.contextmanager
def daemon(answers: dict[str, str | None]) -> Iterator[Record]:
    """A running daemon that gives these answers; a record of a container of it."""
    with answering(answers) as found, socket.socket(socket.AF_UNIX) as guests:
        os.mkdir(f"{found.directory}/devlxd")
        guests.bind(f"{found.directory}/devlxd/sock")
        guests.listen()
        yield recorded(daemon=found.directory)


def ask(found: Record, choices: Choices | None = None) -> Policy:
    """What a container has chosen."""
    return asyncio.run((choices or Choices()).of(found))


@pytest.mark.parametrize("policy", Policy)
def test_values(policy: Policy) -> None:
    """Each of the values is obeyed."""
    with daemon({PATH: instance(**{KEY: policy.value})}) as found:
        assert ask(found) is policy


def test_default(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing is chosen it is the cure."""
    with daemon({PATH: instance(other="report")}) as found:
        assert ask(found) is Policy.CURE
    assert caplog.messages == []


def test_project() -> None:
    """It is asked in the container's project, whatever that is called."""
    path = "/1.0/instances/web1?project=a%20b%2Fc"
    with daemon({path: instance(**{KEY: "report"})}) as found:
        found.project = "a b/c"
        assert ask(found) is Policy.REPORT


def test_wrong_value(caplog: pytest.LogCaptureFixture) -> None:
    """A value that is none is said, once and harmlessly, and taken as the default."""
    answers: dict[str, str | None] = {PATH: instance(**{KEY: "restrat\n\x1b[2J"})}
    choices = Choices()
    with daemon(answers) as found:
        assert ask(found, choices) is Policy.CURE
        assert ask(found, choices) is Policy.CURE
        said = f"web1: {KEY} is restrat\\n\\x1b[2J, which is none of cure, restart and report"
        assert [text.partition(":")[2] for text in caplog.messages] == [
            f"{said}: taken as cure".partition(":")[2]
        ]
        fields: Any = caplog.records[0].__dict__["journal_fields"]
        assert ("INSTANCE", "web1") in fields
        answers[PATH] = instance(**{KEY: "Report"})
        assert ask(found, choices) is Policy.CURE
    assert "is Report, which is none" in caplog.messages[-1]
    assert len(caplog.messages) == 2


def test_a_daemon_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it said last counts, and the next container is not made to wait for it.

    Where it said nothing yet, it is asked again.
    """
    monkeypatch.setattr(afterupdate, "ASK", 0.2)
    answers: dict[str, str | None] = {PATH: instance(**{KEY: "report"})}
    choices = Choices()
    with daemon(answers) as found:
        assert ask(found, choices) is Policy.REPORT
        os.rename(f"{found.daemon}/devlxd/sock", f"{found.daemon}/devlxd/away")
        assert ask(found, choices) is Policy.REPORT
        os.rename(f"{found.daemon}/devlxd/away", f"{found.daemon}/devlxd/sock")
        answers[PATH] = instance(**{KEY: "restart"})
        assert ask(found, choices) is Policy.REPORT
        choices.begin([found])
        assert ask(found, choices) is Policy.RESTART
        assert not choices.is_unasked(found)
        choices.begin([])
        os.rename(f"{found.daemon}/devlxd/sock", f"{found.daemon}/devlxd/away")
        other = recorded(daemon=found.daemon, name="web2")
        for one in (found, other):
            assert ask(one, choices) is Policy.CURE
            assert choices.is_unasked(one)
        choices.begin([found])
        assert not choices.is_unasked(other)
        os.rename(f"{found.daemon}/devlxd/away", f"{found.daemon}/devlxd/sock")
        assert ask(found, choices) is Policy.RESTART
        assert not choices.is_unasked(found)
        choices.begin([])
        answers[PATH] = None
        with caplog.at_level(logging.INFO):
            assert ask(found, choices) is Policy.CURE
        assert caplog.messages[-1].endswith("cannot be asked: no answer within 0.2 s")


@pytest.mark.parametrize("answer", ["", "[]", '{"metadata": []}', '{"metadata": {}}'])
def test_nonsense(answer: str) -> None:
    """An answer of another shape is none."""
    with daemon({PATH: answer}) as found:
        assert ask(found) is Policy.CURE


def test_a_daemon_that_does_not_run() -> None:
    """It is not started by the question: its socket is not touched."""
    with socket.socket(socket.AF_UNIX) as api, daemon({}) as found:
        os.unlink(f"{found.daemon}/devlxd/sock")
        os.rename(f"{found.daemon}/unix.socket", f"{found.daemon}/old")
        api.bind(f"{found.daemon}/unix.socket")
        api.listen()
        api.setblocking(False)
        assert ask(found) is Policy.CURE
        with pytest.raises(BlockingIOError):
            api.accept()


def test_once_for_each_start_and_generation() -> None:
    """What a restart has not cured, the next one would not either."""
    choices, found = Choices(), recorded()
    asked = [choices.is_first(found, generation) for generation in (1, 1, 2, 2)]
    assert asked == [True, False, True, False]
    found.monitor_start += 1
    assert choices.is_first(found, 2)


def restarted(*records: Record) -> int:
    """Have containers restarted; how often there was trouble."""

    async def run() -> int:
        async with asyncio.TaskGroup() as group:
            restarts = Restarts(group)
            for found in records:
                await restarts.want(found, again=False)
            for found in records:
                restarts.begin(base_of(found))
            return await restarts.done()

    return asyncio.run(run())


def test_a_container_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process that restarts it has nothing to do, and nothing to say."""
    monkeypatch.setattr(record, "RUN", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert restarted(recorded()) == 0
    assert [text for text in caplog.messages if "restart" in text] == []


@pytest.mark.parametrize("program", ["/bin/false", "/nonexistent"])
def test_a_process_that_fails(
    program: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and no more happens."""
    monkeypatch.setattr(sys, "executable", program)
    assert restarted(recorded()) == 1
    _, _, cause = caplog.messages[-1].partition("base: units cannot be restarted: ")
    assert program in cause


def test_what_the_process_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each line is logged by its weight, with what it is about."""
    found = recorded()
    told = {
        "directory": found.directory,
        "done": ["web1: restarted \x1bnginx.service"],
        "left": ["web1: needs\na restart"],
        "trouble": "it \x1b broke",
        "later": False,
    }
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(told)}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with caplog.at_level(logging.INFO, logger=afterupdate.__name__):
        assert restarted(found) == 1
    rows = [row for row in caplog.records if row.name == afterupdate.__name__]
    assert [(row.levelno, row.getMessage()) for row in rows] == [
        (logging.INFO, "web1: restarted \\x1bnginx.service"),
        (logging.WARNING, "web1: needs\\na restart"),
        (logging.ERROR, "web1: it \\x1b broke"),
    ]
    assert all(("INSTANCE", "web1") in row.__dict__["journal_fields"] for row in rows)


def test_what_waits_for_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container whose base has begun to run is no trouble, and wanted still."""
    monkeypatch.setattr(record, "RUN", str(tmp_path / "run"))
    web = written("web1")
    told = {"directory": web.directory, "done": [], "left": [], "trouble": "base base runs"}
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(told | {'later': True})}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert restarted(web) == 0
    assert [row for row in caplog.records if row.levelno > logging.INFO] == []
    assert record.read(web.directory).restart


def test_another_update_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wanted of a container that a roll-out is done with is done when that has ended."""
    monkeypatch.setattr(record, "RUN", str(tmp_path / "run"))
    web = written("web1")
    told = {"directory": web.directory, "done": [], "left": [], "trouble": "", "later": False}
    program = tmp_path / "program"
    runs, go = tmp_path / "runs", tmp_path / "go"
    program.write_text(
        f"#!/bin/sh\necho run >>{runs}; echo '{json.dumps(told)}'\n"
        f"until [ -e {go} ]; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    def restart() -> bool:
        return record.read(web.directory).restart

    async def run() -> int:
        async with asyncio.TaskGroup() as group:
            restarts = Restarts(group)
            await restarts.want(web, again=False)
            restarts.begin(base_of(web))
            await asyncio.to_thread(until, lambda: runs.exists() and not restart(), what="done")
            await restarts.want(web, again=False)
            assert not restart()
            await restarts.want(web, again=True)
            restarts.begin(base_of(web))
            assert restart()
            go.touch()
            return await restarts.done()

    assert asyncio.run(run()) == 0
    assert runs.read_text() == "run\nrun\n"
    assert not restart()


def written(name: str, **changes: Any) -> Record:
    """A record in its file."""
    found = recorded(name=name, **changes)
    os.makedirs(found.directory)
    found.write()
    os.utime(found.state_path, (1000, 1000))
    return record.read(found.directory)


def test_trouble_on_one_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The roll-out of another base does not stop for it."""
    monkeypatch.setattr(record, "RUN", str(tmp_path / "run"))
    webs = [written("web1", base_name="a"), written("web2", base_name="b")]
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\ncase "$*" in *web1*) exit 1; esac; echo "$*" >"$0.did"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert restarted(*webs) == 1
    assert webs[1].directory in (tmp_path / "program.did").read_text()
    assert len(caplog.messages) == 1


def test_a_watcher_that_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not come to stands in the records, for the next one; and no more once done."""
    monkeypatch.setattr(record, "RUN", str(tmp_path / "run"))
    web = written("web1")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun; exec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    async def ended() -> None:
        task = asyncio.create_task(begun())
        await asyncio.to_thread(until, (tmp_path / "begun").exists, what="it has begun")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def begun() -> None:
        async with asyncio.TaskGroup() as group:
            restarts = Restarts(group)
            await restarts.want(web, again=False)
            restarts.begin(base_of(web))

    asyncio.run(ended())
    again = record.read(web.directory)
    assert (again.restart, again.refreshed_at) == (True, 1000)
    program.write_text("#!/bin/sh\n")
    assert restarted(again) == 0
    assert not record.read(web.directory).restart
