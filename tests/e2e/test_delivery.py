"""A hundred thousand records of every kind, two destinations that fail all the time, and an account of each record.

That the account can fail is shown in tests/unit/test_accounting.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any

import accounting
import grpc
import pytest
from accounting import Event, Target, Update
from fakes_in_thread import served
from mixed_load import POISON, Change, Client, Link, Sent, strict_event, strict_update
from programs import POLL_S, Site, eventually, site

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub
from walbatch.testing import mixpanel, verdict
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.testing.projects import Project
from walbatch.testing.script import Script
from walbatch.testing.store import ProjectData

pytestmark = pytest.mark.e2e

CLIENTS = 4
USERS_EACH = 800
CALL = 400
LIMIT_S = 110.0

NO_DATA = {"code": 400, "error": "data, missing or empty", "status": "Bad Request"}
FAULTS: list[dict[str, Any]] = [
    {"fault": "status", "status": 500},
    {"fault": "status", "status": 502, "commit": True},
    {"fault": "status", "status": 503, "retry_after": 0.05},
    {"fault": "status", "status": 429, "retry_after": 0.1},
    {"fault": "status", "status": 401},
    {"fault": "status", "status": 400, "body": NO_DATA, "endpoint": "/import"},
    {"fault": "reset"},
    {"fault": "reset", "commit": True},
    {"fault": "half"},
    {"fault": "page"},
    {"fault": "page", "commit": True},
    {"fault": "page", "status": 504, "commit": True},
    {"fault": "miscount", "endpoint": "/import"},
    {"fault": "slow", "delay": "50ms"},
    {"fault": "drip", "delay": "1ms"},
]
"""All that may happen to any request. A request that is acted on only after its sender gave up is not among them: of
updates such a one would change the order, and no sender can prevent it. One import of each destination is."""

STEPS = [{"fault": "late", "delay": "6s", "endpoint": "/import"}]

FILE = """
[destinations.careful]
type = "mixpanel"
token_file = "careful-token"
url = "{careful}"
timeout = "5s"
unknown_outcomes = "hold"

[destinations.eager]
type = "mixpanel"
token_file = "eager-token"
url = "{eager}"
timeout = "5s"
unknown_outcomes = "retry"
never = ["Debug *"]
"""


@dataclass(frozen=True)
class Destination:
    """One of the two: its fake, and what the file above says of it."""

    name: str
    fake: FakeMixpanel
    holds: bool
    filtered: bool

    @property
    def data(self) -> ProjectData:
        """What it has."""
        return self.fake.data()

    def wants(self, one: Sent) -> bool:
        """Say whether the filter lets a record through."""
        return not (self.filtered and isinstance(one.meaning, Event) and one.meaning.name.startswith("Debug "))


def destinations() -> tuple[Destination, Destination]:
    """Make the two: of different projects, with other chances, one with a small limit for a request."""
    careful = FakeMixpanel(
        projects=[Project(1, "careful-token", id_mode="simplified")],
        faults=Script.model_validate({"steps": STEPS, "seed": 11, "rate": 0.25, "faults": FAULTS}),
        max_bytes=100_000,
    )
    eager = FakeMixpanel(
        projects=[Project(2, "eager-token", id_mode="original")],
        faults=Script.model_validate({"steps": STEPS, "seed": 12, "rate": 0.3, "faults": FAULTS}),
        max_group_updates=200,
    )
    return Destination("careful", careful, True, False), Destination("eager", eager, False, True)


def write_file(path: Path, urls: Sequence[str]) -> Path:
    """Write the file of destinations, and the files of the tokens beside it."""
    for name in ("careful-token", "eager-token"):
        (path / name).write_text(name)
        (path / name).chmod(0o600)
    file = path / "destinations.toml"
    file.write_text(FILE.format(careful=urls[0], eager=urls[1]))
    return file


def send(address: str, number: int, count: int, base_ms: int) -> list[Sent]:
    """Send one client's records, some of them twice, and return those that were accepted."""
    made = list(Client(number, base_ms, USERS_EACH).records(count))
    with grpc.insecure_channel(address) as channel:
        stub = AnalyticsServiceStub(channel)
        for start in range(0, len(made), CALL):
            part = made[start : start + CALL]
            request = pb.IngestRequest(records=[one.record for one in part])
            reply = stub.Ingest(request, timeout=LIMIT_S)
            invalid = [index for index, one in enumerate(part) if one.meaning is None]
            assert [rejection.index for rejection in reply.rejections] == invalid
            assert (reply.accepted_count, reply.duplicate_count) == (len(part) - len(invalid), 0)
            if start % (10 * CALL) == 0:
                again = stub.Ingest(request, timeout=LIMIT_S)
                assert (again.accepted_count, again.duplicate_count) == (0, reply.accepted_count)
    return [one for one in made if one.meaning is not None]


