# SPDX-License-Identifier: GPL-3.0-or-later
"""Which word of an interpreter's command line is its script."""

from __future__ import annotations

import subprocess

import pytest

from lab.wait import until
from pycor_hooks import instance, scripts


@pytest.mark.parametrize(
    ("interpreter", "words", "script"),
    [
        ("python", "/usr/bin/fail2ban-server -xf start", "/usr/bin/fail2ban-server"),
        ("python", "-u -W ignore -X dev /srv/app.py -c no", "/srv/app.py"),
        ("python", "-Es -- app.py", "app.py"),
        ("python", "-m http.server", None),
        ("python", "-Imhttp.server", None),
        ("python", "-c pass", None),
        ("python", "-", None),
        ("python", "", None),
        ("python", "-W", None),
        ("perl", "-wT -I /srv/lib /srv/app.pl", "/srv/app.pl"),
        ("perl", "-MFoo /srv/app.pl", "/srv/app.pl"),
        ("perl", "-ne print", None),
        ("ruby", "-r json app.rb", "app.rb"),
        ("ruby", "-e 1", None),
    ],
)
def test_script_among(interpreter: str, words: str, script: str | None) -> None:
    """Options and their values are passed over; some leave no room for a script."""
    known = scripts.INTERPRETERS[interpreter]
    assert scripts.script_among(words.split(), known) == script


def script_of(executable: str, *words: str) -> str | None:
    """Of a process with this command line that works in /usr/lib."""
    command = ["sh", *words]
    with subprocess.Popen(
        command, executable="/bin/cat", cwd="/usr/lib", stdin=subprocess.PIPE
    ) as process:
        try:
            # its name is new a moment before its command line is
            until(lambda: instance.read_of(process.pid, "cmdline")[:3] == b"sh\0", what="it runs")
            return scripts.script_of(process.pid, executable)
        finally:
            process.kill()


def test_script_of_a_process() -> None:
    """A relative one is found from where the process works; what is no interpreter has none."""
    assert script_of("/usr/bin/python3.11", "--", "-", "../bin/app") == "/usr/lib/-"
    assert script_of("/usr/bin/python3.11", "-", "../bin/app") is None
    assert script_of("/usr/bin/bash", "--", "-") is None
    assert scripts.script_of(4194305, "/usr/bin/perl") is None  # above pid_max
