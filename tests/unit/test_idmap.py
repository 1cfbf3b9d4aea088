# SPDX-License-Identifier: GPL-3.0-or-later
"""Id maps as pure values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycor_hooks import idmap

UNPRIVILEGED = ["u 0 100000 65536", "g 0 100000 65536"]


def test_a_layer_stored_with_the_host_s_ids_needs_no_map() -> None:
    """Where the base's owner is the container's root already, nothing is mapped."""
    assert idmap.from_config(UNPRIVILEGED).layer(100000) is None


def test_an_unshifted_layer_is_mapped_to_the_container() -> None:
    """On-disk id to host id, in the form of uid_map."""
    text = "0 100000 65536\n"
    assert idmap.from_config(UNPRIVILEGED).layer(0) == (text, text)


def test_a_shifted_layer_for_a_privileged_container_ends_where_ids_end() -> None:
    """The extent is cut off at the last id that there is."""
    uids, _ = idmap.from_config([]).layer(100000) or ("", "")
    stored, host, count = (int(word) for word in uids.split())
    assert (stored, host) == (100000, 0)
    assert stored + count == 4294967295


def test_users_and_groups_may_differ() -> None:
    """raw.idmap for a user alone leaves the groups as they are."""
    uids = ["u 0 100000 1000", "u 1000 1000 1", "u 1001 101001 64535"]
    assert idmap.from_config([*uids, "g 0 100000 65536"]).layer(0) == (
        "0 100000 1000\n1000 1000 1\n1001 101001 64535\n",
        "0 100000 65536\n",
    )


def test_a_hole_at_the_root_is_told() -> None:
    """An id that no extent holds has no host id."""
    ids = idmap.from_config(["u 1 100001 10", "b 20 200000 1"])
    assert (ids.uid(0), ids.uid(10), ids.uid(11), ids.gid(20)) == (None, 100010, None, 200000)


@pytest.mark.parametrize("line", ["", "u 0", "x 0 1 2", "u a b c", "u 0 1 2 3"])
def test_a_line_of_another_form_is_a_value_error(line: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r".*"):
        idmap.from_config([line])


@given(
    owner=st.integers(0, 2**32 - 2),
    inside=st.integers(0, 2**32 - 2),
    host=st.integers(0, 2**32 - 2),
    count=st.integers(1, 2**32 - 1),
)
def test_no_map_leaves_the_ids_that_there_are(
    owner: int, inside: int, host: int, count: int
) -> None:
    """Whatever the container's map is, a layer's map never reaches past the last id."""
    mapped = idmap.from_config([f"b {inside} {host} {count}"]).layer(owner)
    for line in (mapped or ("", ""))[0].splitlines():
        first, to, length = (int(word) for word in line.split())
        assert length >= 1
        assert max(first, to) + length <= 2**32 - 1
