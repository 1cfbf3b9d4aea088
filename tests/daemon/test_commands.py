# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands as an operator has them: from a wheel, completed by a shell, in the whole story."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab import tree
from lab.daemon import POOL
from lab.demo import PACKAGE, PROGRAM, build_package
from lab.overlays import COMMAND, Overlays
from lab.supervisor import Supervised
from lab.wait import until
from pycor_hooks import share
from pycor_hooks.tree import current

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = os.path.dirname(share.PACKAGE)
SHELLS = {
    "bash": "complete -o nosort -F _pycor_hooks_completion pycor-hooks\n",
    "zsh": "#compdef pycor-hooks\n",
    "fish": "complete --no-files --command pycor-hooks ",
}
COMPLETE = """
eval "$(pycor-hooks completion bash)"
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_pycor_hooks_completion pycor-hooks
echo "${{COMPREPLY[@]}}"
"""


def _shell(overlays: Overlays, script: str) -> str:
    """What a script prints in bash, where pycor-hooks is found as an installed command is."""
    path = f"{os.path.dirname(COMMAND)}:{overlays.daemon.env['PATH']}"
    return subprocess.run(
        ["bash", "--norc", "-euc", script],
        env={**overlays.daemon.env, "PATH": path},
        capture_output=True,
        check=True,
        text=True,
    ).stdout


@pytest.mark.once
def test_from_a_wheel(overlays: Overlays, tmp_path: Path) -> None:
    """A built wheel in a fresh venv installs the same hooks, file by file, as this clone."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, *build, REPOSITORY], check=True)
    (wheel,) = tmp_path.glob("pycor_hooks-*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    into = ["--python", str(venv / "bin" / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *into, str(wheel)], check=True)
    (packages,) = venv.glob("lib/python3.*/site-packages")
    # what it depends on comes from this venv, without which there would be no network either
    (packages / "dependencies.pth").write_text(os.path.dirname(os.path.dirname(pytest.__file__)))

    command, prefix = str(venv / "bin" / "pycor-hooks"), str(tmp_path / "prefix")
    words = ["install", "--prefix", prefix, "--no-systemd", "--base", "later"]
    done = subprocess.run(
        [command, *words], env=overlays.daemon.env, capture_output=True, check=True, text=True
    )
    assert f"hooks installed in {prefix}/{current(prefix)}\n" in done.stdout
    assert current(prefix) == current(overlays.prefix)
    ours, theirs = (_contents(f"{path}/hooks/..") for path in (overlays.prefix, prefix))
    assert theirs == ours
    overlays.client("launch", "busybox", "later").check_returncode()
    assert overlays.client.launch("overlay-later", "web1").exec("hostname") == "web1\n"


def _contents(path: str) -> dict[str, str]:
    entries = tree.describe(os.path.realpath(path))
    return {name: entry.content for name, entry in entries.items() if not name.endswith(".pyc")}


@pytest.mark.once
def test_completion(overlays: Overlays) -> None:
    """Each shell gets its script; bash completes commands, options and live containers."""
    for shell, text in SHELLS.items():
        assert text in _shell(overlays, f"pycor-hooks completion {shell}")
    overlays.launch("completed")
    for words, offered in (
        ("pycor-hooks rem", "remount"),
        ("pycor-hooks remount --al", "--all"),
        ("pycor-hooks status complet", "completed"),
    ):
        assert _shell(overlays, COMPLETE.format(words=words)) == f"{offered}\n"


@pytest.mark.once
@pytest.mark.usefixtures("watcher")
def test_examples_of_help(overlays: Overlays) -> None:
    """What --help of status, remount and doctor gives as examples works as it stands there."""
    client = overlays.client
    client("project", "create", "staging")
    staging = client.in_project("staging")
    staging("profile", "device", "add", "default", "root", "disk", "path=/", f"pool={POOL}")
    client.launch("busybox", "debian").stop(force=True)
    for words in (("--project", "staging", "--base", "default/debian"), ("--base", "debian")):
        overlays.pycor_hooks("profile", "--prefix", overlays.prefix, *words)
    staging.launch("overlay-debian", "web2")
    overlays.launch("web1")
    for command, number in (("status", 3), ("remount", 3), ("doctor", 4)):
        text = overlays.pycor_hooks(command, "--help").stdout
        examples = re.findall(rf"^    (pycor-hooks {command}.*)$", text, re.MULTILINE)
        assert len(examples) == number
        for example in examples:
            said = _shell(overlays, example.partition(" | ")[0])
            assert "web1" in said or "--base" in example or command == "doctor"


def test_the_operator_s_story(debian_overlays: Overlays, tmp_path: Path) -> None:
    """Install, a base, a container on it, apt-get in the base: the container sees the package."""
    daemon, lxc = debian_overlays.daemon, debian_overlays.client
    elsewhere = {"PATH": daemon.env["PATH"]}  # no LXD_DIR: --daemon says it all

    def pycor_hooks(line: str) -> str:
        command = [COMMAND, *shlex.split(line), "--daemon", daemon.directory]
        both = subprocess.STDOUT
        return subprocess.check_output(command, env=elsewhere, stderr=both, text=True)

    said = pycor_hooks(f"install --no-systemd --prefix {tmp_path}/prefix --base story")
    assert f"hooks installed in {tmp_path}/prefix/" in said
    then = said.rpartition("take over its templates: pycor-hooks ")[2]
    watcher = Supervised(
        [COMMAND, "watch", "--daemon", daemon.directory],
        log=os.path.join(daemon.world.directory, "story.log"),
        env=elsewhere,
    )
    try:
        lxc("launch", "debian-image", "story")
        story = lxc.instance("story")
        story.wait_booted()
        lxc("stop", "story")
        said = pycor_hooks(then)
        assert "base story has now security.protection.delete=true, boot.autostart=false" in said
        lxc("launch", "overlay-story", "web1")
        web1 = lxc.instance("web1")
        assert web1.run(PROGRAM).returncode == 127

        lxc("start", "story")
        story.wait_booted()
        package = build_package(str(tmp_path), "1.0")
        lxc("file", "push", package, f"story/root/{PACKAGE}.deb")
        lxc("exec", "story", "--", "apt-get", "install", "-y", f"/root/{PACKAGE}.deb")
        lxc("stop", "story")
        until(lambda: web1.run(PROGRAM).returncode == 0, what="web1 sees it", timeout_s=5)
        assert lxc("exec", "web1", "--", PROGRAM).stdout == f"web1 runs {PACKAGE} 1.0\n"
        assert PACKAGE in web1.exec("dpkg-query", "--show", PACKAGE)
    finally:
        watcher.end()
