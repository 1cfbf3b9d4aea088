# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts of a container, run as liblxc runs them, up to one hook; what follows; what must hold.

For faults: a case brings a container to where one of its hooks is due, runs that with a fault in
it, goes on as liblxc, an operator or the watcher would, and looks at what is left.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from pycor_hooks import attributes, instance, journal, kernel, mountinfo, parents
from pycor_hooks.watcher import once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from lab.liblxc import Container

    After: TypeAlias = Callable[[Container, str], None]

HOST_ROOT = 100000
IDMAP = tuple(f"{kind} 0 {HOST_ROOT} 65536" for kind in "ug")
OWN = "written by the container\n"

# -- what a container is like when its hook is due


def new(web: Container) -> None:
    """Templates lie in its bare rootfs; all else is as it was."""
    os.makedirs(f"{web.rootfs}/etc/new.d")
    os.chmod(f"{web.rootfs}/etc/new.d", 0o2750)
    _write(f"{web.rootfs}/etc/hostname", "web\n")
    os.symlink("hostname", f"{web.rootfs}/etc/new.d/link")


def left_behind(web: Container) -> None:
    """An earlier start of it was killed before start-host, after it had run for a while."""
    if not os.path.exists(f"{web.upper}/etc/own"):
        started(web)
        web.stop()
    assert web.pre_start() == 0, web.log()
    web.kill_monitor()


def bound(web: Container) -> None:
    """Its pre-start has run."""
    new(web)
    assert web.pre_start() == 0, web.log()
    web.init = subprocess.Popen(["/bin/sleep", "infinity"])


def started(web: Container) -> None:
    """It runs, and has written something."""
    new(web)
    web.start()
    assert [mount.target for mount in web.overlays()] == [web.merged]
    with as_its_root(web):
        _write(f"{web.merged}/etc/own", OWN)


@contextlib.contextmanager
def as_its_root(web: Container) -> Iterator[None]:
    """Have what this thread writes be owned by the container's root."""
    root = HOST_ROOT if web.idmap else 0
    kernel.set_fs_ids(root, root)
    try:
        yield
    finally:
        kernel.set_fs_ids(0, 0)


def ended(web: Container) -> None:
    """It has run, and its init is dead."""
    started(web)
    web.kill_init()


def cured(web: Container) -> None:
    """As :func:`ended`, after a cure that has copied directories up."""
    started(web)
    _copy_up(web, "usr", "usr/bin")
    web.kill_init()


def half_cured(web: Container, *, dies: bool = True) -> None:
    """Its monitor was killed, and itself, when a cure was between the two unlinks of a file.

    Args:
        web: not started yet.
        dies: whether its init was killed, too.
    """
    started(web)
    _copy_up(web, "usr", "usr/bin")
    assert web.init is not None
    book = journal.Journal(f"{web.volume}/overlay")
    intent = journal.Intent(
        init=web.init.pid,
        init_start=instance.process_start(web.init.pid),
        ours=True,
        paths=["usr/bin/tool"],
        times={"usr/bin": os.stat(f"{web.upper}/usr/bin").st_mtime_ns},
    )
    book.prepare(intent)
    book.arm()
    book.close()
    os.unlink(f"{web.merged}/usr/bin/tool")
    if dies:
        web.kill_init()
    web.kill_monitor()


def _copy_up(web: Container, *directories: str) -> None:
    """Have directories of the base in upper, as a cure leaves them."""
    known = parents.Parents(f"{web.volume}/overlay")
    for path in directories:
        os.utime(f"{web.merged}/{path}")
    for path in directories:
        descriptor = os.open(f"{web.upper}/{path}", os.O_RDONLY | os.O_DIRECTORY)
        known.add(path, attributes.of(descriptor))
        os.close(descriptor)
    known.save()


class Case(NamedTuple):
    """A hook, what its container is like when it is due, and where its monitor is.

    ``apart``: in a mount namespace of the daemon's own.
    """

    hook: str
    state: Callable[[Container], None]
    apart: bool = False

    def __str__(self) -> str:
        return f"{self.hook}-{self.state.__name__}" + ("-apart" if self.apart else "")

    @property
    def wrote(self) -> bool:
        """Whether the container has written something by then."""
        return self.state in {left_behind, ended, cured, half_cured}


