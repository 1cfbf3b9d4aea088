# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: words, exit status, and how errors are told."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from pycor_hooks import (
    __version__,
    cli,
    converge,
    generations,
    ledger,
    patience,
    profile,
    record,
    recovery,
    refreshing,
    registry,
)
from pycor_hooks.commands.status import age, amount
from pycor_hooks.converge import Result as Converged
from pycor_hooks.errors import PycorError
from pycor_hooks.prefix import DEFAULT as DEFAULT_PREFIX
from pycor_hooks.sockets import Daemon
from pycor_hooks.staleness import Reason
from tests.unit.fake_api import FakeApi, instance
from tests.unit.test_status import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pycor_hooks.plan import Base
    from pycor_hooks.record import Record


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of our own instead of /run/pycor-hooks, and no daemons from the environment."""
    place = str(tmp_path / "run")
    monkeypatch.setattr(record, "RUN", place)
    monkeypatch.setattr(registry, "RUN", place)
    for name in ("LXD_DIR", "INCUS_DIR"):
        monkeypatch.delenv(name, raising=False)
    return place


def call(*words: str) -> Result:
    """Run pycor-hooks."""
    return CliRunner().invoke(cli.main, words)


def record_overlay(**changes: object) -> Record:
    """Record an overlay, which is not mounted and whose container is gone."""
    one = recorded(monitor=0, init=0, **changes)
    os.makedirs(one.directory)
    one.write()
    return one


def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the check for root pass: what follows needs none."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_version() -> None:
    """`--version` prints name and version."""
    assert call("--version").stdout == f"pycor-hooks {__version__}\n"


def test_help_names_all_commands() -> None:
    """`--help` lists each command, and each one's help has an example."""
    overview = call("--help")
    assert overview.exit_code == 0
    for name in cli.COMMANDS:
        assert f"\n  {name} " in overview.stdout
        help_text = call(name, "--help").stdout
        assert f"    pycor-hooks {name}" in help_text
        assert "\n  Example" in help_text


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["status", "--format", "xml"],
        ["doctor", "--format", "xml"],
        ["doctor", "web1", "web2"],
        ["doctor", "--prefix", "relative"],
        ["remount"],
        ["profile", "--base", "no such name"],
        ["profile", "--name", "default"],
        ["profile", "--prefix", "relative"],
        ["profile", "--print", "--prefix", "/with space"],
        ["uninstall", "--prefix", "relative"],
        ["status", "--daemon", "/nonexistent"],
        ["completion", "tcsh"],
        ["install", "--base"],
        ["diff", "web1", "--drop"],
        ["diff", "web1", "/etc", "--masking", "--drop", "--yes"],
    ],
)
def test_used_wrongly(words: list[str]) -> None:
    """Words that make no sense end with 2 and one line that says what would."""
    result = call(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("pycor-hooks: ")
    assert result.stderr.count("\n") == 1


def test_without_words() -> None:
    """Without a command the help is shown, as for one who uses it wrongly."""
    result = call()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


class Trouble(PycorError):
    """Something of ours."""

    template = "{path} is \x1b[31m in the way: move it"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Trouble(path="/x"), r"/x is \x1b[31m in the way: move it"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "No such file or directory: /x"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied: /x; run it as root"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ExceptionGroup("", [ExceptionGroup("", [Trouble(path="/y")])]), r"/y is \x1b[31m in"),
        (RuntimeError("odd\nthing"), "unforeseen RuntimeError: odd thing; --debug shows where"),
    ],
)
@pytest.mark.parametrize("words", [["status"], ["--debug", "status"], ["status", "--debug"]])
def test_errors(
    error: Exception, line: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error is one line on standard error; with --debug the traceback stands before it."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("pycor_hooks.status.look", fail)
    result = call(*words)
    assert result.exit_code == 1
    *before, last = result.stderr.splitlines()
    assert last.startswith(f"pycor-hooks: {line}")
    assert bool(before) == ("--debug" in words)
    if before:
        first = before[0].lstrip(" +").removeprefix("Exception Group ")
        assert first.startswith("Traceback")


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is told in one line."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pycor_hooks.status.look", interrupt)
    result = call("status")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip() == "pycor-hooks: interrupted"