class Watch:
    """Looks at the server's numbers all the time, and checks each time that nothing is unaccounted for."""

    def __init__(self, here: Site) -> None:
        self._address = here.lock()["admin"]
        self._ended = threading.Event()
        self.samples: list[dict[str, Any]] = []

    def stats(self) -> dict[str, Any]:
        """Return the numbers of this moment."""
        with closing(HTTPConnection(self._address, timeout=LIMIT_S)) as connection:
            connection.request("GET", "/stats")
            document: dict[str, Any] = json.loads(connection.getresponse().read())
        for destination in document["destinations"]:
            for lane in destination["lanes"]:
                accounted = sum(lane[name] for name in ("pending", "sent", "purged", "dead", "resolved", "erased"))
                assert lane["accepted"] == accounted, (destination["name"], lane)
                assert lane["in_flight"] <= lane["pending"]
                assert lane["held"] <= lane["dead"]
        return document

    def drained(self) -> dict[str, Any]:
        """Wait until nothing is pending, and return the numbers."""
        found = eventually(lambda: (s := self.stats())["pending"] == 0 and s, "nothing is pending", LIMIT_S)
        assert isinstance(found, dict)
        return found

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take samples for as long as the block lasts."""
        with ThreadPoolExecutor(1) as pool:
            watcher = pool.submit(self._watch)
            try:
                yield
            finally:
                self._ended.set()
            watcher.result()

    def _watch(self) -> None:
        while not self._ended.wait(5 * POLL_S):
            self.samples.append(self.stats())


def lanes(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, int]]:
    """Return the counts by destination and lane."""
    return {(d["name"], lane["name"]): lane for d in document["destinations"] for lane in d["lanes"]}


@dataclass(frozen=True)
class Letters:
    """One destination's dead letters, by what identifies the record."""

    poison: frozenset[Any]
    """Refused for what they are."""
    unlucky: frozenset[Any]
    """Refused on a bad day, after an attempt of which nobody knows."""
    held: frozenset[int]

    @classmethod
    def read(cls, lines: Sequence[str], name: str) -> Letters:
        """Read an export."""
        rows = [row for row in map(json.loads, lines) if row["destination"] == name]
        refused = [row for row in rows if not row["held"]]
        poison = frozenset(identity(row["record"]) for row in refused if POISON in row["reason"])
        unlucky = frozenset(identity(row["record"]) for row in refused) - poison
        return cls(poison, unlucky, frozenset(identity(row["record"]) for row in rows if row["held"]))

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.poison) + len(self.unlucky) + len(self.held)


def identity(record: dict[str, Any]) -> Any:
    """Return what tells a stored record from all others: an event's id, an update's time, what a link links."""
    if "event" not in record:
        return number_of(record)
    name, properties = record["event"], record["properties"]
    match name:
        case "$identify":
            return name, properties["$identified_id"], properties["$anon_id"]
        case "$merge":
            return name, *properties["$distinct_ids"]
        case "$create_alias":
            return name, properties["distinct_id"], properties["alias"]
        case _:
            return properties["$insert_id"]


