# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemons in mount namespaces of their own: hook lines, and what is known while they are down."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING

import pytest

from pycor_hooks import hook, live, plan, profile, provision, rawlxc, share, tree, whereabouts
from pycor_hooks.host_errors import DaemonDown
from pycor_hooks.instance import Instance
from pycor_hooks.record import Record
from pycor_hooks.sockets import SNAP_PLACE, Daemon, find_process

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = profile.body(prefix="/opt/hooks", base="base")["config"]["raw.lxc"]
APART = profile.body(prefix="/opt/hooks", base="base", apart=True)["config"]["raw.lxc"]


def test_hook_lines_lead_to_the_host() -> None:
    """Each hook is run by the host's Python, in process 1's namespace, as a profile says it."""
    lines = [line for line in APART.splitlines() if "hook" in line]
    assert [line.partition(" = ")[2] for line in lines] == [
        f"{profile.ENTER} {line.partition(' = ')[2]}"
        for line in PLAIN.splitlines()
        if "hook" in line
    ]
    assert (profile.enters(PLAIN), profile.enters(APART)) == (False, True)


@pytest.mark.parametrize("raw_lxc", [PLAIN, APART])
def test_both_forms_are_known_as_ours(raw_lxc: str) -> None:
    """Base and prefix are read from either, and an update replaces one by the other."""
    assert rawlxc.pre_start(raw_lxc) == ("/opt/hooks", ["--base", "base"])
    assert profile.foreign_lines(raw_lxc) == []
    assert profile.merge(f"{raw_lxc}lxc.mount.auto = proc\n", PLAIN).startswith(PLAIN)


def test_the_snap_is_apart_by_its_place() -> None:
    """Whether or not it runs."""
    assert whereabouts.is_apart(Daemon("lxd", SNAP_PLACE))


def test_a_daemon_that_does_not_run_is_not_apart(tmp_path: Path) -> None:
    """Another one's hooks have the ordinary form then."""
    daemon = Daemon("lxd", str(tmp_path))
    assert find_process(daemon) is None
    assert whereabouts.is_apart(daemon) is False


def test_while_the_daemon_is_down(tmp_path: Path) -> None:
    """Its base is unknown, which neither keeps overlays from a refresh nor detaches them."""
    base = plan.Base(str(tmp_path), "default", "base")
    assert live.base_state(base, apart=True).identity == plan.UNKNOWN
    assert live.base_state(base).identity is None
    record = Record(lower_identity="8:1:2:0", namespace=4026532000)
    decision = plan.decide([record], running=False, identity=plan.UNKNOWN)
    assert (decision.refresh, decision.detached) == ([record], [])


def test_what_is_asked_of_its_files_waits(tmp_path: Path) -> None:
    """And is told so."""
    with (
        pytest.raises(DaemonDown, match="wait until it is back"),
        whereabouts.volume_of(Instance(str(tmp_path), "default", "base"), apart=True),
    ):
        pass
    with (
        pytest.raises(DaemonDown, match="wait until it is back"),
        whereabouts.shown(str(tmp_path), apart=True),
    ):
        pass


def test_a_daemon_that_ends_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is down then, and its base not taken for one that is gone."""
    monkeypatch.setattr(whereabouts, "find_process", lambda _: 4194305)  # above pid_max
    with (
        pytest.raises(DaemonDown, match="wait until it is back"),
        whereabouts.shown(str(tmp_path), apart=True),
    ):
        pass


def test_an_operator_without_rights_keeps_the_form_of_the_profile() -> None:
    """Where the daemon may not be looked at, the lines stay of the form that they have."""
    assert provision.form_of(PLAIN, apart=None) is False
    assert provision.form_of(APART, apart=None) is True
    assert provision.form_of(APART, apart=False) is False


def test_all_that_hooks_load_late_is_loaded_before_they_leave() -> None:
    """In a daemon's namespace nothing can be imported, so its list has no gap."""
    with open(hook.__file__, encoding="utf-8") as file:
        loaders = [node for node in ast.walk(ast.parse(file.read())) if _is_loader(node)]
    loaded = {name for loader in loaders for name in _imported(loader)}
    late: set[str] = set()
    for target in tree.sources():
        if target.startswith("pycor_hooks/"):
            path = os.path.join(share.PACKAGE, os.path.basename(target))
            with open(path, encoding="utf-8") as file:
                functions = [n for n in ast.walk(ast.parse(file.read())) if _is_function(n)]
            late |= {name for function in functions for name in _imported(function)}
    on_the_host = {"hidden", "lost"}  # before it leaves, or when it is back
    by_need = {"journal", "parents"}  # takedown.load looks before it leaves
    assert late - loaded == on_the_host | by_need


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef)


def _is_loader(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "_load_all"


def _imported(node: ast.AST) -> set[str]:
    """The modules of this package that are imported below a node."""
    found = set()
    for one in ast.walk(node):
        if isinstance(one, ast.ImportFrom) and one.module == "pycor_hooks":
            found |= {alias.name for alias in one.names}
        elif isinstance(one, ast.ImportFrom) and (one.module or "").startswith("pycor_hooks."):
            found.add((one.module or "").partition(".")[2])
    return found
