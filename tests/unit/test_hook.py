# SPDX-License-Identifier: GPL-3.0-or-later
"""How a hook renders an error, and what it may import."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import hook, kernel, overlay
from pycor_hooks.errors import NoIdmappedMounts, printable

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mock import MockerFixture

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOW = {
    "re",
    "json",
    "pathlib",
    "dataclasses",
    "argparse",
    "typing",
    "logging",
    "subprocess",
    "contextlib",
    "collections",
    "enum",
    "functools",
    "socket",
    "tempfile",
    "shutil",
}


def test_a_line_in_liblxc_s_own_format(tmp_path: Path, mocker: MockerFixture) -> None:
    """``lxc info --show-log`` shows it among liblxc's lines, in UTC with milliseconds."""
    mocker.patch("time.time", return_value=1795490340.125)
    log = hook.Log({"LXC_NAME": "web1"})
    log.path = str(tmp_path / "lxc.log")
    log.write("ERROR", "pre-start: no\nway")
    assert (tmp_path / "lxc.log").read_text() == (
        "lxc web1 20261124031900.125 ERROR    pycor-hooks - pre-start: no\\nway\n"
    )


def test_a_log_that_cannot_be_written_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is on standard error, and the hook's status stays its own."""
    log = hook.Log({"LXC_NAME": "web1"})
    log.path = str(tmp_path / "nosuch" / "lxc.log")
    log.write("ERROR", "cause")
    assert "cause" in capsys.readouterr().err


def test_an_error_of_the_kernel_is_named_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody foresaw still says call, path and errno."""
    environ = {"LXC_NAME": "x", "LXC_CONFIG_FILE": str(tmp_path / "nosuch")}
    assert hook.run("stop", [], environ) == 1
    line = capsys.readouterr().err
    assert f"stop: No such file or directory at {tmp_path}/nosuch (errno {errno.ENOENT})" in line


def test_a_carriage_return_ends_no_line_of_the_config(tmp_path: Path) -> None:
    """What a setting of an instance holds stays in its line: it cannot name a file to write."""
    owned = tmp_path / "owned"
    (tmp_path / "conf").write_bytes(b"lxc.environment = A=\rlxc.log.file = %s\r\n" % bytes(owned))
    environ = {"LXC_NAME": "x", "LXC_CONFIG_FILE": str(tmp_path / "conf")}
    assert hook.run("stop", [], environ) == 2
    assert not owned.exists()


def test_a_full_disk_is_named_wherever_it_shows(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """No space for the record is as plain as no space for the layer."""
    mocker.patch.object(hook, "_read_config", side_effect=OSError(errno.ENOSPC, "full", "/run/x"))
    assert hook.run("stop", [], {"LXC_NAME": "x"}) == 1
    assert "no space left at /run/x (full): free some" in capsys.readouterr().err


def test_what_nobody_foresaw_is_one_line_too(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody sees a traceback."""
    mocker.patch.object(hook, "_read_config", side_effect=ValueError("odd"))
    assert hook.run("stop", [], {"LXC_NAME": "x"}) == 1
    assert "unforeseen ValueError: odd" in capsys.readouterr().err


def test_escaping() -> None:
    """Nothing that a container chose reaches a terminal as a control character."""
    assert printable("a\x1b[31m\n\udcff é") == "a\\x1b[31m\\n\\udcff é"


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_a_kernel_without_idmapped_mounts(
    tmp_path: Path, mocker: MockerFixture, code: int
) -> None:
    """A kernel that lacks the call, or refuses it, is named with the way out."""
    mocker.patch.object(overlay, "user_namespace", return_value=os.open("/dev/null", os.O_RDONLY))
    mocker.patch.object(kernel, "open_tree_clone", side_effect=OSError(code, os.strerror(code)))
    mocker.patch.object(kernel, "set_fs_ids")
    layers = overlay.Layers(
        lowerdirs=["/base"],
        volume="/volume",
        lower_map=("0 1 1\n", "0 1 1\n"),
        upper_map=None,
        fs_ids=(1, 1),
        staging=str(tmp_path),
    )
    with pytest.raises(NoIdmappedMounts, match=r"cannot map the ids of /base .*Linux 5\.19"):
        overlay.mount(layers, str(tmp_path / "merged"))


@pytest.mark.parametrize("name", ["hook", "prestart", "strays", "pools"])
def test_the_hooks_load_nothing_slow(name: str) -> None:
    """Under the system's Python, isolated: the standard library's fast modules alone."""
    code = f"import sys; sys.path.insert(0, {REPOSITORY!r}); import pycor_hooks.{name}"
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", f"{code}; print(list(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & SLOW
    assert not {module for module in loaded if "site-packages" in module}
