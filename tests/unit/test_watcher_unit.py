# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher's systemd unit."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UNIT = f"{REPOSITORY}/systemd/pycor-hooks-watch.service"

# What gives a service a mount namespace of its own, or one without the host's abstract sockets:
# exec_needs_mount_namespace() of systemd, and systemd.exec(5).
ISOLATING = (
    *("Bind", "DynamicUser", "ExecPaths", "Extension", "Inaccessible", "LogNamespace", "Mount"),
    *("NoExec", "Private", "ProcSubset", "ProtectControlGroups", "ProtectHome="),
    *("ProtectKernel", "ProtectProc", "ProtectSystem", "ReadOnly", "ReadWrite", "Root"),
    *("TemporaryFileSystem", "User", "NetworkNamespace", "IPCNamespace"),
    *("RuntimeDirectory", "StateDirectory", "CacheDirectory", "LogsDirectory"),
)


def settings() -> list[tuple[str, str]]:
    """The unit's settings in their order."""
    with open(UNIT) as file:
        lines = [line.strip() for line in file if not line.startswith(("#", "["))]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines if line)]


def test_shares_the_mounts_of_the_host() -> None:
    """No setting takes the service out of the host's mount and network namespaces."""
    assert [name for name, _ in settings() if f"{name}=".startswith(ISOLATING)] == []


def test_may_mount_and_little_else() -> None:
    """It keeps the capabilities that its work needs, and gains no others."""
    found = dict(settings())
    assert set(found["CapabilityBoundingSet"].split()) == {
        *("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT"),
        *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"),
    }
    assert found["NoNewPrivileges"] == "yes"
    assert found["RestrictAddressFamilies"] == "AF_UNIX"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_verified_by_systemd(tmp_path: Path) -> None:
    """Nothing is left for systemd to complain about once the command's path is filled in."""
    with open(UNIT) as file:
        text = file.read()
    assert text.count("@PYCOR_HOOKS@ watch") == 1
    unit = tmp_path / "pycor-hooks-watch.service"
    unit.write_text(text.replace("@PYCOR_HOOKS@ watch", "/bin/true watch"))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
