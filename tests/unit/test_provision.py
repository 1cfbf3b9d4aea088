# SPDX-License-Identifier: GPL-3.0-or-later
"""Profile and image in a daemon, and what stands in the way, on the API's fake."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pycor_hooks import (
    client,
    generations,
    host_errors,
    profile,
    provision,
    rawlxc,
    record,
    systemd,
    uninstall,
)
from pycor_hooks.client import Connection
from pycor_hooks.sockets import Daemon
from tests.unit.fake_api import FakeApi, Project, instance
from tests.unit.fake_api import profile as api_profile
from tests.unit.fake_daemon import BadDaemon, mute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pycor_hooks.errors import PycorError

PREFIX = "/opt/hooks"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    """A daemon whose default project has a base named base."""
    with FakeApi(str(tmp_path)) as fake:
        fake.default.instances["base"] = instance()
        yield fake


def ensure(
    api: FakeApi, base: str = "base", name: str = "overlay", project: str = "default"
) -> list[str]:
    """Make profile and image, as the command does."""
    with Connection(api.daemon, project) as connection:
        return list(provision.ensure(connection, provision.Wish(name, base, PREFIX)))


def image_of(project: Project, alias: str = "overlay") -> dict[str, Any]:
    """The image that an alias stands for."""
    found: dict[str, Any] = project.images[project.aliases[alias]["target"]]
    return found


def test_all_of_it(api: FakeApi) -> None:
    """Profile, image, alias and the base's protection are made, and each is told in a line."""
    lines = ensure(api)
    assert len(lines) == 3
    made = api.default.profiles["overlay"]
    assert rawlxc.base(made["config"]["raw.lxc"]) == "base"
    assert image_of(api.default)["profiles"] == ["default", "overlay"]
    assert api.default.instances["base"]["config"] == {
        "security.protection.delete": "true",
        "boot.autostart": "false",
    }
    assert "security.protection.delete=true" in lines[2]


def test_twice(api: FakeApi) -> None:
    """The second time nothing is changed, and nothing said."""
    ensure(api)
    before = api.changes
    assert ensure(api) == []
    assert api.changes == before


def test_new_metadata(api: FakeApi) -> None:
    """When the base's templates change, the image is replaced and the old one deleted."""
    ensure(api)
    old = image_of(api.default)
    base = api.default.instances["base"]
    base["metadata"]["templates"] = {"/etc/motd": {"when": ["create"], "template": "motd"}}
    base["templates"]["motd"] = "hello"
    assert len(ensure(api)) == 1
    new = image_of(api.default)
    assert list(api.default.images.values()) == [new]
    assert new["fingerprint"] != old["fingerprint"]
    with tarfile.open(fileobj=io.BytesIO(new["content"])) as archive:
        motd = archive.extractfile("templates/motd")
        assert motd is not None
        assert motd.read() == b"hello"


def test_interrupted(api: FakeApi) -> None:
    """An image that was imported and then left without profiles and alias is finished."""
    ensure(api)
    image_of(api.default)["profiles"] = ["default"]
    del api.default.aliases["overlay"]
    ensure(api)
    assert image_of(api.default)["profiles"] == ["default", "overlay"]


def test_own_settings_stay(api: FakeApi) -> None:
    """An update writes raw.lxc anew, and leaves what an operator added."""
    ensure(api)
    config = api.default.profiles["overlay"]["config"]
    config["limits.cpu"] = "2"
    config["raw.lxc"] = config["raw.lxc"].replace(PREFIX, "/old") + "lxc.cap.drop = sys_time\n"
    assert len(ensure(api)) == 1
    config = api.default.profiles["overlay"]["config"]
    assert f"{PREFIX}/hooks/post-stop\nlxc.cap.drop = sys_time\n" in config["raw.lxc"]
    assert config["limits.cpu"] == "2"


