# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a parser is given, it gives an answer or an error that has a name.

The inputs are those that somebody else writes: the kernel on behalf of whoever mounts or names a
process, the daemon on behalf of whoever may edit an instance, an operator with an editor.
Pieces that mean something are mixed with any text, since neither alone gets far.
"""

from __future__ import annotations

import ctypes
import json
import os
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pycor_hooks import (
    events,
    hook,
    hooklog,
    idmap,
    instance,
    mountinfo,
    plan,
    profile,
    rawlxc,
    record,
    status,
)
from pycor_hooks.errors import (
    BadName,
    BadState,
    NotAHook,
    UnknownLayout,
    UnknownOption,
    UsageError,
    printable,
)
from pycor_hooks.live import BaseState
from pycor_hooks.strays import create_only_paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.tally import Tally

_PR_SET_NAME = 15

# What os.fsdecode makes of any bytes: surrogates where they are not UTF-8.
decoded = st.binary(max_size=40).map(os.fsdecode)
anything = st.one_of(st.text(max_size=40), decoded)


def assert_shown_without_harm(error: Exception) -> None:
    """An error reaches a terminal or a log as one line of plain characters."""
    assert str(error).isprintable()


def pieces(*known: str) -> st.SearchStrategy[str]:
    """Text of known pieces and others, in any order."""
    return st.lists(st.one_of(st.sampled_from(known), anything), max_size=12).map("".join)


mount_lines = pieces(
    *("36 35 98:0 / /run/pycor-hooks/x/web1/merged rw shared:1 - overlay pycor-hooks rw,"),
    *("lowerdir=/a:/b,upperdir=/u", " - ", " ", "\\040", "\\134", "\\", "\\189", "\\777", ","),
    *("1", "0:42", "/", "upperdir=", "\\1²0", "shared:", "x"),
)


@given(line=mount_lines)
def test_mountinfo(line: str, tally: Tally) -> None:
    """A line of the mount table is a mount, or a ValueError."""
    with tally.injected("fuzz: a line of the mount table"):
        try:
            mount = mountinfo.Mount(line)
        except ValueError:
            return
        for option in ("lowerdir", "upperdir"):
            assert all(isinstance(path, str) for path in mount.layers(option))


@given(field=pieces("\\", "\\189", "\\1²0", "\\777", "\\040", "\\12", "\\134134"))
def test_escapes_of_the_mount_table(field: str, tally: Tally) -> None:
    """Whatever a field holds, its escapes are undone, and what is none stays."""
    with tally.injected("fuzz: escapes of the mount table"):
        shown = os.fsdecode(field.encode(errors="replace"))
        assert mountinfo.unescape(shown.replace("\\", "\\134")) == shown
        mountinfo.unescape(shown)


@given(path=decoded.filter(lambda path: "\n" not in path))
def test_paths_in_the_mount_table(path: str, tally: Tally) -> None:
    """A path comes back as it was given to mount(2), through both kinds of escapes."""
    with tally.injected("fuzz: a path in the mount table"):
        shown = "".join(
            f"\\{ord(c):03o}" if c in " \t\n\\#," else c for c in mountinfo.escape_layer(path)
        )
        mount = mountinfo.Mount(f"1 2 0:3 / /m rw - overlay x rw,upperdir={shown},workdir=/w")
        assert mount.layers("upperdir") == [path]


config_lines = pieces(
    *(
        "lxc.idmap",
        "lxc.log.file",
        "lxc.rootfs.options",
        " = ",
        "=",
        "\n",
        "ro",
        "idmap=container",
    ),
    *("u 0 100000 65536", "g 0 100000 65536", "b 0 -1 0", "lxc.environment = A=", "\r", "\v", "#"),
)


@given(text=config_lines)
def test_lxc_config_file(text: str, tally: Tally) -> None:
    """Any text is a configuration, and every value stands in a line that a newline ends."""
    with tally.injected("fuzz: LXC_CONFIG_FILE"):
        config = instance.Config(text)
        lines = [line.strip() for line in text.split("\n")]
        log = hooklog.log_file(text)
        for name, values in (("lxc.idmap", config.idmap), ("lxc.log.file", [log])):
            for value in filter(None, values):
                assert any(line.startswith(name) and line.endswith(value) for line in lines), (
                    name,
                    value,
                )


@given(
    values=st.lists(
        pieces("u", "g", "b", " ", "0", "100000", "65536", "-1", "4294967295"), max_size=4
    ),
    owner=st.integers(0, 2**32 - 2),
)
def test_idmap(values: list[str], owner: int, tally: Tally) -> None:
    """Lines of an id map are a map, or a ValueError; a map gives each layer one."""
    with tally.injected("fuzz: lxc.idmap"):
        try:
            ids = idmap.from_config(values)
        except ValueError:
            return
        for text in ids.layer(owner) or ():
            assert all(len(line.split()) == 3 for line in text.splitlines())


@given(
    name=anything,
    path=pieces("dir:", "/var/lib/lxd", "/storage-pools", "/containers", "/p", "/web1", "/rootfs"),
    words=st.lists(st.one_of(st.sampled_from(["--base", "--base=", "base"]), anything)),
)
def test_a_hook_s_words(name: str, path: str, words: list[str], tally: Tally) -> None:
    """Environment and options of a hook are understood, or refused by name."""
    with tally.injected("fuzz: a hook's environment and options"):
        environ = {"LXC_NAME": name, "LXC_ROOTFS_PATH": path, "LXC_CONFIG_FILE": "/x"}
        try:
            container, rootfs = instance.from_environment(environ)
            assert rootfs.startswith(f"{container.daemon}/storage-pools/")
            options = hook.parse_options("pre-start", words)
            base = instance.parse_base(options["--base"], container)
        except (NotAHook, UnknownLayout, UnknownOption, BadName):
            return
        assert base.link.startswith(f"{container.daemon}/containers/")
        assert "/" not in base.key
        assert base.key not in {".", ".."}


names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True)
projects = st.one_of(st.just("default"), st.text(min_size=1, max_size=10))


@given(project=projects.filter(lambda project: "/" not in project), name=names)
def test_keys(project: str, name: str, tally: Tally) -> None:
    """Liblxc's name of an instance tells project and name again."""
    with tally.injected("fuzz: names of instances"):
        assert record.split_key(record.key_of(project, name)) == (project, name)


