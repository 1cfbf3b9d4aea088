# SPDX-License-Identifier: GPL-3.0-or-later
"""How a hook renders an error, and what it may import."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import hook, hooklog, kernel, overlay
from pycor_hooks.errors import HostLimit, NoIdmappedMounts, printable

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


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """liblxc's, of a container whose log is ``lxc.log`` in its configuration's directory."""
    (tmp_path / "lxc.conf").write_text(f"lxc.log.file = {tmp_path}/lxc.log\n")
    return {"LXC_NAME": "web1", "LXC_CONFIG_FILE": str(tmp_path / "lxc.conf")}


def test_a_line_in_liblxc_s_own_format(
    environ: dict[str, str], tmp_path: Path, mocker: MockerFixture
) -> None:
    """``lxc info --show-log`` shows it among liblxc's lines, in UTC with milliseconds."""
    mocker.patch("time.time", return_value=1795490340.125)
    hooklog.write("ERROR", "pre-start: no\nway", environ)
    assert (tmp_path / "lxc.log").read_text() == (
        "lxc web1 20261124031900.125 ERROR    pycor-hooks - pre-start: no\\nway\n"
    )


def test_a_log_that_cannot_be_written_changes_nothing(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is on standard error, and the hook's status stays its own."""
    (tmp_path / "lxc.log").mkdir()
    assert hook.run("stop", ["x"], environ) == 2
    said = capsys.readouterr().err
    assert "unknown option 'x'" in said
    assert f"{tmp_path}/lxc.log: Is a directory" in said


def test_the_log_beside_a_configuration_that_cannot_be_read(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """Where the configuration cannot tell, the log in its directory is the container's."""
    (tmp_path / "lxc.conf").unlink()
    (tmp_path / "lxc.conf").mkdir()
    (tmp_path / "lxc.log").touch()
    assert hook.run("stop", [], environ) == 1
    said = f"stop: Is a directory at {tmp_path}/lxc.conf (errno {errno.EISDIR})"
    assert said in (tmp_path / "lxc.log").read_text()


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


def test_an_error_without_a_path_is_named_with_its_place() -> None:
    """A file that cannot be read on says no name; the line of code does."""
    with pytest.raises(OSError, match="Bad file") as caught:
        os.read(9999, 1)
    line = hooklog.describe(caught.value)
    assert line.startswith("Bad file descriptor in test_hook.py, line ")
    assert line.endswith(f" (errno {errno.EBADF})")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "full", "/run/x"), "no space left at /run/x (full): free some"),
        (OSError(errno.EDQUOT, "quota"), "no space left at /run/pycor-hooks (quota): free some"),
        (MemoryError(), "Cannot allocate memory (errno 12)"),
        (ImportError("No module named 'x'"), "No module named 'x': is all of pycor-hooks there?"),
        (ValueError("odd"), "unforeseen ValueError: odd: please report it"),
    ],
)
def test_errors_without_a_class_of_ours(error: Exception, line: str) -> None:
    """Each is one line that names it; nobody sees a traceback."""
    assert hooklog.describe(error).startswith(line)


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
        base_key="base",
        volume="/volume",
        lower_map=("0 1 1\n", "0 1 1\n"),
        upper_map=None,
        fs_ids=(1, 1),
        staging=str(tmp_path),
    )
    with pytest.raises(NoIdmappedMounts, match=r"cannot map the ids of /base .*Linux 5\.19"):
        overlay.mount(layers, str(tmp_path / "merged"))


@pytest.mark.parametrize("name", ["hook", "hooklog", "prestart", "strays", "pools"])
def test_the_hooks_load_nothing_slow(name: str) -> None:
    """Under the system's Python, isolated: the standard library's fast modules alone."""
    code = f"import sys; sys.path.insert(0, {REPOSITORY!r}); import pycor_hooks.{name}"
    done = subprocess.run(
        ["/usr/bin/python3", "-BIS", "-c", f"{code}; print(list(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & SLOW
    assert not {module for module in loaded if "site-packages" in module}


def test_a_limit_of_the_host_is_no_full_disk(tmp_path: Path, mocker: MockerFixture) -> None:
    """The kernel says ENOSPC of both; where it makes no user namespace, the limit is named."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    mocker.patch.object(overlay, "user_namespace", side_effect=full)
    with pytest.raises(HostLimit, match=r"raise user\.max_user_namespaces"):
        overlay._stage("/", str(tmp_path / "staged"), ("0 1 2", "0 1 2"), {})