def number_of(sent: dict[str, Any]) -> int:
    """Return an update's own number, which is its time in milliseconds."""
    number: int = round(sent["$time"] * 1000)
    return number


def events_of(data: ProjectData) -> Iterator[Event]:
    """Yield a fake's deduplicated view."""
    for one in data.deduplicated():
        properties = one.properties()
        for key in ("time", "distinct_id", "$insert_id"):
            del properties[key]
        yield Event(one.insert_id, one.event, one.distinct_id, one.time_ms, properties)


def logs_of(data: ProjectData, targets: Sequence[Target]) -> dict[Target, list[Update]]:
    """Return what arrived for each profile and group, in order, copies included."""
    return {target: [update_of(one.sent) for one in data.updates(target)] for target in targets}


def update_of(sent: Any) -> Update:
    """Read an update as it arrived."""
    (operation,) = (key for key in sent if key in ("$delete", "$unset") or isinstance(sent[key], dict))
    return Update(number_of(sent), operation, sent[operation])


def judge(there: Destination, accepted: Sequence[Sent], letters: Letters) -> list[str]:
    """Compare what a destination has with what was accepted for it, and return every difference."""
    mine = [one for one in accepted if there.wants(one) and not one.poison]
    events = [one.meaning for one in mine if isinstance(one.meaning, Event)]
    changes: defaultdict[Target, list[Update]] = defaultdict(list)
    for one in mine:
        if isinstance(one.meaning, Change):
            changes[one.meaning.target].append(one.meaning.update)
    found = list(events_of(there.data))
    logs = logs_of(there.data, list(changes))
    wrong = list(accounting.event_complaints(events, found, letters.unlucky))
    wrong += accounting.update_complaints(changes, logs, unsure=letters.held | letters.unlucky, once=there.holds)
    for target in changes:
        wrong += state_complaints(there, target, changes[target], logs[target])
    return [*wrong, *identity_complaints(there, mine, found, letters)]


def state_complaints(
    there: Destination, target: Target, accepted: Sequence[Update], log: Sequence[Update]
) -> Iterator[str]:
    """Yield if a profile or group is not what is left by what arrived, in the order of acceptance.

    Where updates are sent again, counters have counted the copies: they are compared with those.
    """
    profiles: dict[Any, Any] = there.data.groups if isinstance(target, tuple) else there.data.profiles
    has = profiles[target].properties if target in profiles else None
    arrived = {update.number for update in log}
    should = accounting.final(update for update in accepted if update.number in arrived)
    if not there.holds and should is not None:
        counted = {key: value for key, value in (accounting.final(log) or {}).items() if key.startswith("counted")}
        should = should | counted
    if has != should:
        yield f"state: {target} is {has}, should be {should}"


def identity_complaints(
    there: Destination, accepted: Sequence[Sent], found: Sequence[Event], letters: Letters
) -> Iterator[str]:
    """Yield if links are missing, or made other users than they should."""
    sent = {tuple(one.meaning) for one in accepted if isinstance(one.meaning, Link)}
    identities = there.data.identities
    links = {(one.event, one.first, one.second) for one in identities.links if one.event.startswith("$")}
    if wrong := (sent - letters.unlucky - links) | (links - sent):
        yield f"links lost or unexpected: {wrong}"
    if there.data.project.simplified:
        both = [e.properties for e in found if {"$user_id", "$device_id"} <= e.properties.keys()]
        pairs = [(one["$user_id"], f"$device:{one['$device_id']}") for one in both]
    else:
        pairs = [(first, second) for _, first, second in links]
    if accounting.clusters(pairs) != {frozenset(one) for one in identities.clusters()}:
        yield "the clusters of ids differ"


