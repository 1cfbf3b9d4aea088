# SPDX-License-Identifier: GPL-3.0-or-later
"""A lint: nobody joins a path onto something that a container owns.

What root of a container wrote is walked from a directory's descriptor to a name in it, and no link
is followed; a joined path is walked by the kernel, links and all. So each join in the modules that
the hooks run, or that look at a container's tree, is onto a directory of the host's that is named
here, with the reason why no container can put a link into it; or it is one of the SITES.

A new join that fails here: use a descriptor, or say why it is safe.
"""

from __future__ import annotations

import ast
import os
from itertools import pairwise

import pytest

from pycor_hooks import share, tree

# Beside those of the hooks: what else looks at layers, records, or processes of containers.
MORE_MODULES = (
    *("live", "status", "usage"),
    *("doctor/bases", "doctor/containers", "doctor/explain", "doctor/insides", "doctor/leaks"),
    *("doctor/nextstart", "doctor/peek"),
    *("converge", "cure", "drop", "dpkg", "generations", "giveback", "hiding", "impact", "inuse"),
    *("layerdiff", "ledger", "locate", "manifest", "masking", "mirror", "mountpoints", "oldcode"),
    *("procs", "recovery", "regular", "restartd", "scripts", "search", "stale"),
    *("stalerows", "trees"),
)

_VOLUME = "an instance's volume: the container sees upper, and a base its rootfs; nothing above"
_RECORD = "an overlay's directory below /run/pycor-hooks, which is root's, mode 0700"
_PROC = "the kernel's word on a process; /proc/PID/root and its like would be the container's"
_LAST_NAME = "one name in an open directory, by a call that does not follow it"
_CGROUPS = "cgroupfs, which has no links"
# What stands before the slash, as it is written -> why that is the host's.
HOSTS = {
    "volume": _VOLUME,
    "self.volume()": _VOLUME,
    "one.where.volume()": _VOLUME,
    "record.directory_of(where.daemon, where.key)": _RECORD,
    "left.directory": _RECORD,
    "record.directory": _RECORD,
    "layers.volume": "overlay/ in the volume, or its staged mount; upper itself is checked first",
    "own": "overlay/ in the volume, or the scratch tmpfs",
    "new": "overlay.new in the volume, made by us",
    "os.path.dirname(rootfs)": _VOLUME,
    "directory": _RECORD,
    "self.directory": _RECORD,
    "staging": _RECORD,
    "layers.staging": _RECORD,
    "scratch": "a tmpfs of ours, below the overlay's directory",
    "RUN": "root's, mode 0700",
    "record.RUN": "root's, mode 0700",
    "home": "the daemon's directory below RUN, or STATE",
    "_directory(Instance(*base))": "what is kept of bases, root's, mode 0700",
    "self.own": "overlay/ in the volume",
    "daemon": "the daemon's state directory, in which nobody else may write",
    "self.daemon": "the daemon's state directory, in which nobody else may write",
    "lxcpath": "containers/ in the daemon's state directory",
    "pool": "compared with the mount table, not walked",
    "STATE": "what is kept of bases, root's, mode 0700",
    "state_of(daemon, key)": "what is kept of bases, root's, mode 0700",
    "CGROUPS": _CGROUPS,
    "self._own.directory": _CGROUPS,
    "/proc/{}/stat": _PROC,
    "/proc/{}/ns/pid": _PROC,
    "/proc/{}/maps": _PROC,
    "/proc/{}/fd": _PROC,
    "/proc/{}/mountinfo": _PROC,
    "/proc/{}/ns/mnt": _PROC,
    "/proc/{}/ns/user": _PROC,
    "PLACE": "for openat2(2), beneath the tree",
}
# Module and function, and what is joined there -> why it is no path, or safe all the same.
SITES = {
    ("publish", "mount", "/proc/self/fd/{}/."): "the root of an overlay, by its descriptor",
    ("strays", "_look", "self._bare"): "text for an error; it was looked for by descriptors",
    ("strays", "_clash", "self._bare"): "text for an error",
    ("strays", "_named", "self._bare"): "text for an error",
    ("strays", "_named", "os.path.dirname(self._bare)"): "text for an error",
    ("descent", "path_of", "['', *self.names, name]"): "for create_only, and text for an error",
    ("hooklog", "_find_log", "os.path.dirname(config)"): "the daemon's directory for logs",
    ("hooklog", "_monitors_root", "/proc/{}/root"): "the daemon's, and so the monitor's",
    ("converge", "converge", "/{}"): "a path for people",
    ("converge", "interrupted", "_own(found)"): "overlay/ in the volume",
    ("inuse", "_is_below", "directory.rstrip('/')"): "compared with a path, not walked",
    ("inuse", "_mounts", "/proc/{}/root"): "readlink(2) of it",
    ("mountpoints", "of_tasks", "/proc/{}/root"): "readlink(2) of it",
    ("mountpoints", "layout", "/{}"): "compared with a path, not walked",
    (
        "mountpoints",
        "_join",
        "(part for path in paths for part in path.split('/') if part)",
    ): "for openat2(2), beneath the tree",
    ("restartd", "find", "/{}/{}"): "for the container itself to run",
    ("mirror", "_with_those_above", "parts[:count]"): "for openat2(2), beneath the tree",
    ("hidden", "_prefixes", "parts[:end + 1]"): "of a mount point below RUN",
    ("lost", "inhabitant", "/proc/{}/root"): "stat(2) of that directory, and nothing beneath it",
    ("lost", "_rootfs_of", "base.link"): "for people, where the base is gone",
    ("strays", "create_only_paths", "'/'"): "a name to compare with",
    ("prestart", "_check_owner", "lower"): "lstat(2) of one name in a directory checked before",
    ("instance", "read_of", "/proc/{}/{}"): "cmdline, status, cgroup or comm",
    ("instance", "is_ours", "/proc/{}/ns/{}"): "pid or user",
    ("instance", "is_ours", "/proc/self/ns/{}"): "pid or user",
    ("scripts", "script_of", "/proc/{}/cwd"): "readlink(2) of it",
    (
        "scripts",
        "script_of",
        "os.readlink(f'/proc/{pid}/cwd')",
    ): "for openat2(2), beneath the tree",
    ("scripts", "_look", "/proc/self/fd/{}"): "readlink(2) of it",
    ("scripts", "_look", "self._merged"): "compared with a path, not walked",
    ("scripts", "replaced", "/{}"): "a path for people",
    ("overlay", "user_namespace", "/proc/{}/{}"): "uid_map or gid_map, of our own child",
    ("instance", "from_environment", "parts[:-5]"): "the daemon's directory, out of liblxc's path",
    ("instance", "label", "self.project"): "a name for people",
    ("instance", "command_socket", "key"): "the name of a socket",
    ("record", "directory_of", "escape(daemon)"): "two names below RUN, neither with a slash",
    ("record", "unescape", "'/'"): "a directory for people",
    ("registry", "directories", "name"): "below RUN",
    ("status", "base_label", "one.base_project"): "a name for people",
    ("pools", "driver_of", "daemon"): "of a base's pool",
    ("bases", "_ask", "where.project"): "a name for the daemon",
    ("bases", "_unheld", "/{} belongs to {} {}"): "a path for people",
    ("bases", "_unheld", "/{} belongs to {} {} of the host"): "a path for people",
    ("insides", "_is_masked", "_UNITS[0]"): "for openat2(2), beneath the tree",
    ("insides", "stores_of", "place"): "for openat2(2), beneath the tree",
    ("insides", "stores_of", "/{}"): "a path for people",
    ("nextstart", "plan", "hook.prefix"): "where the hooks are",
    ("nextstart", "_mount", "path"): "a scratch directory of ours",
    ("peek", "read", "/proc/self/fd/{}"): "what this descriptor has open",
    ("regular", "opened", "/proc/self/fd/{}"): "what this descriptor has open",
    ("drop", "check", "parts[:count]"): "for openat2(2), beneath the tree",
    ("drop", "check", "/{}"): "a path for people",
    ("drop", "own", "path"): "for openat2(2), beneath the tree",
    ("dpkg", "owners", "LISTS"): "for openat2(2), beneath the tree",
    ("giveback", "_is_held", "*trees.upper.place(step.path)"): _LAST_NAME,
    ("giveback", "_is_held", "*trees.base.place(step.path)"): _LAST_NAME,
    ("impact", "_of_users", "/{}"): "a path for people",
    ("layerdiff", "_compare", "path"): "a path for people",
    ("layerdiff", "is_whiteout", "/proc/self/fd/{}/{}"): _LAST_NAME,
    ("locate", "find", "Instance(daemon.directory, *name).volume()"): _VOLUME,
    ("locate", "find", "container.volume()"): _VOLUME,
    ("manifest", "walk", "name"): "a path for people",
    ("masking", "_remedy", "/{}"): "a path for people",
    ("masking", "_remedy", "drop"): "a command for people",
    ("masking", "_of_upper", "parts[:count]"): "for openat2(2), beneath the tree",
    ("masking", "_place", "/proc/self/fd/{}/{}"): _LAST_NAME,
    (
        "procs",
        "_links",
        "/proc/{}/{}",
    ): "exe, cwd, root or a descriptor; its end is only looked at",
    ("stalerows", "_updates", "/{}"): "a path for people, to compare with",
    ("peek", "_note", "path"): "for openat2(2), beneath the tree, and for people",
    ("instance", "state_of", "escape(daemon)"): "two names below STATE, neither with a slash",
    ("journal", "_path", "self._place"): "text for an error",
    ("journal", "_path", "CURE"): "text for an error",
    ("parents", "holds_nothing_own", "one"): "a name in a list, opened beneath upper (Tree)",
    ("parents", "_read", "self._own"): "overlay/ in the volume",
    ("freezer", "_payload", "parts[:count]"): "the name of a cgroup",
}
# They walk by joined paths inside.
WALKERS = {"os.walk", "os.removedirs", "os.renames", "glob", "shutil", "pathlib"}


def joins(source: str) -> list[tuple[str, str]]:
    """Each join in a module: the innermost function, and what the rest is joined onto."""
    found: list[tuple[str, str]] = []

    def visit(node: ast.AST, function: str) -> None:
        name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        found.extend((name, left) for left in _lefts(node))
        for child in ast.iter_child_nodes(node):
            visit(child, name)

    visit(ast.parse(source), "")
    return found


def _lefts(node: ast.AST) -> list[str]:
    """What a slash, or os.path.join, joins other names onto in this very node."""
    if isinstance(node, ast.JoinedStr):
        return _lefts_of_fstring(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        slashes = [part for part in (node.left, node.right) if _has_slash(part)]
        return [ast.unparse(node.left)] if slashes or _is_a_container_s(node.left) else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        joined = ast.unparse(node.func) in {"os.path.join", "posixpath.join"}
        if joined or (node.func.attr in {"join", "format"} and _has_slash(node.func.value)):
            return [ast.unparse(node.args[0] if node.args else node)]
    return []


def _lefts_of_fstring(node: ast.JoinedStr) -> list[str]:
    shown = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
    if str(shown[0]).startswith("/"):
        return ["".join(map(str, shown))] if len(shown) > 1 else []
    return [
        ast.unparse(one.value)
        for one, following in pairwise(node.values)
        if isinstance(one, ast.FormattedValue)
        and (
            _has_slash(following)
            or (isinstance(following, ast.FormattedValue) and _is_a_container_s(one.value))
        )
    ]


def _is_a_container_s(node: ast.AST) -> bool:
    """Whether it is named as the root of such a tree: what follows may begin with a slash."""
    name = ast.unparse(node).rpartition(".")[2].strip("_")
    return name in {"bare", "merged", "rootfs", "lower", "lowerdir", "upper", "upperdir"}


def _has_slash(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "/" in node.value


def modules() -> dict[str, str]:
    """The source of each module that is looked at, by its name."""
    paths = [*tree.sources().values()]
    paths += [os.path.join(share.PACKAGE, f"{name}.py") for name in MORE_MODULES]
    found = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            found[os.path.basename(path).removesuffix(".py")] = file.read()
    return found


def test_every_join_is_onto_something_of_the_host_s() -> None:
    """No path is joined onto what a container owns."""
    unknown = [
        f"{module}.{function}: joined onto {left}"
        for module, source in modules().items()
        for function, left in joins(source)
        if left not in HOSTS and (module, function, left) not in SITES
    ]
    assert unknown == []


def test_nothing_walks_by_joined_paths_inside() -> None:
    """What the standard library walks with links and all is not used on such trees."""
    used = [
        f"{module}: {walker}"
        for module, source in modules().items()
        for node in ast.walk(ast.parse(source))
        for walker in WALKERS
        if isinstance(node, ast.Attribute | ast.Import | ast.ImportFrom)
        and walker in ast.unparse(node).replace(",", " ").split()
    ]
    assert used == []


def test_no_reason_outlives_its_site() -> None:
    """What is excused here is still there."""
    found = {
        (module, function, left)
        for module, source in modules().items()
        for function, left in joins(source)
    }
    assert not SITES.keys() - found
    assert not HOSTS.keys() - {left for _, _, left in found}


@pytest.mark.parametrize(
    "code",
    [
        'f"{merged}/{name}"',
        'f"{merged}/etc"',
        'f"{self._merged}{path}/etc"',
        "merged + path",
        "os.path.join(merged, name)",
        'merged + "/" + name',
        '"%s/%s" % (merged, name)',
        '"/".join([merged, name])',
        '"{}/{}".format(merged, name)',
        'f"/proc/{pid}/root/{name}"',
    ],
)
def test_a_new_join_is_seen(code: str) -> None:
    """However it is written."""
    found = joins(f"def walk():\n    {code}\n")
    assert found
    assert all(name == "walk" and left not in HOSTS for name, left in found)
