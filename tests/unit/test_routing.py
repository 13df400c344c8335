"""Which destinations a record is for."""

from __future__ import annotations

import pytest

from walbatch.event import (
    Kind,
    Record,
    group_update,
    identity_alias,
    identity_link,
    identity_merge,
    profile_update,
    track,
)
from walbatch.routing import EVERYTHING, Filter, Router

NOW_MS = 1_700_000_000_000


def event(name: str) -> Record:
    """A small event."""
    return track(name=name, distinct_id="u1", properties={}, now_ms=NOW_MS)


PROFILE = profile_update(distinct_id="u1", operation="$set", properties={"a": 1}, now_ms=NOW_MS)
GROUP = group_update(group_key="company", group_id="1", operation="$set", properties={"a": 1}, now_ms=NOW_MS)
LINKS = [
    identity_link(identified_id="u1", anonymous_id="8a2b6f2e-6b1f-4a57-9f10-0d2a3c0f5f11", now_ms=NOW_MS),
    identity_alias(alias="new", distinct_id="u1", now_ms=NOW_MS),
    identity_merge(merged_ids=["u1", "u2"], now_ms=NOW_MS),
]


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("Signed Up", ["Signed Up"], ["signed up", "Signed Up ", " Signed Up", "Signed Up\n", "Signed"]),
        ("Purchase *", ["Purchase ", "Purchase of a.b/c", "Purchase a\nb"], ["Purchase", "A Purchase x", "purchase x"]),
        ("*", ["x", "", "a/b", ".hidden"], []),
        ("v?", ["v1", "vé", "v\n"], ["v", "v12"]),
        ("v[12]", ["v1", "v2"], ["v3", "v[12]"]),
        ("v[!1-3]", ["v4"], ["v1", "v3", "v"]),
        ("a.b+(c)|^$", ["a.b+(c)|^$"], ["axb+(c)|^$", "a.b"]),
        ("[*]", ["*"], ["x"]),
        ("a[b", ["a[b"], ["ab"]),
        ("Ærø*", ["Ærøskøbing"], ["ærøskøbing"]),
    ],
)
def test_patterns(pattern: str, matches: list[str], others: list[str]) -> None:
    """A pattern means a whole name; the letters of regular expressions are letters."""
    only, never = Filter(only=["No Such Event", pattern]), Filter(never=["No Such Event", pattern])
    for names, expected in ((matches, True), (others, False)):
        for name in names:
            assert (only.wants(Kind.EVENT, name), never.wants(Kind.EVENT, name)) == (expected, not expected), name


def test_many_stars_are_no_trap() -> None:
    """A long name is judged at once, whatever the pattern."""
    assert not Filter(only=["*a" * 30 + "b"]).wants(Kind.EVENT, "a" * 255)


def test_never_wins_over_only() -> None:
    """What is in both is kept back."""
    chosen = Filter(only=["Purchase *"], never=["Purchase Test*"])
    assert chosen.wants(Kind.EVENT, "Purchase Done")
    assert not chosen.wants(Kind.EVENT, "Purchase Tested")


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
def test_who_is_who_passes_only(link: Record) -> None:
    """A destination with a part of the events learns whose they are; `never` and `kinds` hold for that as well."""
    assert Filter(only=["Signed Up"]).wants(link.kind, link.name)
    assert not Filter(never=[link.name]).wants(link.kind, link.name)
    assert not Filter(only=["Signed Up"], never=["$*"]).wants(link.kind, link.name)
    assert not Filter(kinds=frozenset({Kind.PROFILE})).wants(link.kind, link.name)


@pytest.mark.parametrize("kind", Kind)
def test_kinds(kind: Kind) -> None:
    """A kind that is not named is kept back."""
    assert Filter(kinds=frozenset({kind})).wants(kind, "x")
    assert not Filter(kinds=frozenset(Kind) - {kind}).wants(kind, "x")


@pytest.mark.parametrize("update", [PROFILE, GROUP], ids=lambda update: update.kind.name)
def test_names_are_those_of_events(update: Record) -> None:
    """Updates have no names to choose by: neither `only` nor `never` keeps one back."""
    assert Filter(only=["Signed Up"], never=["*", "$set"]).wants(update.kind, update.name)


def test_without_filters_everything_is_for_everyone() -> None:
    """A record for all is told from one for those there are now: nothing has to be listed."""
    router = Router({"a": EVERYTHING, "b": Filter()})
    assert router.destinations(event("x")) is None
    assert Router({}).destinations(PROFILE) is None


def test_each_gets_what_its_filter_wants() -> None:
    """A record is for all, for some, or for nobody."""
    router = Router(
        {
            "all": EVERYTHING,
            "signups": Filter(only=["Signed Up"], kinds=frozenset({Kind.EVENT})),
            "quiet": Filter(never=["debug *"]),
        }
    )
    assert router.destinations(event("Signed Up")) is None
    assert router.destinations(event("Other")) == frozenset({"all", "quiet"})
    assert router.destinations(event("debug x")) == frozenset({"all"})
    assert router.destinations(PROFILE) == router.destinations(GROUP) == frozenset({"all", "quiet"})
    assert Router({"a": Filter(never=["*"])}).destinations(event("x")) == frozenset()


def test_an_event_and_an_update_of_the_same_name_are_two() -> None:
    """What was decided about one is not remembered for the other."""
    router = Router({"a": Filter(never=["$set"]), "b": EVERYTHING})
    for _ in range(2):
        assert router.destinations(PROFILE._replace(kind=Kind.EVENT)) == frozenset({"b"})
        assert router.destinations(PROFILE) is None


def test_a_copy_for_one_destination_goes_there_alone() -> None:
    """A person has chosen it, so no filter is asked; one that is not served now is owed it as well."""
    router = Router({"a": Filter(never=["*"]), "b": EVERYTHING})
    for name in ("a", "b", "elsewhere"):
        assert router.destinations(event("x")._replace(destination=name)) == frozenset({name})
