# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances as the host sees them without asking the daemon: paths, processes, configuration.

Imported by the hooks: standard library only. A hook never calls the daemon's API, because the
daemon is waiting for the hook.
"""

from __future__ import annotations

import os
import time

from pycor_hooks import kernel
from pycor_hooks.errors import BadName, NotAHook, UnknownLayout
from pycor_hooks.record import escape, key_of, split_key

STATE = "/var/lib/pycor-hooks"
"""What outlives a reboot, of each base: see :mod:`pycor_hooks.manifest`; root's, mode 0700."""
MANIFEST_MAGIC = "pycor-hooks-manifest-1"
_SUN_PATH = 106  # what liblxc leaves of the 108 bytes of sockaddr_un.sun_path
REAPER = 1
"""Whose child a hook is once its monitor has died."""
_TITLE = "[lxc monitor]"
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3


class Instance:
    """A container or a base: which daemon's, and where it lies.

    Attributes:
        daemon: the daemon's directory.
        project, name: as the daemon's clients know it.
    """

    __slots__ = ("daemon", "name", "project")

    def __init__(self, daemon: str, project: str, name: str) -> None:
        self.daemon = daemon
        self.project = project
        self.name = name

    @property
    def key(self) -> str:
        """The name that liblxc knows."""
        return key_of(self.project, self.name)

    @property
    def label(self) -> str:
        """The name for people: the project before it, but for the default one."""
        return self.name if self.project == "default" else f"{self.project}/{self.name}"

    @property
    def flag(self) -> str:
        """What a command of the daemon's client needs besides the name: see :func:`flag_of`."""
        return flag_of(self.project)

    def words(self) -> dict[str, str]:
        """How an error speaks of it, and a command of the daemon's client."""
        client = client_of(self.daemon)
        return {"label": self.label, "name": self.name, "flag": self.flag, "client": client}

    @property
    def link(self) -> str:
        """The daemon's symlink to the instance's volume, in whichever pool that is."""
        return f"{self.daemon}/containers/{self.key}"

    def volume(self) -> str:
        """The real path of the instance's volume; it need not exist.

        Raises:
            OSError: it cannot be told. Without ``strict`` every error is taken for a path's end.
        """
        try:
            return os.path.realpath(self.link, strict=True)
        except (FileNotFoundError, NotADirectoryError):
            return os.path.realpath(self.link)

    def rootfs(self) -> str:
        """The real path of the instance's rootfs; it need not exist."""
        return f"{self.volume()}/rootfs"

    def running(self) -> bool:
        """Whether the instance's [lxc monitor] lives: whether it listens on liblxc's socket.

        Any user of the host may listen on such a name and hold off every refresh: only a socket
        of our own user's, root's, counts.
        """
        try:
            found = kernel.listener(command_socket(self._lxcpath, self.key))
        except BlockingIOError:
            return self.monitor() > 0
        return found is not None and found[1] == os.geteuid()

    def monitor(self) -> int:
        """The pid of the instance's [lxc monitor], 0 where it has none that can be seen from here.

        Slow: it is found by its title. Who listens on its socket was started before it, and is
        gone (lxcapi_start of liblxc listens, and forks then).
        """
        return _monitor_of(self._lxcpath, self.key)

    @property
    def _lxcpath(self) -> str:
        return f"{self.daemon}/containers"


def flag_of(project: str) -> str:
    """What to append to a command for people, so that it means that project."""
    return "" if project == "default" else f" --project {project}"


def command_socket(lxcpath: str, key: str) -> bytes:
    """The abstract address of liblxc's command socket (lxc_make_abstract_socket_name).

    Args:
        lxcpath: the directory that holds the daemon's containers.
        key: the container's name as liblxc knows it.
    """
    path = os.fsencode(f"{lxcpath}/{key}/command")
    if len(path) >= _SUN_PATH:
        path = b"lxc/%016x/command" % _fnv1a(os.fsencode(f"{lxcpath}/{key}"))
    return b"\0" + path


