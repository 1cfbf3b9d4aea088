# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of the mount table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycor_hooks.mountinfo import Mount, escape_layer, split_layers, unescape

LINE = (
    r"49 27 0:42 / /run/my\040dir/merged rw,relatime shared:7 master:1 - overlay pycor-hooks "
    r"rw,lowerdir=/a\134\054b\134:c\134\134d\040e/l1:/l2,upperdir=/u,workdir=/w,userxattr"
)


def test_a_line_with_optional_fields_and_escapes() -> None:
    """All fields are found whatever stands between options and the dash."""
    mount = Mount(LINE)
    assert (mount.mount_id, mount.device, mount.root) == (49, "0:42", "/")
    assert mount.target == "/run/my dir/merged"
    assert (mount.fstype, mount.source, mount.shared) == ("overlay", "pycor-hooks", True)


def test_layers_as_the_kernel_shows_them() -> None:
    """Commas, colons and backslashes in paths survive both kinds of escapes."""
    mount = Mount(LINE)
    assert mount.layers("lowerdir") == ["/a,b:c\\d e/l1", "/l2"]
    assert mount.layers("upperdir") == ["/u"]
    assert mount.layers("nosuch") == []


def test_a_mount_that_is_not_shared() -> None:
    """Being a slave alone is not being shared."""
    assert not Mount("1 2 3:4 / / rw master:1 - ext4 /dev/sda rw").shared


@pytest.mark.parametrize("line", ["", "1 2 3", "1 2 3:4 / / rw - ext4", "x 2 3:4 / / rw - a b c"])
def test_a_line_that_is_none_is_a_value_error(line: str) -> None:
    """What the kernel never writes is not taken for a mount."""
    with pytest.raises(ValueError, match=r".*"):
        Mount(line)


@given(st.text(alphabet=st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_a_path_survives_the_options_of_the_mount(path: str) -> None:
    """What is escaped for mount(2) is split into the same path again."""
    assert split_layers(escape_layer(path) + ":" + escape_layer(path)) == [path, path]


@pytest.mark.parametrize("field", [r"\189", r"\400", r"\1", "\\1²0", "\\"])
def test_what_is_no_escape_stays(field: str) -> None:
    """Three octal digits of one byte are an escape, and nothing else is."""
    assert unescape(field) == field


@given(st.text())
def test_unescape_never_fails(field: str) -> None:
    """Backslashes that are no octal escape stay."""
    assert "\\" in field or unescape(field) == field
    unescape(field)
