"""The official Python SDK: what it delivers by itself, and what it delivers through walbatch, is the same.

The SDK's messages are captured as they leave it, and then go both ways: through the SDK's own consumer to one fake, and
as lines through `walbatch send` and `walbatch serve` to another. Both take the very same messages, so times and ids
need no care. Compared are the raw export, the state and the log of every profile and group, and who is who.

What is not compared, because it tells the way and not the message:

* `$import`, `$mp_api_endpoint`, `$mp_api_timestamp_ms` and `mp_processing_time_ms` of the export: the server makes
  them, and walbatch sends to /import what the SDK sends to /track.
* The order of events, and of messages to different addresses.

What is not sent, because walbatch does something else with it on purpose:

* An update with several operations, which only `people_update` and `group_update` could send. It is refused.
* An event of nobody that has a `$device_id`. walbatch makes `$device:` and the device its distinct_id; so does Mixpanel
  with Simplified ID Merge, and not with the Original one.

What is written in two ways, and made equal before it is compared:

* `$time` of an update. The SDK sends seconds with six or seven decimals, walbatch keeps milliseconds. (The times of
  events and `$last_seen` are milliseconds at Mixpanel, and are compared as they come.)
* An update's `$distinct_id` or `$group_id` that is a number. walbatch sends ids as texts, as which Mixpanel keeps them.
* `$ip` of an update. The SDK says once for the request that no address is meant, walbatch in every profile update.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import mixpanel
import pytest
from fakes_in_thread import served
from programs import site

from walbatch.testing.identity import Identities
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.testing.projects import Project, ServiceAccount

pytestmark = pytest.mark.e2e

TOKEN = "sdk-project-token"
ACCOUNT = ServiceAccount("robot", "robot-secret")
PROFILES = ("u1", "u2", "7", "gone")
GROUPS = (("company", "acme"), ("company", "7"), ("company", "gone"), ("team", "red"))
"""Whose updates `use_everything` sends."""

SERVER_MADE = {"$import", "$mp_api_endpoint", "$mp_api_timestamp_ms", "mp_processing_time_ms"}
NOT_METHODS = {"local_flags", "remote_flags"}
"""Public names of the SDK's class that send no messages: feature flags."""


class Message(NamedTuple):
    """What the SDK hands to a consumer."""

    endpoint: str
    text: str
    api_key: Any


class Recorder:
    """A consumer of the SDK that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, endpoint: str, json_message: str, api_key: Any = None, api_secret: Any = None) -> None:
        """Keep a message."""
        assert api_secret is None  # the SDK packs it into the key
        self.messages.append(Message(endpoint, json_message, api_key))


def use_everything(sdk: Any) -> None:
    """Call every method that sends something, with the values that tell a careful copy from a careless one."""
    moment = dt.datetime(2026, 1, 31, 23, 59, 58, tzinfo=dt.UTC)
    odd = {"text": "Größe 日本 🦆\t\"'", "big": 2**53 + 1, "half": 0.1, "huge": 1e300, "whole": 1.0, "none": None}
    deep = {"list": [1, 2.5, "x", None, [True]], "inner": {"a": {"b": False}}, "at": moment} | odd
    sdk.track("u1", "Plain")
    sdk.track("u1", "Größe 🦆", deep)
    sdk.track("", "Nobody")
    sdk.track(42, "Numbered", {"long": "x" * 300})
    sdk.track("u2", "Both", {"$user_id": "u2", "$device_id": "d2"})
    sdk.track("u1", "Located", {"ip": "192.0.2.1"})
    sdk.track("u1", "Timed", {"time": int(time.time()) - 86_400, "$insert_id": "own-id-1"})
    sdk.track("u1", "Meta", {"a": 1}, meta={"event": "Renamed"})
    sdk.import_data(None, "u3", "Old", 1_500_000_000, {"n": -1})
    sdk.import_data("key", "u3", "Older", 31_536_000, deep, api_secret=None)
    sdk.alias("alias-1", "u1")
    sdk.merge(None, "u1", "u4")
    sdk.track("u5", "$identify", {"$identified_id": "u5", "$anon_id": "anon-5"})
    sdk.people_set("u1", deep)
    sdk.people_set_once("u1", {"text": "late", "first": 1}, meta={"$ignore_time": True})
    sdk.people_set("u1", {"where": 1}, meta={"$ip": "192.0.2.1", "$time": 1_700_000_000})
    sdk.people_increment("u1", {"coins": 3, "rate": -0.5})
    sdk.people_append("u1", {"items": {"name": "a"}})
    sdk.people_append("u1", {"items": "b"})
    sdk.people_union("u1", {"tags": ["a", "b"]})
    sdk.people_remove("u1", {"items": "b"})
    sdk.people_unset("u1", ["first", "never"])
    sdk.people_track_charge("u1", 9.99, {"$time": "2026-01-31T00:00:00"})
    sdk.people_clear_charges("u1")
    sdk.people_track_charge("u1", 5)
    sdk.people_set(7, {"n": 1})
    sdk.people_set("gone", {"n": 1})
    sdk.people_delete("gone", meta={"$ignore_alias": True})
    sdk.people_update({"$distinct_id": "u2", "$set": {}})
    sdk.group_set("company", "acme", deep)
    sdk.group_set_once("company", "acme", {"text": "late", "first": 1})
    sdk.group_union("company", "acme", {"tags": ["a", "b"]})
    sdk.group_remove("company", "acme", {"tags": "a"})
    sdk.group_unset("company", "acme", ["first"])
    sdk.group_set("company", 7, {"n": 1})
    sdk.group_set("company", "gone", {"n": 1})
    sdk.group_delete("company", "gone")
    sdk.group_update({"$group_key": "team", "$group_id": "red", "$set": {"a": 1}}, meta={"$time": 1_700_000_000.25})


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Everything that the SDK has to say."""
    recorder = Recorder()
    # alias() makes a consumer of its own that goes to Mixpanel, whatever the SDK was told.
    monkeypatch.setattr(mixpanel, "Consumer", lambda: recorder)
    use_everything(mixpanel.Mixpanel(TOKEN, recorder))
    monkeypatch.undo()
    # requests would send what is for this machine to a proxy, if the environment names one.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return recorder.messages


