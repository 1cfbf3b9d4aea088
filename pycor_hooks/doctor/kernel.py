# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel and the file system of a pool can do, found out by doing it.

The very code of the hooks mounts (`overlay.mount`), on the pool itself, since it is the file
system that lacks one thing or another: no upper without user.* attributes or whiteouts, no
idmapped layer where it knows none.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pycor_hooks import idmap, overlay
from pycor_hooks.doctor import scratch
from pycor_hooks.doctor.check import FAIL, OK, WARN, Check, refused
from pycor_hooks.errors import NoIdmappedMounts, PycorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pycor_hooks.overlay import Layers

# As of an unprivileged container: 65,536 ids from 100,000 on.
_IDS = ["b 0 100000 65536"]
_HOST = 100000
_SOME_USER = 33


def check(places: Iterable[str]) -> Iterator[Check]:
    """Try an overlay, a refresh and idmapped layers.

    Args:
        places: a directory on each file system to try, where only root can write.
    """
    for place in places:
        try:
            with scratch.directory(place) as path:
                yield from scratch.apart(lambda: _try_all(place, path))  # noqa: B023 - run now
        except OSError as error:
            yield Check(
                "overlay",
                place,
                FAIL,
                f"nothing can be made there to try it ({error.strerror})",
                "see to it that the file system can be written and has room",
            )


def _try_all(place: str, path: str) -> Iterator[Check]:
    trials: dict[str, Callable[[str], str]] = {
        "overlay": try_overlay,
        "refresh": try_refresh,
        "idmapped layers": try_idmap,
    }
    for name, trial in trials.items():
        directory = f"{path}/{name.partition(' ')[0]}"
        os.mkdir(directory)
        try:
            yield Check(name, place, OK, trial(directory))
        except (Wrong, OSError) as error:
            remedy = "see the kernel log (dmesg), or try another file system"
            yield Check(name, place, FAIL, str(error), remedy)
        except NoIdmappedMounts as error:
            yield refused(name, place, error, WARN)
        except PycorError as error:
            yield refused(name, place, error)


class Wrong(Exception):
    """A trial went another way than it has to."""


def try_overlay(directory: str) -> str:
    """Mount one and write to it: copy-up, whiteout, opaque directory.

    Returns:
        What was seen.

    Raises:
        PycorError: it cannot be mounted.
        Wrong: it does not do what it should.
    """
    lower, upper, merged = _layers(directory)
    _write(f"{lower}/changed", "base")
    _write(f"{lower}/deleted", "base")
    os.mkdir(f"{lower}/emptied")
    overlay.mount(_plain(directory), merged)
    _write(f"{merged}/changed", "container")
    os.unlink(f"{merged}/deleted")
    os.rmdir(f"{merged}/emptied")
    os.mkdir(f"{merged}/emptied")
    if (_read(f"{lower}/changed"), _read(f"{upper}/changed")) != ("base", "container"):
        raise Wrong("what the container wrote is not in upper alone")
    if os.path.exists(f"{merged}/deleted") or os.stat(f"{upper}/deleted").st_rdev:
        raise Wrong("a deleted file of the base left no whiteout in upper")
    if "user.overlay.opaque" not in os.listxattr(f"{upper}/emptied"):
        raise Wrong("a directory made anew is not marked opaque in user.overlay.opaque")
    return "mounted; copy-up, whiteout and opaque mark are as they have to be"


def try_refresh(directory: str) -> str:
    """Change the lower tree below a mounted overlay, and refresh it.

    Raises:
        PycorError, Wrong: as :func:`try_overlay`.
    """
    lower, _, merged = _layers(directory)
    _write(f"{lower}/replaced", "old")
    _write(f"{lower}/gone", "old")
    overlay.mount(_plain(directory), merged)
    seen = _read(f"{merged}/replaced"), _read(f"{merged}/gone"), os.path.exists(f"{merged}/new")
    _write(f"{lower}/new", "new")
    os.rename(f"{lower}/new", f"{lower}/replaced")
    os.rename(f"{lower}/gone", f"{lower}/new")
    overlay.refresh(merged)
    if seen != ("old", "old", False) or sorted(os.listdir(merged)) != ["new", "replaced"]:
        raise Wrong("the base is not seen as it is")
    if (_read(f"{merged}/replaced"), _read(f"{merged}/new")) != ("new", "old"):
        raise Wrong("after a refresh replaced files of the base keep their old content")
    if os.path.exists(f"{merged}/gone"):
        raise Wrong("after a refresh deleted files of the base are still there")
    return "files replaced, added and deleted below a mounted overlay are seen after a refresh"


def try_idmap(directory: str) -> str:
    """Mount one whose layers are stored as 0 and seen as 100000.

    Raises:
        NoIdmappedMounts: it cannot be had here.
        PycorError, Wrong: as :func:`try_overlay`.
    """
    lower, upper, merged = _layers(directory)
    _write(f"{lower}/file", "base")
    os.chown(f"{lower}/file", _SOME_USER, _SOME_USER)
    layer_map = idmap.from_config(_IDS).layer(0)
    layers = _plain(directory)
    layers.lower_map = layers.upper_map = layer_map
    layers.fs_ids = (_HOST, _HOST)
    overlay.mount(layers, merged)
    os.chmod(f"{merged}/file", 0o600)
    owners = [os.stat(f"{place}/file").st_uid for place in (merged, upper)]
    if owners != [_HOST + _SOME_USER, _SOME_USER]:
        raise Wrong(f"ids are not mapped: user {_SOME_USER} became {owners[0]}, then {owners[1]}")
    return "the ids of both layers are mapped, and kept when a file is copied up"


def _layers(directory: str) -> tuple[str, str, str]:
    """Make lower, upper and merged."""
    names = ("lower", "volume", "volume/upper", "volume/work", "merged", "staging")
    for name in names:
        os.mkdir(f"{directory}/{name}")
    return f"{directory}/lower", f"{directory}/volume/upper", f"{directory}/merged"


def _plain(directory: str) -> Layers:
    return overlay.Layers(
        lowerdirs=[f"{directory}/lower"],
        base_key="",
        volume=f"{directory}/volume",
        lower_map=None,
        upper_map=None,
        fs_ids=(0, 0),
        staging=f"{directory}/staging",
    )


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