@pytest.mark.parametrize(
    "words", [["install"], ["uninstall"], ["watch"], ["remount", "--all"], ["doctor"]]
)
def test_needs_root(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What only root can do says so before it does anything."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = call(*words)
    assert result.exit_code == 1
    assert f"run sudo pycor-hooks {words[0]}" in result.stderr


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ("status --format json", {"pylxd", "requests", "rich", "yaml", "asyncio"}),
        ("watch --help", {"pylxd", "requests", "rich", "yaml"}),
        ("remount --help", {"pylxd", "requests", "rich", "yaml", "asyncio"}),
    ],
)
def test_quick_start(command: str, unwanted: set[str], tmp_path: Path) -> None:
    """A command does not load what only others need."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from pycor_hooks import record, registry\n"
        "record.RUN = registry.RUN = '/nonexistent'\n"
        "from pycor_hooks.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()],
        env={"LXD_DIR": str(tmp_path), "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    assert not unwanted & set(done.stderr.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The script for each shell asks pycor-hooks for words."""
    result = call("completion", shell)
    assert result.exit_code == 0
    assert "_PYCOR_HOOKS_COMPLETE" in result.stdout


def complete(words: str, count: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash is offered for the last of these words."""
    monkeypatch.setenv("_PYCOR_HOOKS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"pycor-hooks {words}")
    monkeypatch.setenv("COMP_CWORD", str(count))
    return [line.partition(",")[2] for line in call().stdout.splitlines()]


def test_completed_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, options and live containers are completed."""
    record_overlay()
    record_overlay(name="web2", project="shop")
    assert complete("st", 1, monkeypatch) == ["status", "stale"]
    assert complete("status --fo", 2, monkeypatch) == ["--format"]
    assert complete("remount ", 2, monkeypatch) == ["shop/web2", "web1"]
    assert complete("remount sh", 2, monkeypatch) == ["shop/web2"]


def test_status_of_nothing() -> None:
    """Without overlays nothing is wrong, and there is nothing to show."""
    result = call("status")
    assert (result.exit_code, result.output) == (0, "")


def test_status(tmp_path: Path) -> None:
    """A row for each overlay; 1 where one is not mounted."""
    upper = tmp_path / "upper"
    upper.mkdir()
    record_overlay(upperdir=str(upper))
    result = call("status", "--format", "json")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)
    assert (row["name"], row["state"], row["upper_bytes"]) == ("web1", "missing", None)
    (row,) = json.loads(call("status", "--size", "--format", "json").stdout)
    assert row["upper_bytes"] == os.lstat(upper).st_blocks * 512
    heading, line = call("status").stdout.splitlines()
    assert heading.split()[:3] == ["NAME", "BASE", "BASE"]
    assert line.split()[:4] == ["web1", "base", "missing", "missing"]


def test_status_by_name() -> None:
    """Names choose rows, with the project where it is not the default; an unknown one is named."""
    record_overlay()
    record_overlay(name="web2", project="shop")
    rows = csv.DictReader(io.StringIO(call("status", "shop/web2", "--format", "csv").stdout))
    assert [row["name"] for row in rows] == ["web2"]
    result = call("status", "web1", "web2", "shop/web1")
    assert result.exit_code == 1
    assert "no live overlay of shop/web1, web2" in result.stderr


def test_status_by_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """--daemon, or LXD_DIR and INCUS_DIR, choose whose overlays are shown."""
    record_overlay()
    record_overlay(daemon="/srv/incus", name="web2")

    def names(*words: str) -> list[str]:
        return [row["name"] for row in json.loads(call("status", "--format=json", *words).stdout)]

    assert names() == ["web2", "web1"]
    assert "DAEMON" in call("status").stdout
    assert names("--daemon", "/srv/incus") == ["web2"]
    assert names("--daemon", "/srv/incus", "--daemon", "/var/lib/lxd/") == ["web2", "web1"]
    monkeypatch.setenv("LXD_DIR", "/var/lib/lxd")
    assert names() == ["web1"]


