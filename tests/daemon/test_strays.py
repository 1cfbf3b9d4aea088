# SPDX-License-Identifier: GPL-3.0-or-later
"""What daemon and operator put into a container from outside, while it is stopped and running."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import yaml

from lab.client import ClientError

if TYPE_CHECKING:
    from pathlib import Path

    from lab.client import Instance
    from lab.overlays import Overlays


def push(container: Instance, text: str, path: str, *flags: str) -> None:
    """``lxc file push``, from standard input, with the directories above it."""
    container.client("file", "push", "-p", *flags, "-", f"{container.name}{path}", text=text)


def stopped(overlays: Overlays, name: str, script: str = "") -> Instance:
    """A container that ran a script and was stopped."""
    container = overlays.launch(name)
    container.exec("sh", "-c", script)
    container.stop()
    container.wait("Stopped")
    return container


def edit_templates(container: Instance, path: str, template: str, rule: dict[str, object]) -> None:
    """Give a container one more template, as an operator does."""
    client = container.client
    metadata = yaml.safe_load(client("config", "metadata", "show", container.name).stdout)
    file = f"{os.path.basename(path)}.tpl"
    metadata["templates"][path] = {**rule, "template": file}
    client("config", "metadata", "edit", container.name, text=yaml.safe_dump(metadata))
    client("config", "template", "create", container.name, file)
    client("config", "template", "edit", container.name, file, text=template)


def test_what_was_pushed_into_a_stopped_container_is_there_at_its_start(
    overlays: Overlays, tmp_path: Path
) -> None:
    """New files, a tree, and one in place of another, as their owner and mode are seen inside."""
    web1 = stopped(overlays, "web1", "echo mine >/etc/mine; chmod 710 /srv; chown 1000 /srv")
    push(web1, "pushed\n", "/etc/pushed", "--uid=1000", "--gid=1001", "--mode=0640")
    push(web1, "new\n", "/etc/mine", "--mode=0644")
    push(web1, "2\n", "/usr/share/app/version", "--mode=0600")
    push(web1, "deep\n", "/var/new/deep/file", "--mode=0644")
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_text("file\n")
    (tmp_path / "tree" / "below" / "file").chmod(0o751)
    (tmp_path / "tree" / "link").symlink_to("/etc/shadow")
    web1.client("file", "push", "-r", "-p", str(tmp_path / "tree"), "web1/srv")
    web1.start()
    names = ["/etc/pushed", "/etc/mine", "/usr/share/app/version", "/var/new/deep/file"]
    assert web1.exec("cat", *names) == "pushed\nnew\n2\ndeep\n"
    names += ["/srv/tree/below/file", "/srv/tree/link", "/etc", "/usr", "/srv", "/srv/acl-file"]
    assert web1.exec("stat", "-c", "%n %u:%g %a", *names).splitlines() == [
        "/etc/pushed 1000:1001 640",
        "/etc/mine 0:0 644",
        "/usr/share/app/version 0:0 600",
        "/var/new/deep/file 0:0 644",
        "/srv/tree/below/file 0:0 751",
        "/srv/tree/link 0:0 777",
        "/etc 0:0 755",
        "/usr 0:0 755",
        "/srv 1000:0 710",
        "/srv/acl-file 0:0 640",
    ]
    assert web1.exec("readlink", "/srv/tree/link") == "/etc/shadow\n"
    assert os.listdir(web1.rootfs) == []


def test_files_of_a_running_container_are_pushed_and_pulled(
    overlays: Overlays, tmp_path: Path
) -> None:
    """``lxc file`` sees the container as it sees itself, and so does the container at once."""
    web1 = overlays.launch("web1")
    push(web1, "pushed\n", "/etc/pushed", "--uid=1000", "--gid=1000", "--mode=0640")
    push(web1, "2\n", "/usr/share/app/version")
    assert web1.exec("cat", "/usr/share/app/version") == "2\n"
    assert web1.exec("stat", "-c", "%u:%g %a", "/etc/pushed") == "1000:1000 640\n"
    for path, text in (("/etc/pushed", "pushed\n"), ("/usr/share/app/data/one", "one\n")):
        assert web1.client("file", "pull", f"web1{path}", "-").stdout == text
    web1.client("file", "pull", "-r", "web1/usr/share/app", str(tmp_path))
    assert (tmp_path / "app" / "version").read_text() == "2\n"
    assert (tmp_path / "app" / "data" / "two").read_text() == "two\n"
    web1.client("file", "delete", "web1/usr/share/app/data/one")
    assert web1.run("ls", "/usr/share/app/data/one").returncode
    assert os.listdir(web1.rootfs) == []


@pytest.mark.slow_on_lxd
def test_a_push_that_would_hide_or_leave_the_tree_is_refused(
    overlays: Overlays, tmp_path: Path
) -> None:
    """A ``bin/tool`` where /bin is a link, an etc/x where the container made a link of /etc.

    The start is refused by name, the host is untouched, and with the stray gone it starts.
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    with ThreadPoolExecutor() as pool:  # a refusal takes LXD 30 s
        tool = stopped(overlays, "tool")
        push(tool, "#!/bin/sh\n", "/bin/tool", "--mode=0755")
        hostile = stopped(
            overlays, "hostile", f"cp -a /etc /mine && rm -r /etc && ln -s {outside} /etc"
        )
        push(hostile, "x\n", "/etc/x")
        refused = list(pool.map(_refusal, (tool, hostile)))
    for (line, state), path, container in zip(
        refused, ("/bin", "/etc"), (tool, hostile), strict=True
    ):
        assert f"pre-start: {path} was put into the stopped container as a directory, " in line
        assert f"where the container has a symlink: remove it from {container.rootfs}" in line
        assert state == "Stopped"
    assert list(outside.iterdir()) == []
    for container, directory, name in ((tool, "bin", "tool"), (hostile, "etc", "x")):
        assert os.path.exists(f"{container.rootfs}/{directory}/{name}")  # nothing was lost
        for path in (f"{directory}/{name}", directory):
            container.client("file", "delete", f"{container.name}/{path}")
        container.start()
    assert tool.exec("readlink", "/bin") == "usr/bin\n"
    assert list(outside.iterdir()) == []


