# SPDX-License-Identifier: GPL-3.0-or-later
"""Which overlays are hidden by another mount."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pycor_hooks import hidden, kernel
from tests.unit.test_status import mounted

if TYPE_CHECKING:
    import pytest


def test_a_file_system_that_gives_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """An overlay whose upper cannot be read is not hidden, and keeps none from being found."""

    def mount_id(path: str) -> int:
        if path == "/broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return 1

    monkeypatch.setattr(kernel, "mount_id", mount_id)
    mounts = [mounted("/broken"), mounted("/hidden")]
    assert hidden.among(mounts) == mounts[1:]