def _monitor_of(lxcpath: str, key: str) -> int:
    """The process of our own user's that has the title which liblxc gives a monitor, or 0.

    A container can give its processes any title, but they are not in our pid namespace.
    """
    title = os.fsencode(f"{_TITLE} {lxcpath} {key}\0")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if is_ours(pid) and read_of(pid, "cmdline", len(title)) == title:
            return int(pid)
    return 0


def is_ours(pid: str) -> bool:
    """Whether a process is our own user's, in the pid and the user namespace that we are in.

    What any other says of itself (its name, its command line, what it listens on) proves nothing:
    it may be a container's, or some user's of the host.
    """
    own = b"\nUid:\t%d\t" % os.getuid()
    try:
        same = all(
            os.path.samefile(f"/proc/{pid}/ns/{kind}", f"/proc/self/ns/{kind}")
            for kind in ("pid", "user")
        )
    except OSError:  # it is gone
        return False
    return same and own in read_of(pid, "status")


def read_of(pid: int | str, name: str, most: int = 128 * 1024) -> bytes:
    """What /proc says of a process, nothing where it is gone.

    Args:
        pid: of the process.
        name: of the file.
        most: bytes to read: a process can call all that it has mapped its command line
            (PR_SET_MM_MAP of prctl(2)).
    """
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def _fnv1a(data: bytes) -> int:
    value = _FNV_OFFSET
    for octet in data:
        value = ((value ^ octet) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value


def from_environment(environ: dict[str, str], monitor: int = 0) -> tuple[Instance, str]:
    """The container that a hook was called for, and its rootfs.

    The daemons resolve links in a rootfs, and not in the directory that liblxc listens below, and
    that their socket is in: where theirs is reached by a link it is the monitor's title that says
    by which.

    Args:
        environ: with liblxc's LXC_NAME and LXC_ROOTFS_PATH (lxc.container.conf(5), "HOOKS").
        monitor: pid of the hook's parent, 0 where there is none to be asked.

    Raises:
        NotAHook: one of them is not set.
        UnknownLayout: the rootfs is not where LXD and Incus keep one.
    """
    for variable in ("LXC_NAME", "LXC_ROOTFS_PATH", "LXC_CONFIG_FILE"):
        if not environ.get(variable):
            raise NotAHook(variable=variable)
    path = environ["LXC_ROOTFS_PATH"]
    rootfs = path.removeprefix("dir:")
    parts = rootfs.split("/")
    if parts[-5:-4] != ["storage-pools"] or parts[-3::2] != ["containers", "rootfs"]:
        raise UnknownLayout(path=path)
    daemon = "/".join(parts[:-5])
    called = _titled(monitor, environ["LXC_NAME"])
    if called not in {"", daemon} and os.path.realpath(called) == daemon:
        daemon = called
    return Instance(daemon, *split_key(environ["LXC_NAME"])), rootfs


def _titled(monitor: int, key: str) -> str:
    """The state directory that the title of a monitor names, "" where it has no such title."""
    title = os.fsdecode(read_of(monitor, "cmdline", 4096).partition(b"\0")[0])
    lxcpath, _, name = title.removeprefix(f"{_TITLE} ").rpartition(" ")
    known = title.startswith(_TITLE) and name == key and lxcpath.endswith("/containers")
    return lxcpath.removesuffix("/containers") if known else ""


def parse_base(text: str, container: Instance) -> Instance:
    """The base that ``--base`` names, in the container's daemon, and its project by default.

    Raises:
        BadName: the text is not ``NAME`` or ``PROJECT/NAME``.
    """
    project, slash, name = text.rpartition("/")
    if not slash:
        project = container.project
    if not _is_name(name) or not project or "/" in project or project in {".", ".."}:
        raise BadName(name=text)
    return Instance(container.daemon, project, name)


def _is_name(name: str) -> bool:
    return name.isascii() and name.replace("-", "a").isalnum()


def client_of(daemon: str) -> str:
    """The client for a daemon's users, for remedies: lxc or incus."""
    return "incus" if os.path.exists(f"{daemon}/guestapi") else "lxc"


def process_start(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is gone or a zombie.

    Pid and start time together name a process for good (proc_pid_stat(5), fields 3 and 22).
    One whose first thread has ended looks like a zombie and lives while it has others (field 20):
    an init may do so on purpose.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    ended = fields[0] in {b"Z", b"X"} and int(fields[17]) <= 1
    return 0 if ended else int(fields[19])


def time_of(start: int) -> float:
    """Seconds since the epoch for a process's start in clock ticks since boot; 0 for none."""
    if not start:
        return 0.0
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + start / os.sysconf("SC_CLK_TCK")


def process_alive(pid: int, start: int) -> bool:
    """Whether the process that had this pid and this start time still runs."""
    return pid > 0 and start > 0 and process_start(pid) == start


def identity_of(rootfs: str) -> str:
    """What makes a base's rootfs this very tree, owned by these ids.

    Returns:
        ``DEV:INO:BTIME:UID:HANDLE``. It changes when the tree is replaced (btrfs snapshot
        restored, base deleted and made anew) or re-owned, and not when files in it change.
        On btrfs the handle alone does: a subvolume made from the same image has the same
        inode and birth, and takes the device number of the one that was deleted.

    Raises:
        FileNotFoundError: there is none.
    """
    stat = kernel.statx(rootfs)
    handle = kernel.file_handle(rootfs).hex()
    return f"{stat.dev}:{stat.ino}:{stat.btime_ns}:{stat.uid}:{handle}"


def identity_now(rootfs: str) -> str | None:
    """What :func:`identity_of` says; None where there is no such tree."""
    try:
        return identity_of(rootfs)
    except (FileNotFoundError, NotADirectoryError):
        return None


def state_of(daemon: str, key: str) -> str:
    """The directory below STATE for what is kept of a base."""
    return f"{STATE}/{escape(daemon)}/{key}"


def generation_of(daemon: str, key: str, identity: str) -> int | None:
    """Which generation a base is in: it grows by one whenever the base stops changed.

    Args:
        daemon, key: the base's.
        identity: of its rootfs, see :func:`identity_of`.

    Returns:
        What the first line of its manifest says; None where there is no manifest yet, or that of
        another tree.
    """
    try:
        descriptor = os.open(f"{state_of(daemon, key)}/manifest", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(descriptor, 1024).partition(b"\n")[0].decode("ascii", "replace")
    finally:
        os.close(descriptor)
    words = line.split(" ")
    known = len(words) == 3 and words[0] == MANIFEST_MAGIC  # noqa: PLR2004
    return int(words[1]) if known and same_tree(words[2], identity) else None


def same_tree(one: str, other: str) -> bool:
    """Whether two identities are those of one tree, with a reboot between them or not.

    Some file systems, btrfs among them, have another device number after each.
    """
    return one.partition(":")[2] == other.partition(":")[2]


class Config:
    """What the hooks need of LXC_CONFIG_FILE.

    A newline alone ends a line: that is the one character which the daemons keep out of what
    anybody who may edit an instance can write there (``environment.NAME``).

    Attributes:
        idmap: the values of its ``lxc.idmap`` lines; one without a value takes back those before
            it (lxc.container.conf(5)).
        readonly: whether the daemon asked for a read-only rootfs.
    """

    __slots__ = ("idmap", "readonly")

    def __init__(self, text: str) -> None:
        self.idmap: list[str] = []
        self.readonly = False
        for line in text.split("\n"):
            name, _, value = line.partition("=")
            name = name.strip()
            value = value.strip()
            if name == "lxc.idmap":
                self.idmap = [*self.idmap, value] if value else []
            elif name == "lxc.rootfs.options" and "ro" in value.split(","):
                self.readonly = True