def _refusal(container: Instance) -> tuple[str, str]:
    """The line of ours that a refused start leaves in --show-log, and what became of it."""
    try:
        container.start()
    except ClientError:
        container.wait("Stopped")
        lines = [line for line in container.log().splitlines() if "pycor-hooks" in line]
        return lines[-1], container.status
    return "it started", container.status


def test_a_push_onto_a_link_replaces_the_link(overlays: Overlays, tmp_path: Path) -> None:
    """A file that the container made a link to the host's is written in its place, not through."""
    target = tmp_path / "target"
    target.write_text("host\n")
    web1 = stopped(overlays, "web1", f"ln -s {target} /etc/evil; ln -s . /etc/.pycor-hooks.new")
    push(web1, "pushed\n", "/etc/evil")
    web1.start()
    assert web1.exec("cat", "/etc/evil") == "pushed\n"
    assert web1.run("readlink", "/etc/evil").returncode
    assert target.read_text() == "host\n"


def test_a_create_only_template_yields_to_what_the_container_has(overlays: Overlays) -> None:
    """The daemon writes it at every start; the container's own stays, and a plain one does not.

    The daemons take a path without its first slash as well.
    """
    web1 = stopped(overlays, "web1")
    edit_templates(web1, "etc//once", "template\n", {"when": ["start"], "create_only": True})
    edit_templates(web1, "/etc/hosts", "always\n", {"when": ["start"], "create_only": False})
    web1.start()
    for once in ("template\n", "mine\n", "mine\n"):
        assert web1.exec("cat", "/etc/once", "/etc/hosts") == f"{once}always\n"
        web1.exec("sh", "-c", "echo mine | tee /etc/once >/etc/hosts")
        web1.restart(force=True)
    web1.exec("rm", "/etc/once")
    web1.restart(force=True)
    assert web1.exec("cat", "/etc/once") == "template\n"


def test_templates_make_a_container_a_being_of_its_own(overlays: Overlays) -> None:
    """After launch and after copy, hostname, hosts and machine-id are its own, and stay."""
    web1 = overlays.launch("web1")
    overlays.client("copy", "web1", "web2")
    web2 = overlays.client.instance("web2")
    web2.start()
    for container in (web1, web2):
        assert container.exec("hostname") == f"{container.name}\n"
        assert container.exec("cat", "/etc/hostname") == f"{container.name}\n"
        assert container.exec("cat", "/etc/hosts").split()[-1] == container.name
        assert container.exec("cat", "/etc/machine-id") == ""
        container.exec("sh", "-c", "echo 1 >/etc/machine-id; echo own >>/etc/hosts")
        container.restart()
        assert container.exec("cat", "/etc/machine-id") == "1\n"
        assert container.exec("tail", "-n1", "/etc/hosts") == "own\n"
