# SPDX-License-Identifier: GPL-3.0-or-later
"""`pycor-hooks remount`, and `watch --once`, on a real daemon without a watcher."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab import live
from lab.daemon import POOL
from lab.overlays import make_base
from pycor_hooks import kernel
from pycor_hooks.plan import label
from tests.daemon.test_update import APP, of, publish, seen, start_release

if TYPE_CHECKING:
    from lab.overlays import Overlays

# What is written behind the command, and whose overlays are refreshed then, or what is said.
FORMS: list[tuple[tuple[str, ...], list[str]]] = [
    (("web1",), ["web1"]),
    (("blue/web1", "web2"), ["blue/web1", "web2"]),
    (("--base", "base"), ["blue/web1", "web1", "web2"]),
    (("--base", "default/second"), ["web3"]),
    (("web1", "--base", "second"), ["web1", "web3"]),
    (("--all",), ["blue/web1", "web1", "web2", "web3"]),
]
NONE: list[tuple[tuple[str, ...], int, str]] = [
    (("web1", "nobody"), 1, "no live overlay of nobody: names are NAME or PROJECT/NAME"),
    (("--base", "blue/base"), 1, "there is no container blue/base in "),
    ((), 2, "for which containers: name some, or give --base NAME, or --all by itself"),
    (("web1", "--all"), 2, "for which containers: name some"),
]


def _remount(overlays: Overlays, *words: str) -> tuple[int, dict[str, tuple[str, str | None]]]:
    """The exit status of `remount`, and (result, reason) by the name of the container."""
    done = overlays.pycor_hooks("remount", "--format=json", *words, check=False)
    results = {
        label(row["project"], row["name"]): (row["result"], row["reason"])
        for row in json.loads(done.stdout)
    }
    return done.returncode, results


def test_forms(overlays: Overlays) -> None:
    """Exactly what was named is refreshed: by name, by base, all; a wrong word refreshes none."""
    client = overlays.client
    client("project", "create", "blue")
    blue = client.in_project("blue")
    blue("profile", "device", "add", "default", "root", "disk", "path=/", f"pool={POOL}")
    second = make_base(client, "busybox", "second")
    profile = ("profile", "--prefix", overlays.prefix)
    overlays.pycor_hooks(*profile, "--base", "default/base", "--project", "blue")
    overlays.pycor_hooks(*profile, "--base", second.name)
    containers = {
        "blue/web1": blue.launch("overlay", "web1"),
        "web1": overlays.launch("web1"),
        "web2": overlays.launch("web2"),
        "web3": client.launch("overlay-second", "web3"),
    }
    paths = {f"{container.record}/state": name for name, container in containers.items()}
    for words, names in FORMS:
        refreshes = live.Refreshes(list(containers.values()))
        assert _remount(overlays, *words) == (
            0,
            dict.fromkeys(sorted(names), ("refreshed", None)),
        ), words
        assert {paths[path] for path in refreshes.missing()} == set(containers) - set(names)

    refreshes = live.Refreshes(list(containers.values()))
    for words, code, said in NONE:
        done = overlays.pycor_hooks("remount", *words, check=False)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
    assert len(refreshes.missing()) == len(containers)


@pytest.mark.updates_base
def test_what_containers_see(overlays: Overlays) -> None:
    """The base as it is when it is stopped; while it runs it is pending, with exit status 1."""
    web1, web2 = (overlays.launch(name) for name in ("web1", "web2"))
    assert seen(web1) == seen(web2) == "1\n"
    publish(overlays.base, 1)
    assert _remount(overlays, "web1") == (0, {"web1": ("refreshed", None)})
    assert (seen(web1), seen(web2)) == (of(1), "1\n")

    start_release(overlays.base, 2)
    refreshes = live.Refreshes([web1, web2])
    reason = "base base runs: its overlays are refreshed when it has stopped"
    assert _remount(overlays, "--all") == (
        1,
        {"web1": ("pending", reason), "web2": ("pending", reason)},
    )
    assert len(refreshes.missing()) == 2
    overlays.base.stop()
    overlays.base.wait("Stopped")

    kernel.umount(web2.merged, kernel.MNT_DETACH)
    reason = f"it is not mounted at {web2.merged} any more: restart container web2"
    assert _remount(overlays, "--all") == (
        1,
        {"web1": ("refreshed", None), "web2": ("failed", reason)},
    )
    assert seen(web1) == of(2)


@pytest.mark.host_s_mounts
@pytest.mark.updates_base
def test_watch_once_without_the_daemon(overlays: Overlays) -> None:
    """`watch --once` needs no daemon, and sees to changes that none announces."""
    web1 = overlays.launch("web1")
    assert seen(web1) == "1\n"
    overlays.daemon.stop()
    try:
        version = f"{overlays.base.rootfs}{APP}/fresh-1"
        with open(version, "w", encoding="ascii") as file:
            file.write("fresh 1\n")
        done = overlays.pycor_hooks("watch", "--once")
    finally:
        overlays.daemon.start()
    assert done.stdout == ""
    assert seen(web1) == "1\nfresh 1\n"
