"""Records become Mixpanel's requests."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence

import pytest
from mixpanel_records import API, BY_TOKEN, EVENTS, SECRET, TOKEN, UPDATES

from walbatch.delivery import Pause
from walbatch.event import Kind
from walbatch.sinks.mixpanel import MAX_RECORDS, PATHS, Credentials, Mixpanel, Request

BY_ACCOUNT = Credentials(service_account="bot.1", service_secret=SECRET, project_id=42)
GROUPS = ['{"$group_key":"company","$group_id":"acme","$set":{"plan":"pro"}}']


def built(kind: Kind, payloads: Sequence[str], credentials: Credentials = BY_TOKEN) -> Request:
    """Build a request that must be possible."""
    request = Mixpanel("https://example.test/", credentials).request(kind, payloads)
    assert isinstance(request, Request)
    return request


def basic(request: Request) -> str:
    """Return user and password of a request."""
    return base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()


def test_every_kind_has_an_endpoint_and_a_limit() -> None:
    """Groups keep to the smaller limit of those that are told of them."""
    assert set(PATHS) == set(MAX_RECORDS) == set(Kind)
    assert MAX_RECORDS[Kind.GROUP] == 200


class TestImportRequest:
    """What is sent for events."""

    def test_payloads_are_sent_as_they_are_stored(self) -> None:
        """The body is the stored texts, joined into an array and compressed."""
        request = built(Kind.EVENT, EVENTS)
        assert gzip.decompress(request.body).decode() == f"[{EVENTS[0]},{EVENTS[1]}]"
        assert request.headers["Content-Encoding"] == "gzip"

    def test_a_repeated_request_has_the_same_bytes(self) -> None:
        """Nothing in a request depends on when it is built: the compressed header holds no time."""
        assert built(Kind.EVENT, EVENTS) == built(Kind.EVENT, EVENTS)
        assert built(Kind.EVENT, EVENTS).body[4:8] == bytes(4)

    def test_it_goes_to_strict_import(self) -> None:
        """Only strict imports say which records are refused, and only JSON is asked for."""
        request = built(Kind.EVENT, EVENTS)
        assert (request.method, request.url) == ("POST", "https://example.test/import")
        assert request.params == {"strict": "1"}
        assert request.headers["Accept"] == request.headers["Content-Type"] == "application/json"
        assert request.headers["User-Agent"].startswith("walbatch/")

    def test_a_token_is_the_user_with_an_empty_password(self) -> None:
        """A project token authenticates by itself and needs no project."""
        assert basic(built(Kind.EVENT, EVENTS)) == f"{TOKEN}:"

    def test_a_service_account_names_its_project(self) -> None:
        """A service account sends its secret, and the project in the query."""
        request = built(Kind.EVENT, EVENTS, BY_ACCOUNT)
        assert basic(request) == f"bot.1:{SECRET}"
        assert request.params == {"strict": "1", "project_id": "42"}


class TestUpdateRequest:
    """What is sent for profile and group updates."""

    def test_the_token_goes_in_front_of_each_payload(self) -> None:
        """Stored payloads hold no token; it is put in as text, and the rest keeps its bytes."""
        body = built(Kind.PROFILE, UPDATES).body.decode()
        assert body == "[" + ",".join(f'{{"$token":"{TOKEN}",{payload[1:]}' for payload in UPDATES) + "]"
        assert [update["$token"] for update in json.loads(body)] == [TOKEN, TOKEN]

    def test_groups_have_an_endpoint_of_their_own(self) -> None:
        """A group update is built like a profile update, and goes to /groups."""
        request = built(Kind.GROUP, GROUPS)
        assert request.url == "https://example.test/groups"
        assert request.params == {"verbose": "1", "ip": "0"}
        assert request.body.decode() == f'[{{"$token":"{TOKEN}",{GROUPS[0][1:]}]'
        assert not {"Content-Encoding", "Authorization"} & set(request.headers)

    @pytest.mark.parametrize("token", [TOKEN, 'ä"\\'])
    @pytest.mark.parametrize(("kind", "payloads"), [(Kind.PROFILE, UPDATES), (Kind.GROUP, GROUPS)])
    def test_the_overhead_is_told_to_the_byte(self, kind: Kind, payloads: list[str], token: str) -> None:
        """Payloads, overhead, commas and brackets are the size of the body, even with an absurd token."""
        body = built(kind, payloads, Credentials(token)).body
        overhead = Mixpanel("https://example.test", Credentials(token)).overhead_bytes(kind)
        assert len(body) == sum(len(payload.encode()) + overhead + 1 for payload in payloads) + 1

    def test_events_have_no_overhead(self) -> None:
        """Events go out as they are stored."""
        assert API.overhead_bytes(Kind.EVENT) == 0

    def test_a_token_is_escaped(self) -> None:
        """Even an absurd token makes valid JSON."""
        body = built(Kind.PROFILE, UPDATES, Credentials(token='a"b\\c')).body
        assert json.loads(body)[0]["$token"] == 'a"b\\c'

    def test_it_is_neither_compressed_nor_located(self) -> None:
        """The endpoint does not know gzip, and would otherwise take this server's address for the user's."""
        request = built(Kind.PROFILE, UPDATES)
        assert request.url == "https://example.test/engage"
        assert request.params == {"verbose": "1", "ip": "0"}
        assert not {"Content-Encoding", "Authorization"} & set(request.headers)

    @pytest.mark.parametrize(("kind", "payloads"), [(Kind.PROFILE, UPDATES), (Kind.GROUP, GROUPS)])
    def test_a_service_account_alone_pauses(self, kind: Kind, payloads: list[str]) -> None:
        """Without the project token nothing is sent, and the answer says what to set."""
        answer = Mixpanel("https://example.test", BY_ACCOUNT).request(kind, payloads)
        assert answer == Pause(
            "set the project's token: profile and group updates need it, a service account is not enough"
        )

    def test_a_service_account_with_a_token_sends(self) -> None:
        """Both together serve both endpoints, each with its own credential."""
        both = Credentials(TOKEN, "bot.1", SECRET, 42)
        assert json.loads(built(Kind.PROFILE, UPDATES, both).body)[0]["$token"] == TOKEN
        assert basic(built(Kind.EVENT, EVENTS, both)) == f"bot.1:{SECRET}"


def test_representations_hide_secrets_and_payloads() -> None:
    """What may end up in a log shows neither credentials nor records."""
    both = Credentials(TOKEN, "bot.1", SECRET, 42)
    shown = repr([both, built(Kind.EVENT, EVENTS, both), built(Kind.PROFILE, UPDATES, both)])
    assert not [secret for secret in (TOKEN, SECRET, "Basic", "plan", "$token") if secret in shown]
