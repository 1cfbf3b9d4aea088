# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said once, and again only when it has changed."""

from __future__ import annotations

import pytest

from pycor_hooks.news import News


@pytest.mark.parametrize(
    ("texts", "new"),
    [
        (["broken"], [True]),
        (["broken", "broken"], [True, False]),
        (["broken", "worse", "broken"], [True, True, True]),
        (["broken", "", "broken"], [True, False, True]),
        (["", "", "broken"], [False, False, True]),
    ],
)
def test_new_is_what_differs_from_the_last(texts: list[str], new: list[bool]) -> None:
    """The same again is no news, unless all was well between; that all is well is none either."""
    news = News()
    assert [news.is_new("base", text) for text in texts] == new


def test_each_subject_has_news_of_its_own() -> None:
    """What was said of one subject was not said of another."""
    news = News()
    assert news.is_new("base", "broken")
    assert news.is_new("debian", "broken")


def test_what_is_not_kept_is_new_again() -> None:
    """Of what is kept the last word is known; of all others nothing is."""
    news = News()
    for subject in ("base", "debian"):
        news.is_new(subject, "broken")
    news.keep(["base", "never heard of"])
    assert not news.is_new("base", "broken")
    assert news.is_new("debian", "broken")