def test_base_may_come_later(api: FakeApi) -> None:
    """`install` makes an image for a base that does not exist yet, and says what to do then."""
    del api.default.instances["base"]
    wish = provision.Wish("overlay", "base", PREFIX)
    with Connection(api.daemon) as connection:
        lines = list(provision.ensure(connection, wish, base_optional=True))
    assert lines[-1].endswith(f": pycor-hooks profile --base base --prefix {PREFIX}")
    with tarfile.open(fileobj=io.BytesIO(image_of(api.default)["content"])) as archive:
        member = archive.extractfile("metadata.yaml")
        assert member is not None
        metadata = yaml.safe_load(member.read())
    assert metadata["architecture"] == "x86_64"
    assert "/etc/machine-id" in metadata["templates"]


def test_base_is_away(api: FakeApi) -> None:
    """Where the base is gone for a while, `install` leaves the image that knows its templates."""
    ensure(api)
    before = image_of(api.default)
    del api.default.instances["base"]
    wish = provision.Wish("overlay", "base", PREFIX)
    with Connection(api.daemon) as connection:
        assert len(list(provision.ensure(connection, wish, base_optional=True))) == 1
    assert image_of(api.default) == before


def test_base_in_another_project(api: FakeApi) -> None:
    """PROJECT/NAME is looked up in that project, and protected there."""
    api.projects["shop"] = Project()
    lines = ensure(api, base="default/base", project="shop")
    assert f"{api.daemon.directory} project shop: profile overlay created" in lines[0]
    raw_lxc = api.projects["shop"].profiles["overlay"]["config"]["raw.lxc"]
    assert rawlxc.base(raw_lxc) == "default/base"
    assert api.default.instances["base"]["config"]["boot.autostart"] == "false"
    assert "overlay" not in api.default.profiles


def test_project_without_own_profiles(api: FakeApi) -> None:
    """Where the default project's profiles are used, the profile is made there, the image here."""
    api.projects["shop"] = Project(**{"features.profiles": "false"})
    ensure(api, base="default/base", project="shop")
    assert "overlay" in api.default.profiles
    assert image_of(api.projects["shop"])["properties"]["pycor-hooks"] == "default/overlay"


def test_project_without_own_images(api: FakeApi) -> None:
    """Where images are shared, an alias that another project's profile has is not taken over."""
    api.projects["shop"] = Project(**{"features.images": "false"})
    ensure(api)
    with pytest.raises(host_errors.ForeignImage, match=r"profile default/overlay.*--name"):
        ensure(api, base="default/base", project="shop")
    ensure(api, base="default/base", project="shop", name="shop")
    assert image_of(api.default, "shop")["profiles"] == ["default", "shop"]


def restricted(api: FakeApi) -> None:
    """Forbid raw.lxc in the default project."""
    api.default.config["restricted"] = "true"


def foreign_profile(api: FakeApi) -> None:
    """Have somebody else make a profile named overlay."""
    api.default.profiles["overlay"] = api_profile("overlay")


def foreign_image(api: FakeApi) -> None:
    """Have somebody else make an image with the alias overlay."""
    api.default.images["f00"] = {"fingerprint": "f00", "properties": {}, "profiles": ["default"]}
    api.default.aliases["overlay"] = {"name": "overlay", "target": "f00"}


def used_for_another_base(api: FakeApi) -> None:
    """Have containers stand on another base through the profile."""
    made = profile.body(prefix=PREFIX, base="other")["config"]
    found = api.default.profiles["overlay"] = api_profile("overlay", **made)
    found["used_by"] = ["/1.0/instances/web1", "/1.0/instances/web2?project=shop"]


@pytest.mark.parametrize(
    ("arrange", "error", "words"),
    [
        (restricted, host_errors.Restricted, "lxc project set default restricted"),
        (foreign_profile, host_errors.ForeignProfile, "--name"),
        (foreign_image, host_errors.ForeignImage, "--name"),
        (used_for_another_base, host_errors.ProfileHasOtherBase, "web1, shop/web2 on base other"),
    ],
)
def test_refused(api: FakeApi, arrange: Any, error: type[PycorError], words: str) -> None:
    """What is not ours, or not allowed, is named with the way out, and nothing is changed."""
    arrange(api)
    with pytest.raises(error) as caught:
        ensure(api)
    assert words in str(caught.value)
    assert api.changes == 0