CASES = [
    Case("pre-start", new),
    Case("pre-start", left_behind),
    Case("start-host", bound),
    Case("stop", ended),
    Case("post-stop", ended),
    Case("pre-start", new, apart=True),
    Case("start-host", bound, apart=True),
]
MORE = [
    Case("pre-start", half_cured),
    Case("stop", cured),
    Case("post-stop", cured),
    Case("pre-start", half_cured, apart=True),
    Case("stop", ended, apart=True),
    Case("post-stop", ended, apart=True),
]
ORDER = ["pre-start", "start-host", "stop", "post-stop"]


def run(web: Container, hook: str, before: list[str]) -> int:
    """Run a hook with a command before it; its exit status."""
    command, env = web.command(hook, *(["--base", web.base] if hook == "pre-start" else []))
    web.monitor = web.monitor or web.new_monitor()
    return web.monitor.run(" ".join([*before, *command]), env)


# -- what comes next


def go_on(web: Container, hook: str) -> None:
    """What liblxc does after a hook that succeeded: the rest of the container's life."""
    for following in ORDER[ORDER.index(hook) + 1 :]:
        if following == "start-host":
            web.init = subprocess.Popen(["/bin/sleep", "infinity"])
        elif following == "stop":
            web.kill_init()
        assert web.hook(following) == 0, web.log()


def post_stop(web: Container, hook: str) -> None:
    """What liblxc does after a hook that failed; after post-stop, the operator's next start."""
    web.kill_init()
    if hook != "post-stop":
        assert web.hook("post-stop") == 0, web.log()


def next_start(web: Container, hook: str) -> None:
    """Nothing, as when the monitor was killed too; then an operator starts it."""
    del hook
    web.kill_init()
    web.kill_monitor()


def watcher(web: Container, hook: str) -> None:
    """The monitor was killed too, and the watcher looks."""
    next_start(web, hook)
    assert once([web.daemon]) == 0


# -- what must hold


def left(web: Container) -> list[str]:
    """What is still mounted or recorded of it."""
    ours = (f"{web.directory}/", web.rootfs)
    mounts = [f"mount: {m.target}" for m in mountinfo.read() if m.target.startswith(ours)]
    mounts += [f"mount of the daemon's: {target}" for target in web.mounts_elsewhere()]
    if os.path.lexists(web.directory):
        mounts += [f"state: {web.directory}/{name}" for name in [".", *os.listdir(web.directory)]]
    return mounts


def lost(web: Container, *, own: bool) -> list[str]:
    """What is not as it should be of what was in its bare rootfs, and of what it wrote.

    Args:
        web: is stopped, and has been started since it got what is in its bare rootfs.
        own: whether it wrote something.
    """
    etc = f"{web.upper}/etc"
    elsewhere = [
        file for top, _, files in os.walk(web.upper) for file in files if not top.startswith(etc)
    ]
    names = {"hostname", "new.d"} | ({"own"} if own else set())
    owners = {path: os.lstat(f"{etc}/{path}").st_uid for path in ("", *names, "new.d/link")}
    found = {
        etc: set(os.listdir(etc)),
        "hostname": _read(f"{etc}/hostname"),
        "link": os.readlink(f"{etc}/new.d/link"),
        "new.d": (os.listdir(f"{etc}/new.d"), stat.S_IMODE(os.stat(f"{etc}/new.d").st_mode)),
        "owners": owners,
        "rootfs": os.listdir(web.rootfs),
        "elsewhere": elsewhere,
        "volume": set(os.listdir(web.volume)),
        "overlay": set(os.listdir(f"{web.volume}/overlay")),
    }
    wanted = {
        etc: names,
        "hostname": "web\n",
        "link": "hostname",
        "new.d": (["link"], 0o2750),
        "owners": dict.fromkeys(owners, 0),  # stored by the base's ids
        "rootfs": [],
        "elsewhere": [],
        "volume": {"overlay", "rootfs"},
        "overlay": {"upper", "work"},
    }
    if own:
        found["own"], wanted["own"] = _read(f"{etc}/own"), OWN
    return [
        f"{key}: {found[key]} is not {wanted[key]}" for key in wanted if found[key] != wanted[key]
    ]


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
