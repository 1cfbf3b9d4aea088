# SPDX-License-Identifier: GPL-3.0-or-later
"""Give paths of a running container back to its base, in a process that can be killed.

Run as ``python -m lab.dropping RECORD PATH…``, where RECORD is the directory of its record.
"""

from __future__ import annotations

import sys

from pycor_hooks import drop, record


def main() -> None:
    """Do it."""
    directory, *paths = sys.argv[1:]
    drop.from_running(record.read(directory), paths)


if __name__ == "__main__":
    main()
