"""What a destination quotes of records is taken out of its words."""

from __future__ import annotations

import json

import pytest

from walbatch.sinks.quotes import unquoted

EVENT = json.dumps(
    {
        "event": "Signed Up",
        "properties": {
            "distinct_id": "ada@example.com",
            "plan": "pro",
            "phone": 15551234567,
            "score": 12.75,
            "address": {"street": "Ærøgade 5", "tags": ["secret tag"]},
            "trial": True,
            "referrer": None,
        },
    }
)
UPDATE = json.dumps({"$distinct_id": "grace", "$time": 1764000000000, "$set": {"email": "grace@example.com"}})
GROUP = json.dumps({"$group_key": "company", "$group_id": "acme-corp", "$union": {"cities": ["Århus"]}})

SENTENCES = {
    "an id": ("no user ada@example.com here", "no user … here"),
    "a text": ("street 'Ærøgade 5' is unknown", "street '…' is unknown"),
    "a text in a list": ("bad: secret tag", "bad: …"),
    "a whole number": ("15551234567 is no phone", "… is no phone"),
    "another number": ("score 12.75", "score …"),
    "a longer one with a shorter in it": ("grace@example.com of grace", "… of …"),
    "a group": ("acme-corp in Århus", "… in …"),
    "more than one": ("ada@example.com and grace", "… and …"),
    "names": ("event Signed Up: property phone of $set", "event Signed Up: property phone of $set"),
    "what is too short to be told from a word": ("program pro is not true", "program pro is not true"),
    "nothing": ("too many requests", "too many requests"),
    "nothing at all": ("", ""),
}


@pytest.mark.parametrize(("said", "left"), SENTENCES.values(), ids=SENTENCES)
def test_values_go_and_words_stay(said: str, left: str) -> None:
    """Ids and values of properties become a mark, at any depth and of every kind of record; names stay."""
    assert unquoted(said, [EVENT, UPDATE, GROUP]) == left


def test_values_of_other_requests_are_not_known() -> None:
    """It looks at the records of this request."""
    assert unquoted("no user grace", [EVENT]) == "no user grace"
