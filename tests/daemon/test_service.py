# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher's unit as shipped, under a real systemd, following the private daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from lab.leaks import Watch
from lab.machine import Machine
from lab.overlays import COMMAND
from lab.wait import until
from pycor_hooks import share
from pycor_hooks.systemd import UNIT
from tests.daemon.test_update import SEEN_AFTER_S
from tests.daemon.test_watcher import RECONNECTED_AFTER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.overlays import Overlays

pytestmark = pytest.mark.host_s_mounts

EXPOSURE = 4.5
"""What `systemd-analyze security` of Debian 12 says: 0.0 is safe, 10.0 is unsafe."""
DROP_IN = f"/run/systemd/system/{UNIT}.d"


@pytest.fixture(scope="module")
def machine(installed: Overlays, debian_installed: Overlays) -> Iterator[Machine]:
    """A host with systemd, on which the unit was installed as ``pycor-hooks install`` does it."""
    daemon = installed.daemon
    watch = Watch(daemon, installed.base.rootfs)
    with Machine(debian_installed) as booted:
        assert installs(booted, daemon.directory)[-1] == f"{UNIT} started"
        yield booted
        booted.python("from pycor_hooks import systemd; list(systemd.remove())")
        assert booted.show(UNIT, "LoadState") == {"LoadState": "not-found"}
    until(lambda: not watch.passing(), what="nothing is left of the machine", timeout_s=5)
    watch.close()


def installs(machine: Machine, daemon: str, code: str = "0") -> list[str]:
    """What an installation of the unit does; ``code``: when the watcher's was written."""
    said = machine.python(
        "import time; from pycor_hooks import systemd;"
        f"text = systemd.unit_text({COMMAND!r}, [{daemon!r}]);"
        f"print(*systemd.ensure(text, {code}), sep='\\n')"
    )
    return said.splitlines()


def pid(machine: Machine) -> int:
    """The watcher's process, as the machine numbers it; 0 while there is none."""
    return int(machine.show(UNIT, "MainPID")["MainPID"])


def follows(machine: Machine) -> bool:
    """Whether this process of the watcher has connected to the daemon."""
    entries = machine.journal(f"_SYSTEMD_UNIT={UNIT}", f"_PID={pid(machine)}")
    return any("following its events" in entry["MESSAGE"] for entry in entries)


def wait_following(machine: Machine) -> None:
    """Wait until the watcher runs, and follows the daemon."""
    until(lambda: follows(machine), what="it follows", timeout_s=RECONNECTED_AFTER_S)


def test_ready(machine: Machine) -> None:
    """Starting it takes until it is ready; it says what it cares for, and is clean to systemd."""
    shown = machine.show(UNIT, "ActiveState", "Type", "StatusText", "NRestarts")
    assert (shown["ActiveState"], shown["Type"], shown["NRestarts"]) == ("active", "notify", "0")
    assert re.fullmatch(r"\d+ overlays live, 1 daemons", shown["StatusText"])
    verified = machine.run("systemd-analyze", "verify", "--man=no", UNIT)
    assert verified.stdout + verified.stderr == ""
    wait_following(machine)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["mnt", "net", "pid", "ipc", "user", "cgroup"])
def test_namespaces(machine: Machine, kind: str) -> None:
    """It is in the host's own: in others it would see no container, or unmount nothing."""
    links = [os.readlink(machine.path(f"/proc/{each}/ns/{kind}")) for each in (1, pid(machine))]
    assert links[0] == links[1]


@pytest.mark.once
def test_exposure(machine: Machine, record_property: Callable[[str, object], None]) -> None:
    """The exposure is what it was, and the unit names each directive that is left open."""
    printed = machine.run("systemd-analyze", "security", "--no-pager", UNIT).stdout
    (score,) = re.findall(r"Overall exposure level for .*: (\S+) ", printed)
    record_property("exposure", score)
    assert float(score) <= EXPOSURE
    rows: list[dict[str, Any]] = json.loads(
        machine.run("systemd-analyze", "security", "--json=short", UNIT).stdout
    )
    reasons = "".join(re.findall("^#.*\n", share.text_of(f"systemd/{UNIT}"), re.MULTILINE))
    open_ = {row["name"] for row in rows if row["exposure"]}
    assert {name for name in open_ if not any(word in reasons for word in words(name))} == set()


def words(directive: str) -> list[str]:
    """By what the unit may speak of a directive in the table of systemd-analyze."""
    name, _, value = directive.partition("=~")
    if value.startswith("CAP_("):
        return [f"CAP_{each.rstrip('*')}" for each in value[5:-1].split("|")]
    return [value] if value else [f"{each.rstrip('=')}=" for each in name.split("/")]


