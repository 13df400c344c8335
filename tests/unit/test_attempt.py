"""One batch's way to a destination: what is sent again in parts, and what becomes of each record."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch.attempt import GUESSED_BYTES, Attempt
from walbatch.delivery import DELIVERED, RETRY, Answer, Hold, Outcome, Pause, Rejected, Settled, Split, Unknown
from walbatch.event import Kind, profile_update
from walbatch.testing.sink import Answering, ScriptedSink, accept

REFUSED = Split(400, "there is something bad in it")


def refusing(bad: set[str], answer: Split = REFUSED) -> Answering:
    """A destination that refuses a request as a whole for one bad record in it."""

    def judge(kind: Kind, payloads: Sequence[str]) -> Answer:
        return answer if bad.intersection(payloads) else accept(kind, payloads)

    return judge


def update(operation: str, number: int) -> str:
    """The payload of a profile update."""
    value = {"n": 1} if operation != "$delete" else {}
    return profile_update(distinct_id=f"u{number}", operation=operation, properties=value, now_ms=10**12).payload


async def attempt(
    script: Answering | Sequence[Answer | Answering], payloads: Sequence[str], *, kind: Kind = Kind.EVENT, **how: bool
) -> tuple[list[Outcome], list[list[str]], Attempt]:
    """Send payloads once: what became of them, what was sent, and the attempt."""
    sink = ScriptedSink(script)
    attempt = Attempt(sink, kind, payloads, **how)
    await attempt.run()
    return attempt.outcomes, [list(call.payloads) for call in sink.calls], attempt


@given(st.integers(1, 300), st.data())
async def test_one_bad_record_is_found_within_the_promised_requests(count: int, data: st.DataObject) -> None:
    """2 log2(n) + 1 requests at most, for every n and every place; all others are delivered, once each."""
    payloads = [str(n) for n in range(count)]
    place = data.draw(st.integers(0, count - 1))
    outcomes, sent, _ = await attempt(refusing({payloads[place]}), payloads)
    assert len(sent) <= 2 * math.log2(count) + 1
    wanted: list[Outcome] = [DELIVERED] * count
    wanted[place] = Rejected(400, "", REFUSED.reason)
    assert outcomes == wanted


@given(st.integers(1, 60), st.data())
async def test_all_bad_records_are_found_and_no_others(count: int, data: st.DataObject) -> None:
    """However many are bad, each is asked about alone before it is given up, and none is delivered twice."""
    payloads = [str(n) for n in range(count)]
    bad = set(data.draw(st.lists(st.sampled_from(payloads))))
    sink = ScriptedSink(refusing(bad))
    attempt = Attempt(sink, Kind.EVENT, payloads)
    await attempt.run()
    assert [isinstance(outcome, Rejected) for outcome in attempt.outcomes] == [one in bad for one in payloads]
    assert all([one] in [list(call.payloads) for call in sink.calls] for one in bad)
    assert sorted(sink.delivered) == sorted(set(payloads) - bad)


async def test_an_outage_in_the_middle_keeps_what_is_known() -> None:
    """What was answered before is settled; the rest stays pending, and nothing more is sent."""
    outcomes, sent, done = await attempt([REFUSED, accept, Hold("503")], list("abcd"))
    assert outcomes == [DELIVERED, DELIVERED, RETRY, RETRY]
    assert sent == [list("abcd"), list("ab"), ["c"]]
    assert done.answer == Hold("503")


async def test_a_pause_in_the_middle_stops_it_as_well() -> None:
    """Wrong credentials are no verdict on a record."""
    outcomes, sent, _ = await attempt([REFUSED, Pause("401")], list("abcd"))
    assert outcomes == [RETRY] * 4
    assert len(sent) == 2


@pytest.mark.parametrize("count", [1, 3])
async def test_an_answer_about_another_number_of_records_is_a_mistake(count: int) -> None:
    """Nobody can say whom it is about, so nothing is settled by it."""

    class Miscounting(ScriptedSink):
        async def send(self, kind: Kind, payloads: Sequence[str]) -> Answer:
            del kind, payloads
            return Settled([DELIVERED] * count)

    sent = Attempt(Miscounting(), Kind.EVENT, ["a", "b"])
    with pytest.raises(ValueError, match="one outcome for each record"):
        await sent.run()
    assert sent.outcomes == [RETRY] * 2


async def test_what_is_too_large_is_cut_at_the_limit_that_was_named() -> None:
    """Each piece fits: payloads, commas and brackets together."""
    payloads = ["x" * 100 for _ in range(100)]
    outcomes, sent, done = await attempt([Split(413, "too large", max_bytes=1000)], payloads)
    assert outcomes == [DELIVERED] * 100
    assert [len(part) for part in sent] == [100, *[9] * 11, 1]
    assert all(len(f"[{','.join(part)}]") <= 1000 for part in sent[1:])
    assert done.max_bytes == 1000


async def test_what_is_too_large_without_a_limit_is_halved() -> None:
    """A page of HTML with 413 names nothing: the guess is half, but never a tiny limit for all that comes."""
    payloads = ["x" * 1000 for _ in range(100)]
    html = Split(413, "Request Entity Too Large")
    outcomes, sent, done = await attempt([html], payloads)
    assert outcomes == [DELIVERED] * 100
    assert [len(part) for part in sent] == [100, 49, 49, 2]
    assert done.max_bytes == GUESSED_BYTES


async def test_a_record_that_is_too_large_by_itself_is_refused_alone() -> None:
    """The others arrive."""
    payloads = ["small", "x" * 5000, "small too"]
    outcomes, _, _ = await attempt(refusing({payloads[1]}, Split(413, "too large", max_bytes=1000)), payloads)
    assert outcomes == [DELIVERED, Rejected(413, "", "too large"), DELIVERED]


@pytest.mark.parametrize("limit", [1, 10**9])
async def test_a_limit_that_makes_no_sense_does_not_stop_it(limit: int) -> None:
    """One byte, or more than was refused: in the end every record is asked about, and the request count is bounded."""
    outcomes, sent, _ = await attempt(refusing({"b"}, Split(413, "too large", max_bytes=limit)), list("abcdefgh"))
    assert outcomes == [DELIVERED, Rejected(413, "", "too large"), *[DELIVERED] * 6]
    assert len(sent) <= 9


class TestUnknownOutcomes:
    """Updates that count twice when they are sent twice, and answers that do not say whether they arrived."""

    PAYLOADS = tuple(update(operation, n) for n, operation in enumerate(("$set", "$add", "$unset", "$append")))
    LOST = Hold("no complete answer within 30 s", unknown=True)

    async def test_they_are_held_under_that_policy(self) -> None:
        """Only they: what can be repeated stays pending."""
        outcomes, _, _ = await attempt([self.LOST], self.PAYLOADS, kind=Kind.PROFILE, hold_unknown=True)
        held = Unknown(self.LOST.reason)
        assert outcomes == [RETRY, held, RETRY, held]

    async def test_they_are_sent_again_under_the_other(self) -> None:
        """At least once is the default."""
        outcomes, _, _ = await attempt([self.LOST], self.PAYLOADS, kind=Kind.PROFILE)
        assert outcomes == [RETRY] * 4

    async def test_what_certainly_did_not_arrive_is_not_held(self) -> None:
        """A refused connection or a 429 leaves nothing open."""
        outcomes, _, _ = await attempt([Hold("429")], self.PAYLOADS, kind=Kind.PROFILE, hold_unknown=True)
        assert outcomes == [RETRY] * 4

    async def test_events_are_never_held(self) -> None:
        """Mixpanel deduplicates them."""
        outcomes, _, _ = await attempt([self.LOST], ['{"event":"$add"}'] * 2, hold_unknown=True)
        assert outcomes == [RETRY] * 2

    async def test_a_refusal_that_leaves_open_who_was_taken_is_not_asked_about_again(self) -> None:
        """They are taken out before the parts are sent; the bad one among the others is found."""
        bad = Split(200, "bad", unknown=True)
        outcomes, sent, _ = await attempt(
            refusing({self.PAYLOADS[2]}, bad), self.PAYLOADS, kind=Kind.PROFILE, hold_unknown=True
        )
        assert outcomes == [DELIVERED, Unknown("bad"), Rejected(200, "", "bad"), Unknown("bad")]
        assert all(self.PAYLOADS[1] not in part and self.PAYLOADS[3] not in part for part in sent[1:])


async def test_a_warning_of_any_answer_is_kept() -> None:
    """An answer that needs a person's eyes is not forgotten because a later one was fine."""
    odd = Settled([DELIVERED], "200: 0 of 1 imported", warning=True)
    _, _, done = await attempt([REFUSED, odd], ["a", "b"])
    assert done.warning