@given(text=st.one_of(anything, pieces("\\x2d", "\\x", "-", "\\", "\\xzz", "..")))
def test_names_below_run(text: str, tally: Tally) -> None:
    """Any file name is some daemon's directory; any directory comes back from its name."""
    with tally.injected("fuzz: names below /run"):
        try:
            path = "/" + os.fsdecode(os.fsencode(text)).strip("/")
        except UnicodeEncodeError:
            return
        assert record.unescape(text).startswith("/")
        if "//" not in path:
            assert record.unescape(record.escape(path)) == path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in the place of /run/pycor-hooks."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "RUN", str(directory))
        yield directory


def sample(name: str) -> record.Record:
    """A record."""
    texts = dict.fromkeys(("base_project", "base_name", "upperdir", "workdir", "rootfs"), "x")
    numbers = dict.fromkeys(("monitor", "monitor_start", "init", "init_start"), 1)
    return record.Record(
        daemon="/var/lib/lxd",
        project="default",
        name=name,
        lowerdirs=["/pool/base\n/rootfs"],
        lower_identity="1:2",
        started_at=1795490340.25,
        **texts,
        **numbers,
    )


file_names = decoded.filter(
    lambda name: name not in {"", ".", ".."} and not set(name) & set("/\0_")
)
garbling = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 6),
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from([b"\\", b"\\9", b"\\777", b"\n", b"inf", b"nan", b"=", b"1e999"]),
        ),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.usefixtures("run")
@given(name=file_names, changes=garbling)
def test_state_files(name: str, changes: list[tuple[int, int, bytes]], tally: Tally) -> None:
    """A garbled state file is a record that every command can show, or a BadState."""
    with tally.injected("fuzz: a state file"):
        one = sample(name)
        os.makedirs(one.directory, exist_ok=True)
        one.write()
        with open(one.state_path, "r+b") as file:
            content = file.read()
            for start, length, text in changes:
                content = content[:start] + text + content[start + length :]
            file.seek(0)
            file.truncate()
            file.write(content)
        try:
            found = record.read(one.directory)
        except BadState as error:
            assert_shown_without_harm(error)
            return
        finally:
            os.unlink(one.state_path)
            os.rmdir(one.directory)
        bases = {base: BaseState(running=False, identity=None) for base in plan.by_base([found])}
        (row,) = status.rows(status.Seen([found], {}, bases, dict.fromkeys(bases), frozenset()))
        assert json.loads(json.dumps(row)) == row


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), anything),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(anything, inner)),
    max_leaves=5,
)
sources = pieces("/1.0/", "instances", "containers", "/", "web1", "?project=", "blue", "%2F", "[")
event_metadata = st.fixed_dictionaries(
    {"action": st.sampled_from([*events.ACTIONS, "instance-exec"]), "source": sources},
    optional={
        "name": json_values,
        "project": json_values,
        "context": st.one_of(json_values, st.fixed_dictionaries({"old_name": json_values})),
    },
)
messages = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("lifecycle"), "metadata": st.one_of(event_metadata, json_values)},
        optional={"location": json_values, "project": json_values},
    ).map(json.dumps),
    st.fixed_dictionaries({"type": json_values}).map(json.dumps),
    json_values.map(json.dumps),
    st.text(),
    st.binary(),
    pieces('{"type":', '"lifecycle"', ",", "}", "[" * 2000, '"metadata":{', '"action":'),
)


