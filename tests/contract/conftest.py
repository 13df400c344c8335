"""What several files of tests start from: a log on disk, a person to erase, and a fake Mixpanel."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from calls import served, uncounted
from log_records import deliver, events, open_log
from traces import secret_id

from walbatch.ingest import IngestService
from walbatch.testing.clock import FakeClock
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.wal import EventLog, erasure
from walbatch.wal.memory import MemoryLog
from walbatch.wal.sqlite import SqliteLog

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory that is not there yet."""
    return tmp_path / "data"


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that keeps nobody out."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
async def log(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteLog]:
    """An open, empty log for one destination."""
    async with open_log(tmp_path / "data", clock) as log:
        yield log


@pytest.fixture(params=["memory", "sqlite"])
async def either(request: pytest.FixtureRequest, directory: Path, clock: FakeClock) -> AsyncIterator[EventLog]:
    """An open, empty log of each engine, for two destinations; it tells the traces of its records."""
    names = ("there", "elsewhere")
    made = MemoryLog(names, clock) if request.param == "memory" else open_log(directory, clock, *names, traced=True)
    async with made as log:
        yield log


@pytest.fixture
async def stopped(directory: Path, clock: FakeClock) -> Path:
    """The database of a log that was stopped in an orderly way, with the event a sent and b pending."""
    async with open_log(directory, clock) as log:
        await log.append(events("a", clock))
        await deliver(log)
        await log.append(events("b", clock))
    return log.path


@pytest.fixture
def who() -> str:
    """The person to erase."""
    return secret_id()


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are so small that most erasures have several."""
    monkeypatch.setattr(erasure, "SLICE", 3)
    monkeypatch.setattr("walbatch.erasure.SLICE", 3)


@pytest.fixture
def fake() -> FakeMixpanel:
    """Return a fake that accepts all credentials."""
    return FakeMixpanel()


@pytest.fixture
async def http(fake: FakeMixpanel) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client for the fake that needs no socket."""
    transport = httpx.ASGITransport(fake.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(base_url="http://fake", transport=transport) as client:
        yield client


@pytest.fixture
def service(log: EventLog, clock: FakeClock) -> IngestService:
    """The gRPC calls over the log of the test."""
    return IngestService(log, clock, intake=uncounted())


@pytest.fixture
async def stub(service: IngestService) -> AsyncIterator[Stub]:
    """A client of the service on a real port."""
    async with served(service) as stub:
        yield stub
