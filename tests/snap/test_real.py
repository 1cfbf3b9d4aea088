# SPDX-License-Identifier: GPL-3.0-or-later
"""What the owner of an Ubuntu host runs: tests/snap/real.sh, here in the simulation."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lab import images
from lab.wait import until

if TYPE_CHECKING:
    from lab.overlays import Overlays
    from lab.snap import SnapDaemon

SCRIPT = Path(__file__).with_name("real.sh")
# What only snapd has: its list, and the unit, whose reload the case does for it.
SNAP = "#!/bin/sh\necho 'lxd 5.0.2 1 5.0/stable canonical -'\n"
SYSTEMCTL = '#!/bin/sh\necho "$@" >{asked}; until [ -e {done} ]; do sleep 0.1; done\n'


def test_real_sh(overlays: Overlays, snap: SnapDaemon, tmp_path: Path) -> None:
    """On a sound host every check of it is well, the refresh's too, and it leaves nothing."""
    base = str(tmp_path / "base.tar")
    images.busybox(base)
    asked, done = tmp_path / "asked", tmp_path / "done"
    for name, text in (("snap", SNAP), ("systemctl", SYSTEMCTL.format(asked=asked, done=done))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    prefix = str(tmp_path / "prefix")
    path = f"{tmp_path}:{overlays.daemon.env['PATH']}"
    env = {**overlays.daemon.env, "PATH": path, "PREFIX": prefix, "REFRESH": "1"}
    command, log = [str(SCRIPT), base], tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(command, env=env, stdout=out, stderr=out) as script,
    ):
        try:
            until(
                lambda: asked.exists() or script.poll() is not None,
                what="the script asks for a reload",
                timeout_s=120,
            )
            snap.restart()
        finally:
            done.touch()
        status = script.wait(timeout=120)
    said = log.read_text()
    assert status == 0, said
    assert asked.read_text() == "reload snap.lxd.daemon\n"
    assert said.endswith("all is well\n")
    assert "\nok    web1 sees an update after that\n" in said
    assert not os.path.exists(prefix)
    for kind in ("project", "storage"):
        assert "check" not in overlays.client(kind, "list", "--format=csv").stdout