@given(message=messages)
def test_events(message: str | bytes, tally: Tally) -> None:
    """A message is an event, of no concern, or malformed, and then shown without harm."""
    with tally.injected("fuzz: an event"):
        try:
            event = events.parse(message)
        except events.MalformedEvent as error:
            assert_shown_without_harm(error)
            return
        if event is not None:
            assert isinstance(event.name, str)
            plan.react(event, "/var/lib/lxd", ())


raw_lxc = pieces(
    *("lxc.hook.pre-start", " = ", "=", "/usr/local/lib/pycor-hooks", "/hooks/pre-start", "\n"),
    *(" --base ", "--base=", "base", "blue/base", "lxc.rootfs.options =", "'", '"', "\v", "\r\n"),
)


@given(old=raw_lxc)
def test_raw_lxc(old: str, tally: Tally) -> None:
    """Whatever an operator wrote stays, below what is ours, however often it is written anew."""
    with tally.injected("fuzz: raw.lxc"):
        base = rawlxc.base(old)
        assert base is None or _unquoted(base) in _unquoted(old)
        ours = rawlxc.pre_start(old)
        assert ours is None or _unquoted(ours.prefix) in _unquoted(old)
        plan.profiles_naming(
            plan.Base("/d", "default", "base"),
            [("default", {"name": "overlay", "config": {"raw.lxc": old}})],
        )
        new = profile.body(prefix="/p", base="base")["config"]["raw.lxc"]
        merged = profile.merge(old, new)
        assert merged.startswith(new)
        assert rawlxc.base(new) == "base"
        assert profile.foreign_lines(merged) == profile.foreign_lines(old)
        assert profile.merge(merged, new) == merged


def _unquoted(text: str) -> str:
    """Without what a shell takes away."""
    return text.translate(str.maketrans("", "", "'\"\\"))


@given(text=st.one_of(anything, pieces("base", "/", "default", "..", "_", " ", "$(x)", "\n")))
def test_names_on_the_command_line(text: str, tally: Tally) -> None:
    """What can stand in raw.lxc, which liblxc gives to a shell, or a refusal."""
    with tally.injected("fuzz: names on the command line"):
        for check in (profile.check_base, profile.check_name):
            try:
                accepted = check(text)
            except UsageError as error:
                assert_shown_without_harm(error)
            else:
                assert not set(accepted) & set(" \t\n\v\"'$`\\;&|<>()#")


paths = st.from_regex(r"/?[A-Za-z0-9._/-]{1,20}", fullmatch=True)


@given(templates=st.dictionaries(paths, st.tuples(st.booleans(), names)), flow=st.binary())
def test_create_only_paths(
    templates: dict[str, tuple[bool, str]],
    flow: bytes,
    tally: Tally,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What is read without a YAML parser is what a YAML parser reads, and garbage is nothing."""
    with tally.injected("fuzz: metadata.yaml"):
        volume = tmp_path_factory.getbasetemp()
        rules = {
            path: {"when": ["create"], "create_only": only, "template": file}
            for path, (only, file) in templates.items()
        }
        text = yaml.safe_dump({"templates": rules, "properties": {"os": "x"}})
        (volume / "metadata.yaml").write_text(text)
        expected = {
            os.path.normpath("/" + path.lstrip("/"))
            for path, (only, _) in templates.items()
            if only
        }
        assert create_only_paths(str(volume)) == expected
        (volume / "metadata.yaml").write_bytes(flow)
        assert all(path.startswith("/") for path in create_only_paths(str(volume)))


@given(text=st.text())
def test_printable(text: str, tally: Tally) -> None:
    """What is shown holds nothing that a terminal or a log acts on."""
    with tally.injected("fuzz: text to show"):
        assert printable(text).isprintable()


@given(name=st.one_of(st.binary(max_size=15), st.sampled_from([b") Z 1 1", b"a) R (b) "])))
def test_names_of_processes(name: bytes, tally: Tally) -> None:
    """A process may call itself what it likes, and is the same process still."""
    with tally.injected("fuzz: the name of a process"):
        libc = ctypes.CDLL(None)
        before = instance.process_start(os.getpid())
        with open("/proc/self/comm", "rb") as file:
            own = file.read().rstrip(b"\n")
        libc.prctl(_PR_SET_NAME, name, 0, 0, 0)
        found = instance.process_start(os.getpid())
        libc.prctl(_PR_SET_NAME, own, 0, 0, 0)
        assert found == before