@pytest.mark.timeout(240)
def test_every_record_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: Callable[[int, int], int]
) -> None:
    """What was accepted is at each destination that wants it once, or is a dead letter there; at every moment."""
    monkeypatch.setattr(mixpanel, "event_failure", strict_event)
    monkeypatch.setattr(verdict, "update_failure", strict_update)
    both, each = destinations(), rounds(12_500, 25_000)
    base_ms = time.time_ns() // 1_000_000 - 3 * 86_400_000
    settings = {"retry_base": "20ms", "retry_max": "200ms", "flush_interval": "200ms", "batch_max": 500}
    only_one: dict[str, Any] = {"mixpanel_token": "", "mixpanel_url": ""}
    with served(*(one.fake for one in both)) as urls:
        file = write_file(tmp_path, urls)
        with site(tmp_path, destinations_file=file, log_level="warning", **settings | only_one) as here:
            server = here.serve()
            watch = Watch(here)
            with watch.watching(), ThreadPoolExecutor(CLIENTS) as pool:
                address = f"127.0.0.1:{here.grpc_port}"
                sent = pool.map(lambda number: send(address, number, each, base_ms), range(CLIENTS))
                accepted = [one for client in sent for one in client]
                document = watch.drained()
            letters = check_all(here, both, accepted, document)
            check_samples(watch.samples)
            release(here, watch, both[0], letters["careful"].held)
            assert server.stop() == 0


def check_all(
    here: Site, both: Sequence[Destination], accepted: Sequence[Sent], document: dict[str, Any]
) -> dict[str, Letters]:
    """Judge every destination, and return its letters."""
    exported = here.run("dead", "export").stdout.splitlines()
    found = {}
    for there in both:
        letters = found[there.name] = Letters.read(exported, there.name)
        mine = [one for one in accepted if there.wants(one)]
        counts = [lane for (name, _), lane in lanes(document).items() if name == there.name]
        total = {key: sum(lane[key] for lane in counts) for key in ("accepted", "sent", "dead", "held", "resolved")}
        print(there.name, total, len(letters.unlucky), there.fake.requests, there.fake.answers)
        assert total["accepted"] == len(mine)
        assert (total["dead"], total["held"]) == (letters.count, len(letters.held))
        assert (total["sent"], total["resolved"]) == (len(mine) - letters.count, 0)
        assert letters.poison == {poisoned(one) for one in mine if one.poison}
        assert bool(letters.held) is there.holds
        assert len(letters.unlucky) < 10
        wrong = judge(there, accepted, letters)
        assert not wrong, (len(wrong), wrong[:5])
        assert len(there.data.events()) > len(there.data.deduplicated()), "nothing was sent twice: too easy"
    return found


def poisoned(one: Sent) -> Any:
    """Return what tells a refused record from all others, as `identity` does."""
    assert isinstance(one.meaning, Event | Change)
    return one.meaning.insert_id if isinstance(one.meaning, Event) else one.meaning.update.number


def check_samples(samples: Sequence[dict[str, Any]]) -> None:
    """See that there was something to look at, that nothing was forgotten meanwhile, and that counts only rose."""
    assert sum(sample["pending"] > 0 for sample in samples) > 20
    assert {(sample["purged"], sample["resolved"]) for sample in samples} == {(0, 0)}
    for before, after in pairwise(samples):
        for lane, counts in lanes(after).items():
            assert all(counts[key] >= lanes(before)[lane][key] for key in ("accepted", "sent", "dead"))


def release(here: Site, watch: Watch, there: Destination, held: frozenset[int]) -> None:
    """Send what was held again, on a good day, and see that it arrives, once more and alone."""
    there.fake.play(Script())
    before = arrivals(there.data)
    here.run("dead", "replay", "--held", "--yes")
    document = watch.drained()
    assert arrivals(there.data) - before == Counter(held)
    assert (document["held"], document["resolved"]) == (0, len(held))


def arrivals(data: ProjectData) -> Counter[int]:
    """Count how often each update arrived."""
    targets: list[Target] = [*data.profiles, *data.groups]
    return Counter(update.number for log in logs_of(data, targets).values() for update in log)
