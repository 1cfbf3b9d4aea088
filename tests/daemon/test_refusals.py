# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts that are refused, as the operator sees it: `lxc start` fails, the log says why.

LXD 5.0 takes 30 s to report any failing pre-start, so they run side by side.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import mountinfo

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from lab.client import Instance
    from lab.overlays import Overlays


class Refusal(NamedTuple):
    """What to do to a stopped container called NAME, and what its log has to say then."""

    name: str
    spoil: Callable[[Overlays, Instance], None]
    says: tuple[str, ...]


def _base(name: str) -> Callable[[Overlays, Instance], None]:
    """Give the container a raw.lxc of its own, with another option for pre-start."""

    def spoil(overlays: Overlays, container: Instance) -> None:
        raw_lxc = overlays.client("profile", "get", overlays.image, "raw.lxc").stdout
        container.set(**{"raw.lxc": raw_lxc.replace("--base base", name)})

    return spoil


def _readonly(_: Overlays, container: Instance) -> None:
    container.client("config", "device", "override", container.name, "root", "readonly=true")


def _own_system(_: Overlays, container: Instance) -> None:
    os.makedirs(f"{container.rootfs}/sbin")
    with open(f"{container.rootfs}/sbin/init", "w", encoding="ascii"):
        pass


def _upper_is_a_link(_: Overlays, container: Instance) -> None:
    os.makedirs(f"{container.volume}/overlay/work")
    os.symlink("/etc", f"{container.volume}/overlay/upper")


def _clash(_: Overlays, container: Instance) -> None:
    os.mkdir(f"{container.rootfs}/bin")


REFUSALS = [
    Refusal("missing", _base("--base nobase"), ("base nobase does not exist", "create it, or")),
    Refusal("self", _base("--base self"), ("self cannot be its own base", "profile remove self")),
    Refusal("onweb", _base("--base web0"), ("base web0 is itself an overlay container",)),
    Refusal("option", _base("--bse base"), ("unknown option '--bse'", "--base [PROJECT/]NAME")),
    Refusal("readonly", _readonly, ("root disk of readonly has readonly=true", "readonly=false")),
    Refusal("own", _own_system, ("own has an operating system of its own", "sbin/init")),
    Refusal("link", _upper_is_a_link, ("overlay/upper is not a directory but a symlink",)),
    Refusal("clash", _clash, ("/bin was put into the stopped container as a directory",)),
]


def test_refusals(overlays: Overlays) -> None:
    """Each refusal is one ERROR line with cause and remedy, and leaves nothing mounted."""
    overlays.launch("web0").stop()
    refused = [overlays.init(refusal.name) for refusal in REFUSALS]
    for refusal, container in zip(REFUSALS, refused, strict=True):
        refusal.spoil(overlays, container)
    with ThreadPoolExecutor(len(refused)) as pool:
        tries = list(pool.map(_try_to_start, refused))
    for refusal, container, done in zip(REFUSALS, refused, tries, strict=True):
        assert done.returncode != 0, refusal.name
        lines = [line for line in container.log().splitlines() if " pycor-hooks - " in line]
        assert [" ERROR " in line for line in lines] == [True], (refusal.name, lines)
        for words in refusal.says:
            assert words in lines[0]
        assert not os.path.exists(container.record)
    targets = {mount.target for mount in mountinfo.read()}
    assert not targets & {container.rootfs for container in refused}


def _try_to_start(container: Instance) -> subprocess.CompletedProcess[str]:
    return container.client("start", container.name, check=False)