def test_the_same_base_in_other_words(api: FakeApi) -> None:
    """A base written with its project is no other base for the containers of that project."""
    ensure(api)
    api.default.profiles["overlay"]["used_by"] = ["/1.0/instances/web1"]
    ensure(api, base="default/base")
    api.default.profiles["overlay"]["used_by"] += ["/1.0/instances/web2?project=a%20b"]
    with pytest.raises(host_errors.ProfileHasOtherBase, match="puts a b/web2 on base default/bas"):
        ensure(api)


@pytest.mark.parametrize(
    ("version", "kind", "missing"),
    [
        ("5.0.2", "lxd", " restricted.virtual-machines.lowlevel=allow"),
        ("5.21.2", "lxd", " restricted.virtual-machines.lowlevel=allow"),
        ("6.1", "lxd", " restricted.virtual-machines.lowlevel=allow"),
        ("5.21.3", "lxd", None),
        ("6.2", "lxd", None),
        ("6.0.4", "incus", None),
    ],
)
def test_low_level_options_of_machines(
    api: FakeApi, version: str, kind: str, missing: str | None
) -> None:
    """Older versions of LXD allow raw.lxc in a profile only where VMs may have the like."""
    api.default.config |= {"restricted": "true", "restricted.containers.lowlevel": "allow"}
    with Connection(api.daemon) as connection:
        connection.daemon = Daemon(kind, api.daemon.directory)
        connection.server["environment"]["server_version"] = version
        if missing is None:
            provision.check_project(connection)
        else:
            with pytest.raises(host_errors.Restricted, match=f"project set default{missing}$"):
                provision.check_project(connection)


OVERLAY = {"raw.lxc": "lxc.hook.pre-start = /x/hooks/pre-start --base deeper\n"}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"type": "virtual-machine"}, host_errors.BaseIsVm, "virtual machine"),
        ({"expanded_config": OVERLAY}, host_errors.BaseOnBase, "name deeper"),
    ],
)
def test_unfit_bases(
    api: FakeApi, changes: dict[str, Any], error: type[PycorError], words: str
) -> None:
    """A virtual machine, or a container that is itself on a base, is no base."""
    api.default.instances["base"] = instance(**changes)
    with pytest.raises(error) as caught:
        ensure(api)
    assert words in str(caught.value)
    assert api.changes == 0


@pytest.mark.parametrize("driver", ["zfs", "lvm", "ceph", "yet-unknown"])
def test_unfit_pools(api: FakeApi, driver: str) -> None:
    """A base on a pool that is not mounted while it is stopped: driver and remedy are named."""
    api.pools["pool"] = driver
    with pytest.raises(host_errors.BasePool) as caught:
        ensure(api)
    assert driver in str(caught.value)
    assert "lxc storage create bases dir; lxc move base -s bases" in str(caught.value)


def test_missing_base(api: FakeApi) -> None:
    """A base that does not exist is named with project and daemon."""
    with pytest.raises(host_errors.NoBase, match=r"no instance default/nope.*--base"):
        ensure(api, base="nope")


@pytest.mark.parametrize("arguments", [{"project": "nope"}, {"base": "nope/base"}])
def test_missing_project(api: FakeApi, arguments: dict[str, str]) -> None:
    """A project that does not exist is named."""
    with pytest.raises(host_errors.NoProject, match="no project nope"):
        ensure(api, **arguments)


def test_daemon_refuses(api: FakeApi) -> None:
    """What a daemon refuses is told in its own words."""
    api.errors["images"] = "quota exceeded"
    with pytest.raises(host_errors.DaemonRefused, match="quota exceeded"):
        ensure(api)


def test_operation_fails(api: FakeApi) -> None:
    """An operation that ends with an error is an error."""
    ensure(api)
    content = image_of(api.default)["content"]
    already = pytest.raises(host_errors.DaemonRefused, match="already exists")
    with Connection(api.daemon) as connection, already:
        connection.post("images", data=content)


def test_nobody_answers(tmp_path: Path) -> None:
    """Where no daemon listens, its directory and the reason are named."""
    with pytest.raises(host_errors.Unreachable, match=f"{tmp_path}.*No such file or directory"):
        Connection(Daemon("lxd", str(tmp_path)))


