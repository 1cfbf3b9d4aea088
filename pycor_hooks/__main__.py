# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m pycor_hooks`` is ``pycor-hooks``."""

from __future__ import annotations

import sys

from pycor_hooks.cli import main

if __name__ == "__main__":
    sys.exit(main())
