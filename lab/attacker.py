# SPDX-License-Identifier: GPL-3.0-or-later
"""Root of a container who means harm: with the host's Python at hand, every system call is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab import images

if TYPE_CHECKING:
    from lab.client import Instance

_PLACE = "/host"
_PYTHON = os.path.realpath("/usr/bin/python3")
_PRELUDE = """
import contextlib, ctypes, errno, fcntl, os, stat, sys
libc = ctypes.CDLL(None, use_errno=True)

def mount(source, target, kind=None, flags=0, data=None):
    words = [word and os.fsencode(word) for word in (source, target, kind)]
    if libc.mount(*words, flags, data and os.fsencode(data)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)

def attempt(call, *arguments, **keywords):
    with contextlib.suppress(OSError):
        call(*arguments, **keywords)
        return True
    return False
"""


class Attacker:
    """Call it with Python code, which finds mount() and attempt() there; it runs as root.

    The host's /usr is a disk device of the container, so none of its files is the container's.
    """

    def __init__(self, container: Instance) -> None:
        """Bring Python into a running container."""
        self.container = container
        device = ["host", "disk", "source=/usr", f"path={_PLACE}/usr", "readonly=true"]
        container.client("config", "device", "add", container.name, *device)
        libraries = [os.path.realpath(path) for path in images.libraries(_PYTHON)]
        loader = next(path for path in libraries if os.path.basename(path).startswith("ld"))
        self.python = [
            *(f"{_PLACE}{loader}", "--library-path", f"{_PLACE}{os.path.dirname(loader)}"),
            *(f"{_PLACE}{_PYTHON}", "-IS"),
        ]

    def __call__(self, code: str, *arguments: str) -> str:
        """Run code with ``sys.argv[1:]``, and return what it printed.

        Raises:
            ClientError: it raised.
        """
        return self.container.exec(*self.python, "-c", _PRELUDE + code, *arguments)