def test_every_method_is_used(messages: list[Message]) -> None:
    """A method that a later SDK adds is not forgotten here."""
    called: set[str] = set()

    class Watched(mixpanel.Mixpanel):  # type: ignore[misc]  # the SDK has no types
        def __getattribute__(self, name: str) -> Any:
            called.add(name)
            return super().__getattribute__(name)

    use_everything_but_alias = Watched(TOKEN, Recorder())
    use_everything_but_alias.alias = lambda *_: None
    use_everything(use_everything_but_alias)
    public = {name for name in vars(mixpanel.Mixpanel) if not name.startswith("_")}
    assert public - called == NOT_METHODS
    assert {message.endpoint for message in messages} == {"events", "imports", "people", "groups"}


def consumer(url: str, kind: Callable[..., Any]) -> Any:
    """Make one of the SDK's own consumers, that sends to a fake."""
    credentials = mixpanel.ServiceAccountCredentials(ACCOUNT.username, ACCOUNT.secret, "1")
    paths = {"events_url": "track", "people_url": "engage", "import_url": "import", "groups_url": "groups"}
    urls = {name: f"{url}/{path}" for name, path in paths.items()}
    return kind(**urls, credentials=credentials, retry_limit=0, request_timeout=30)


def export(url: str) -> list[dict[str, Any]]:
    """Return the events of a fake's raw export, in the order of their ids, without what the server adds."""
    params = {"from_date": "1970-01-01", "to_date": "2100-01-01", "time_in_ms": "true", "project_id": "1"}
    auth = (ACCOUNT.username, ACCOUNT.secret)
    reply = httpx.get(f"{url}/api/2.0/export", params=params, auth=auth, trust_env=False)
    assert reply.status_code == 200, reply.text
    events = [json.loads(line) for line in reply.text.splitlines()]
    for event in events:
        event["properties"] = {key: one for key, one in event["properties"].items() if key not in SERVER_MADE}
    return sorted(events, key=spelled)


def spelled(value: Any) -> str:
    """Return a value as JSON, in which 1 is not 1.0."""
    return json.dumps(value, sort_keys=True)


def state(fake: FakeMixpanel) -> list[str]:
    """Return every profile and group with its properties, and when it was last seen."""
    data = fake.data()
    return sorted(spelled([one, asdict(profile)]) for one, profile in [*data.profiles.items(), *data.groups.items()])


def updates(fake: FakeMixpanel) -> dict[str, list[dict[str, Any]]]:
    """Return the log of each profile and group, with times, ids and addresses in one spelling."""
    data, logs = fake.data(), {}
    for target in (*PROFILES, *GROUPS):
        logs[str(target)] = log = [dict(one.sent) for one in data.updates(target)]
        for sent in log:
            sent["$time"] = round(sent["$time"] * 1000)
            for key in sent.keys() & {"$distinct_id", "$group_id"}:
                sent[key] = str(sent[key])
            if "$distinct_id" in sent:
                sent["$ip"] = sent.get("$ip", "0")
    return logs


def assert_same(ours: FakeMixpanel, theirs: FakeMixpanel, urls: Sequence[str], messages: Sequence[Message]) -> None:
    """Compare everything that two fakes hold."""
    exported = export(urls[0])
    assert list(map(spelled, exported)) == list(map(spelled, export(urls[1])))
    assert state(ours) == state(theirs)
    assert spelled(updates(ours)) == spelled(updates(theirs))
    mine, other = ours.data().identities, theirs.data().identities
    assert Counter(mine.links) == Counter(other.links)
    assert by_id(mine) == by_id(other) != []
    links = sum(one.event.startswith("$") for one in mine.links)
    logged = sum(len(log) for log in updates(ours).values())
    assert len(exported) + links + logged == len(messages), "something was not compared"


def by_id(identities: Identities) -> list[list[str]]:
    """Return the clusters of ids in an order of their own."""
    return sorted(sorted(cluster) for cluster in identities.clusters())


@pytest.mark.parametrize(
    ("kind", "id_mode"), [(mixpanel.Consumer, "original"), (mixpanel.BufferedConsumer, "simplified")]
)
def test_both_ways_lead_to_the_same(tmp_path: Path, messages: list[Message], kind: Any, id_mode: Any) -> None:
    """Every message of the SDK leaves the same at Mixpanel, whether it was sent there or through walbatch."""
    project = Project(1, TOKEN, service_accounts=(ACCOUNT,), id_mode=id_mode)
    direct, behind = FakeMixpanel(projects=[project]), FakeMixpanel(projects=[project])
    with served(direct, behind) as urls, site(tmp_path, mixpanel_token=TOKEN, mixpanel_url=urls[1]) as here:
        own = consumer(urls[0], kind)
        for message in messages:
            own.send(message.endpoint, message.text, message.api_key)
        getattr(own, "flush", list)()
        server = here.serve()
        sent = here.run("send", "-", text="".join(f"{message.text}\n" for message in messages))
        assert f"{len(messages)} accepted, 0 duplicates, 0 refused" in sent.stderr
        assert (here.drained()["sent"], here.run("dead", "export").stdout) == (len(messages), "")
        assert_same(direct, behind, urls, messages)
        assert direct.lost.total() == behind.lost.total() == 0
        assert server.stop() == 0