def test_size_that_cannot_be_had(tmp_path: Path) -> None:
    """An upper that cannot be measured is named; the other rows are shown all the same."""
    record_overlay(upperdir=str(tmp_path / "none"))
    result = call("status", "--size", "--format", "json")
    assert json.loads(result.stdout)[0]["upper_bytes"] is None
    assert f"web1: cannot measure {tmp_path}/none: No such file or directory" in result.stderr


def test_ages_and_amounts() -> None:
    """In the table times are ages and bytes have units."""
    now = 1_000_000.0
    times = ["1970-01-12T13:46:40Z", "1970-01-12T13:45:30Z", "1970-01-12T10:00:00Z"]
    assert [age(moment, now) for moment in times] == ["0s", "1m", "3h"]
    assert age("1970-01-01T00:00:00Z", now) == "11d"
    assert age(None, now) == "-"
    counts = [None, 0, 999, 1000, 12_345, 1_234_567, 5_000_000_000_000_000]
    assert [amount(n) for n in counts] == ["-", "0B", "999B", "1.0kB", "12kB", "1.2MB", "5000TB"]


def pretending(
    monkeypatch: pytest.MonkeyPatch,
    running: str,
    failing: str,
    **converged: Converged,
) -> list[str]:
    """Let one base run, and one overlay fail; the others are noted as refreshed.

    `converged` has the result of those that have a cure to tell of.
    """
    refreshed: list[str] = []
    whole = Converged(0, {}, [])

    def refresh(base: Base, records: Sequence[Record]) -> list[refreshing.Failure] | None:
        if base.name == running:
            return None
        refreshed.extend(one.name for one in records if one.name != failing)
        gone = OSError(22, "Invalid argument", "/merged")
        return [refreshing.Failure(one, gone) for one in records if one.name == failing]

    monkeypatch.setattr(refreshing, "refresh_while_stopped", refresh)
    monkeypatch.setattr(generations, "update", lambda _: ledger.Update(1, None))
    monkeypatch.setattr(converge, "converge", lambda one, *_: converged.get(one.name, whole))
    as_root(monkeypatch)
    for name, base in (("web1", "base"), ("web2", "base"), ("db1", "db"), ("db2", "db")):
        record_overlay(name=name, base_name=base)
    return refreshed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["web1"], ["web1"]),
        (["web1", "db2"], ["db2", "web1"]),
        (["--base", "base"], ["web1", "web2"]),
        (["--base", "base", "db1", "web1"], ["db1", "web1", "web2"]),
        (["--all"], ["db1", "db2", "web1", "web2"]),
    ],
)
def test_remount(words: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was named is refreshed, each once, and told."""
    refreshed = pretending(monkeypatch, running="", failing="")
    result = call("remount", *words, "--format", "json")
    assert result.exit_code == 0
    assert sorted(refreshed) == expected
    rows = json.loads(result.stdout)
    assert sorted(row["name"] for row in rows) == expected
    assert {row["result"] for row in rows} == {"refreshed"}


def test_remount_while_base_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its base runs an overlay is left alone: pending, with the reason, and status 1."""
    refreshed = pretending(monkeypatch, running="db", failing="")
    result = call("remount", "--all", "--format", "json")
    assert result.exit_code == 1
    assert sorted(refreshed) == ["web1", "web2"]
    pending = [row for row in json.loads(result.stdout) if row["result"] == "pending"]
    assert {row["name"] for row in pending} == {"db1", "db2"}
    assert "base db runs" in pending[0]["reason"]


def test_remount_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """One overlay that cannot be refreshed is told, the others are refreshed all the same."""
    refreshed = pretending(monkeypatch, running="", failing="web1")
    result = call("remount", "--all")
    assert result.exit_code == 1
    assert sorted(refreshed) == ["db1", "db2", "web2"]
    assert "Invalid argument" in result.stdout


def test_remount_leaves_something_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that sees something of the old base still is told, with the way out."""
    left = Converged(3, {"etc/hosts": Reason.MOUNTED, "srv": Reason.DIRECTORY}, [0.1])
    pretending(monkeypatch, running="", failing="", web1=left, web2=Converged(9, {}, [0.1]))
    result = call("remount", "--base", "base", "--format", "json")
    assert result.exit_code == 1
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert (rows["web1"]["result"], rows["web2"]["result"]) == ("stale", "refreshed")
    assert "2 paths stay stale (1 mounted, 1 directory)" in rows["web1"]["reason"]
    assert "pycor-hooks remount web1" in rows["web1"]["reason"]


def test_remount_of_what_cannot_be_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An overlay whose record cannot be made anew is not refreshed, and that is told."""
    pretending(monkeypatch, running="", failing="")
    found = [recovery.Finding("lost", "its record is lost", failed=True)]
    monkeypatch.setattr(recovery, "recover", lambda _: found)
    result = call("remount", "--all")
    assert result.exit_code == 1
    assert result.stderr == "pycor-hooks: lost: its record is lost\n"


def test_remount_goes_on_where_one_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that keeps its converge waiting is told, and holds up no other."""
    pretending(monkeypatch, running="", failing="")
    ended = threading.Event()

    def slow(one: Record, *_: object) -> Converged:
        if one.name == "web1":
            ended.wait(30)
        return Converged(0, {}, [])

    monkeypatch.setattr(converge, "converge", slow)
    monkeypatch.setattr(patience, "LONGEST", 0.2)
    result = call("remount", "--all", "--format", "json")
    ended.set()
    assert result.exit_code == 1
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert [name for name in rows if rows[name]["result"] == "failed"] == ["web1"]
    assert "does not answer; restart container web1" in rows["web1"]["reason"]


def test_remount_without_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the manifest cannot be kept, that is told: what is stale is not known then."""
    pretending(monkeypatch, running="", failing="")

    def update(_: Base) -> None:
        raise OSError(30, "Read-only file system", "/var/lib/pycor-hooks")

    monkeypatch.setattr(generations, "update", update)
    result = call("remount", "web1", "--format", "json")
    assert result.exit_code == 1
    assert "Read-only file system" in json.loads(result.stdout)[0]["reason"]


def test_remount_of_a_daemon_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped state directory is used wrongly, and not a daemon without overlays."""
    as_root(monkeypatch)
    for words in (["remount", "--all"], ["watch", "--once"]):
        result = call(*words, "--daemon", "/nonexistent")
        assert result.exit_code == 2
        assert "there is no /nonexistent: correct --daemon" in result.stderr


def test_remount_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container or a base that has no overlay is named, and nothing is refreshed."""
    refreshed = pretending(monkeypatch, running="", failing="")
    assert "no live overlay of nope" in call("remount", "web1", "nope").stderr
    result = call("remount", "--base", "shop/base")
    assert result.exit_code == 1
    assert "shop/base" in result.stderr
    assert refreshed == []


def test_base_on_which_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A base that is there has nothing to be done for; one that is not is a mistake."""
    as_root(monkeypatch)
    (tmp_path / "containers/debian/rootfs").mkdir(parents=True)
    for command in ("remount", "restart", "stale"):
        for name, status in (("debian", 0), ("debain", 1)):
            result = call(command, "--base", name, "--daemon", str(tmp_path))
            assert result.exit_code == status
            assert result.stderr.startswith(
                f"pycor-hooks: there is no container {name} in " * status
            )


def test_watch_once_without_overlays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`watch --once` looks at everything and ends."""
    as_root(monkeypatch)
    assert call("watch", "--once", "--daemon", str(tmp_path)).exit_code == 0


def test_print_profile() -> None:
    """`profile --print` writes the profile of any base, and needs no daemon."""
    result = call("profile", "--print", "--base", "shop/web", "--daemon", "/nonexistent")
    assert result.exit_code == 0
    assert result.stdout == profile.text(prefix=DEFAULT_PREFIX, base="shop/web")


def test_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`profile` makes it in each daemon that has the base, or says that it is there."""
    monkeypatch.setattr("pycor_hooks.prefix.check", lambda path, **_: path)
    lxd, incus = FakeApi(str(tmp_path / "l")), FakeApi(str(tmp_path / "incus"), "incus")
    with lxd, incus:
        lxd.default.instances["web"] = instance()
        words = ["profile", "--prefix", str(tmp_path), "--daemon", str(tmp_path / "l")]
        result = call(*words, "--base", "web")
        assert result.exit_code == 1
        assert f"no hooks at {tmp_path}, " in result.stderr
        assert "run pycor-hooks install first" in result.stderr
        assert list(lxd.default.profiles) == ["default"]
        (tmp_path / "hooks").mkdir()
        words += ["--base", "web"]
        result = call(*words, "--daemon", str(tmp_path / "incus"))
        assert result.exit_code == 0
        assert "overlay-web" in lxd.default.profiles
        assert list(incus.default.profiles) == ["default"]
        assert call(*words).stdout.endswith("profile and image overlay-web are unchanged\n")
        result = call(*words, "--base", "nope")
        assert result.exit_code == 1
        assert "no instance default/nope" in result.stderr


def test_profile_where_one_daemon_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is skipped, with a note, unless it was named; the others are served."""
    monkeypatch.setattr("pycor_hooks.prefix.check", lambda path, **_: path)
    (tmp_path / "hooks").mkdir()
    down = Daemon("lxd", str(tmp_path / "down"))
    with FakeApi(str(tmp_path / "incus"), "incus") as incus:
        incus.default.instances["base"] = instance()
        found = [down, incus.daemon]
        monkeypatch.setattr("pycor_hooks.commands.options.find_daemons", lambda _: found)
        words = ["profile", "--prefix", str(tmp_path)]
        named = call(*words, "--daemon", down.directory)
        assert (named.exit_code, list(incus.default.profiles)) == (1, ["default"])
        result = call(*words)
        assert (result.exit_code, "overlay" in incus.default.profiles) == (0, True)
        assert f"note: skipped: lxd at {down.directory} does not answer" in result.stderr
    assert call(*words).exit_code == 1


def test_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host without LXD and Incus that is said."""
    monkeypatch.setattr("pycor_hooks.commands.options.find_daemons", lambda _: [])
    result = call("profile")
    assert result.exit_code == 1
    assert "no LXD or Incus found" in result.stderr


def test_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`install` does all of it, goes on where one daemon refuses, and then tells that."""
    monkeypatch.setattr("pycor_hooks.systemd.is_running", lambda: False)
    as_root(monkeypatch)
    monkeypatch.setattr("pycor_hooks.prefix.check", lambda path, **_: path)
    prefix = str(tmp_path / "prefix")
    lxd, incus = FakeApi(str(tmp_path / "l")), FakeApi(str(tmp_path / "incus"), "incus")
    with lxd, incus:
        lxd.default.config["restricted"] = "true"
        incus.default.instances["base"] = instance()
        words = ["install", "--prefix", prefix, "--daemon", str(tmp_path / "l")]
        words += ["--daemon", str(tmp_path / "incus")]
        result = call(*words)
        assert result.exit_code == 1
        assert "project default is restricted" in result.stderr
        assert "overlay" in incus.default.profiles
        assert os.path.exists(f"{prefix}/hooks/pre-start")
        del lxd.default.config["restricted"]
        result = call(*words)
        assert result.exit_code == 0
        assert "base base does not exist yet" in result.stderr
        result = call(*words)
        assert result.stdout == "everything is installed already; nothing changed\n"


def test_install_without_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a daemon the hooks are installed, and it is said what to do next."""
    as_root(monkeypatch)
    monkeypatch.setattr("pycor_hooks.prefix.check", lambda path, **_: path)
    monkeypatch.setattr("pycor_hooks.commands.install.find_daemons", lambda _: [])
    result = call("install", "--no-systemd", "--prefix", str(tmp_path / "prefix"))
    assert result.exit_code == 0
    assert "run pycor-hooks install again" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_by_a_signal(number: signal.Signals) -> None:
    """What is being done is unwound, whatever comes meanwhile, with the status of a shell."""
    unwound = []

    @cli.ended_in_order()
    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            unwound.append(True)

    with pytest.raises(SystemExit) as ended:
        work()
    assert (ended.value.code, unwound) == (128 + number, [True])
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_ignored() -> None:
    """As nohup(1) has it, a command goes on when its terminal hangs up."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli.ended_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN
