# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed hooks: PREFIX/VERSION-DIGEST/{hooks,pycor_hooks}, and the link PREFIX/hooks.

A stub resolves the link first, so a container that starts while the link is switched runs the old
version to the end, or the new one, and never a mixture. That is why a version's directory appears
whole, by rename, is never changed, and outlives the next upgrade by one.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile

from pycor_hooks import __version__, share
from pycor_hooks.host_errors import BadPrefix, SystemPython
from pycor_hooks.rawlxc import HOOKS

PYTHON = "/usr/bin/python3"
OLDEST = [3, 11]
LINK = "hooks"
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+]*-[0-9a-f]{12}")
_UNFINISHED = ".unfinished-"
_ASK = "import json, sys; print(json.dumps([sys.version_info[:2], sys.implementation.cache_tag]))"

# Never compared with the source again, as a version's directory does not change (PEP 552); and
# without docstrings and columns, a quarter of what each hook would read. compileall could not put
# that where a Python without -OO looks for it.
_COMPILE = """
import importlib.util, py_compile, sys
unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
for path in sys.argv[2:]:
    py_compile.compile(
        path,
        cfile=importlib.util.cache_from_source(path),
        dfile=f"{sys.argv[1]}/{path}",
        doraise=True,
        optimize=2,
        invalidation_mode=unchecked,
    )
"""


def shipped() -> dict[str, bytes]:
    """What the hooks consist of: path in the tree -> content."""
    files = {}
    for target, source in sources().items():
        with open(source, "rb") as file:
            files[target] = file.read()
    return files


def sources() -> dict[str, str]:
    """Where that comes from: path in the tree -> file to copy.

    The stubs, and those modules of this package that they import, and so on: imports are where
    this list is kept.
    """
    found = {f"hooks/{hook}": share.path_of(f"hooks/{hook}") for hook in HOOKS}
    pending = list(found.values())
    while pending:
        for name in _imports(pending.pop()):
            target = f"pycor_hooks/{name}.py"
            if target not in found:
                found[target] = os.path.join(share.PACKAGE, f"{name}.py")
                pending.append(found[target])
    return found


def _imports(path: str) -> set[str]:
    """The modules of this package that a file imports when it runs."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    names = {"__init__"}
    for node in _running_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "pycor_hooks":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pycor_hooks."):
            names.add((node.module or "").partition(".")[2])
    return names


def _running_nodes(node: ast.AST) -> list[ast.AST]:
    """All nodes below one, but for what stands under `if TYPE_CHECKING:`."""
    found = [node]
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"
        if not guarded:
            found += _running_nodes(child)
    return found


def ask_python(python: str = PYTHON) -> str:
    """The cache tag of the Python that runs the hooks, such as "cpython-311".

    Raises:
        SystemPython: it is missing, or too old.
    """
    try:
        command = [python, "-I", "-S", "-c", _ASK]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemPython(reason=f"does not run ({error})") from error
    version, tag = json.loads(done.stdout)
    if version < OLDEST:
        raise SystemPython(reason=f"is {'.'.join(map(str, version))}")
    return str(tag)


def name_of(files: dict[str, bytes], tag: str) -> str:
    """The directory for this content, compiled by this Python: VERSION-DIGEST."""
    return f"{__version__}-{digest_of(files, tag)}"


def digest_of(files: dict[str, bytes], tag: str) -> str:
    """What tells this content, compiled by this Python, from any other."""
    digest = hashlib.sha256(tag.encode())
    for path, content in sorted(files.items()):
        digest.update(f"\0{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def build(prefix: str, name: str, files: dict[str, bytes], python: str = PYTHON) -> None:
    """Make PREFIX/NAME, whole or not at all; one that is there and damaged gives way."""
    unfinished = tempfile.mkdtemp(prefix=_UNFINISHED, dir=prefix)
    for path, content in files.items():
        os.makedirs(os.path.join(unfinished, os.path.dirname(path)), 0o755, exist_ok=True)
        _write(
            os.path.join(unfinished, path), content, 0o755 if path.startswith("hooks/") else 0o644
        )
    os.chmod(unfinished, 0o755)  # noqa: S103 - mkdtemp made it private, and all may read hooks
    modules = [path for path in files if path.endswith(".py")]
    compiling = [python, "-I", "-X", "no_debug_ranges", "-c", _COMPILE, os.path.join(prefix, name)]
    subprocess.run([*compiling, *modules], check=True, cwd=unfinished)
    if os.path.lexists(os.path.join(prefix, name)):
        damaged = tempfile.mkdtemp(prefix=_UNFINISHED, dir=prefix)
        os.rename(os.path.join(prefix, name), damaged)
    os.rename(unfinished, os.path.join(prefix, name))


def _write(path: str, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, mode)
        file.flush()
        os.fsync(descriptor)


def current(prefix: str) -> str | None:
    """The version that the link names, None where there is none.

    Raises:
        BadPrefix: something else is called like the link, as in a clone.
    """
    try:
        return os.path.dirname(os.readlink(os.path.join(prefix, LINK)))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # readlink(2): it is no link
            raise
        reason = f"{LINK} in it is not our link; give a directory that is for the hooks alone"
        raise BadPrefix(prefix=prefix, reason=reason) from error


def switch(prefix: str, name: str) -> None:
    """Make the link name a version, at once."""
    temporary = os.path.join(prefix, f"{_UNFINISHED}link")
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(os.path.join(name, "hooks"), temporary)
    os.rename(temporary, os.path.join(prefix, LINK))


def versions(prefix: str) -> list[str]:
    """The directories that are versions of ours, and what an interrupted install left."""
    with os.scandir(prefix) as entries:
        directories = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(entry.name for entry in directories if _is_ours(entry))


def _is_ours(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(_UNFINISHED):
        return True
    parts = set(os.listdir(entry.path))
    return bool(_VERSION.fullmatch(entry.name)) and parts == {"hooks", "pycor_hooks"}


def remove(prefix: str, names: list[str]) -> None:
    """Remove versions."""
    for name in names:
        shutil.rmtree(os.path.join(prefix, name))