def test_both_id_regimes(installed: Overlays, machine: Machine) -> None:
    """Confined so it refreshes and takes down overlays with mapped ids, and those without."""
    base = installed.base
    owner = os.stat(base.rootfs).st_uid or 100000
    mapped = tuple(f"{kind} 0 {owner} 65536" for kind in "ug")
    roots = {
        name: machine.start_inmate(name, *ids) for name, ids in (("in1", ()), ("in2", mapped))
    }
    base.start()
    assert not any(os.path.exists(f"{root}/etc/fresh") for root in roots.values())
    base.exec("touch", "/etc/fresh")
    base.stop()
    until(
        lambda: all(os.path.exists(f"{root}/etc/fresh") for root in roots.values()),
        what="both are refreshed",
        timeout_s=SEEN_AFTER_S,
    )
    os.unlink(f"{base.rootfs}/etc/fresh")

    machine.run("systemctl", "kill", "--signal=KILL", "in2")
    until(lambda: not os.path.exists(roots["in2"]), what="in2 is taken down", timeout_s=5)
    assert os.path.exists(roots["in1"])
    machine.run("systemctl", "stop", "in1")
    assert not os.path.exists(roots["in1"])

    refreshed, *_, down = machine.journal("BASE=base", "INSTANCE=in2")
    assert re.match("base: stopped; 2 overlays refreshed in ", refreshed["MESSAGE"])
    assert refreshed["INSTANCE"] == ["in1", "in2"]
    assert down["MESSAGE"] == "in2: its monitor is gone; overlay taken down"
    assert (down["INSTANCE"], down["BASE"]) == ("in2", "base")
    assert (down["DAEMON"], down["PRIORITY"]) == (installed.daemon.directory, "6")


@pytest.mark.once
def test_reload(machine: Machine) -> None:
    """Reloading it makes it look at everything, and is no restart."""
    wait_following(machine)
    before = pid(machine)
    machine.run("systemctl", "reload", UNIT)
    assert machine.show(UNIT, "ActiveState", "MainPID") == {
        "ActiveState": "active",
        "MainPID": str(before),
    }


@pytest.fixture
def impatient(machine: Machine) -> Iterator[None]:
    """A watchdog that waits for 2 s; as shipped it waits for 30."""
    os.mkdir(machine.path(DROP_IN))
    with open(machine.path(f"{DROP_IN}/soon.conf"), "w") as file:
        file.write("[Service]\nWatchdogSec=2s\n")
    machine.run("systemctl", "daemon-reload")
    yield
    shutil.rmtree(machine.path(DROP_IN))
    machine.run("systemctl", "daemon-reload")


@pytest.mark.once
def test_newer_code(machine: Machine, installed: Overlays) -> None:
    """An installation restarts a watcher that began before its code was written, and no other."""
    before, daemon = pid(machine), installed.daemon.directory
    assert installs(machine, daemon, "time.time() - 3600") == [""]
    assert pid(machine) == before
    assert installs(machine, daemon, "time.time()") == [f"{UNIT} started"]
    assert pid(machine) not in {0, before}


@pytest.mark.once
@pytest.mark.parametrize(
    ("number", "result"), [(signal.SIGSTOP, "watchdog"), (signal.SIGKILL, "signal")]
)
@pytest.mark.usefixtures("impatient")
def test_restarted(machine: Machine, number: signal.Signals, result: str) -> None:
    """When it hangs, or is killed, systemd starts it again, and it follows the daemon again."""
    machine.run("systemctl", "restart", UNIT)
    before = pid(machine)
    wait_following(machine)
    machine.run("systemctl", "kill", f"--signal={number.name}", "--kill-whom=main", UNIT)
    until(lambda: pid(machine) not in {0, before}, what="another one runs", timeout_s=10)
    wait_following(machine)
    assert machine.show(UNIT, "NRestarts") == {"NRestarts": "1"}
    assert len(machine.journal(f"UNIT={UNIT}", f"UNIT_RESULT={result}")) == 1
    said = [
        entry["MESSAGE"] for entry in machine.journal(f"_SYSTEMD_UNIT={UNIT}", f"_PID={before}")
    ]
    assert ("Fatal Python error: Aborted" in said) == (result == "watchdog")


def test_stopped(machine: Machine) -> None:
    """It stops within a second, well."""
    machine.run("systemctl", "restart", UNIT)
    wait_following(machine)
    machine.run("systemctl", "stop", UNIT)
    times = ("ActiveExitTimestampMonotonic", "InactiveEnterTimestampMonotonic")
    shown = machine.show(UNIT, "Result", "ExecMainStatus", *times)
    assert (shown["Result"], shown["ExecMainStatus"]) == ("success", "0")
    began, ended = (int(shown[name]) for name in times)
    assert ended - began < 1_000_000