def test_removed(api: FakeApi) -> None:
    """Uninstalling removes the profiles and images of ours, in all projects, and no others."""
    api.projects["shop"] = Project()
    api.projects["sub"] = Project(**{"features.profiles": "false", "features.images": "false"})
    foreign_image(api)
    ensure(api, name="mine")
    ensure(api, base="default/base", project="shop")
    with Connection(api.daemon) as connection:
        lines = list(uninstall.remove_from(uninstall.projects_of(connection)))
    assert list(api.default.profiles) == list(api.projects["shop"].profiles) == ["default"]
    assert list(api.default.images) == ["f00"]
    assert not api.projects["shop"].images
    assert sum("deleted" in line for line in lines) == 4
    assert "config unset base security.protection.delete" in lines[-2]
    assert "config unset base boot.autostart" in lines[-1]


def test_not_removed_while_used(api: FakeApi) -> None:
    """Uninstalling is refused, with their names, while containers use a profile of ours."""
    ensure(api)
    api.default.profiles["overlay"]["used_by"] = ["/1.0/instances/web2?project=shop"]
    before = api.changes
    refused = pytest.raises(host_errors.InUse, match=f"shop/web2 .{api.daemon.directory}. use")
    with Connection(api.daemon) as connection, refused:
        uninstall.check_unused(uninstall.projects_of(connection))
    assert api.changes == before


def test_nothing_is_removed_where_the_hooks_are_not_ours(api: FakeApi, tmp_path: Path) -> None:
    """A prefix with something else in it, as a clone, is refused before anything is gone."""
    ensure(api)
    clone = tmp_path / "clone"
    (clone / "hooks").mkdir(parents=True)
    with pytest.raises(host_errors.BadPrefix):
        list(uninstall.uninstall(str(clone), [api.daemon]))
    assert [path.name for path in clone.iterdir()] == ["hooks"]
    assert "overlay" in api.default.profiles


@pytest.mark.parametrize("known", ["by its bases", "by the watcher"])
def test_nothing_is_removed_under_a_daemon_that_was_not_asked(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """Containers of another daemon may use the hooks: it is named, unless it is gone."""
    ensure(api)
    other = tmp_path / "other-lxd"
    bases = [record.escape(str(other))] if known == "by its bases" else []
    monkeypatch.setattr(generations, "daemons", lambda: bases)
    monkeypatch.setattr(systemd, "watched", lambda: [] if bases else [str(other)])
    uninstall.check_asked([api.daemon])
    other.mkdir()
    uninstall.check_asked([api.daemon, Daemon("lxd", str(other))])
    before = api.changes
    with pytest.raises(host_errors.NotAsked, match=f"--daemon {other}"):
        list(uninstall.uninstall(str(tmp_path / "prefix"), [api.daemon]))
    assert api.changes == before


def test_removed_though_the_base_s_project_is_gone(api: FakeApi) -> None:
    """A base in a project that was deleted needs no protection any more."""
    ensure(api)
    found = api.default.profiles["overlay"]["config"]
    found["raw.lxc"] = found["raw.lxc"].replace("--base base", "--base gone/base")
    with Connection(api.daemon) as connection:
        list(uninstall.remove_from([connection]))
    assert list(api.default.images) == []


def test_a_daemon_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that accepts and does not answer is given up, and named."""
    monkeypatch.setattr(client, "ANSWER", 0.2)
    with (
        BadDaemon(str(tmp_path), mute) as fake,
        pytest.raises(host_errors.Unreachable, match="timed out"),
    ):
        Connection(fake.daemon)


def test_own_settings_are_not_removed(api: FakeApi) -> None:
    """A profile to which an operator added something stays, and is named."""
    ensure(api)
    api.default.profiles["overlay"]["config"]["limits.cpu"] = "2"
    with Connection(api.daemon) as connection:
        lines = list(uninstall.remove_from([connection]))
    assert "overlay" in api.default.profiles
    assert any("lxc profile delete overlay" in line for line in lines)
