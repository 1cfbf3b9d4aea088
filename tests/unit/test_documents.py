# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents say of the commands is what the commands do."""

from __future__ import annotations

import os
import re

import pytest

from pycor_hooks import impact, stalerows, status
from pycor_hooks.cli import COMMANDS
from pycor_hooks.commands import diff, remount
from pycor_hooks.doctor import check
from tests.unit.test_hook import REPOSITORY

KEYS = {
    "status": status.KEYS,
    "stale": stalerows.KEYS,
    "remount": remount.KEYS,
    "impact": impact.KEYS,
    "diff": diff.MASKING_KEYS,
    "doctor": check.KEYS,
}


def text_of(*path: str) -> str:
    """A document of the clone."""
    with open(os.path.join(REPOSITORY, *path), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("command", KEYS)
def test_keys(command: str) -> None:
    """Whoever reads the JSON finds its keys in docs/operating.md, in their order."""
    section = text_of("docs", "operating.md").partition("## JSON")[2]
    row = re.search(rf"^\| `{command}` \| (.*) \|$", section, re.MULTILINE)
    assert row
    words = [word for part in re.findall("`([^`]+)`", row[1]) for word in part.split()]
    assert tuple(word for word in dict.fromkeys(words) if word[0] != "-") == KEYS[command]


def test_commands() -> None:
    """README has a row for each command."""
    assert set(re.findall(r"^\| `pycor-hooks (\w+)", text_of("README.md"), re.MULTILINE)) == set(
        COMMANDS
    )


@pytest.mark.parametrize(
    "document", ["README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/operating.md"]
)
def test_links(document: str) -> None:
    """Each link within the clone leads to a file, and to a heading of it."""
    directory = os.path.dirname(document)
    for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text_of(document)):
        target = os.path.join(directory, path) if path else document
        assert os.path.isfile(os.path.join(REPOSITORY, target)), path
        headings = re.findall(r"^#+ (.*)$", text_of(target), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert not heading or heading in anchors
