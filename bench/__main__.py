# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every bench, each in a process of its own: ``make bench``."""

from __future__ import annotations

import subprocess
import sys

for name in ("hook", "snap", "refresh", "memory", "manifest"):
    subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)
