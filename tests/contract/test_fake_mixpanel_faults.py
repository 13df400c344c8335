"""What the fake Mixpanel writes down, and how it fails when told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_requests import EVENT, NOW_MS, UPDATE, on_socket

from walbatch.sinks.mixpanel import Reply
from walbatch.testing.mixpanel import FakeMixpanel, serve_fake


async def test_the_file_holds_each_record_as_it_came(
    tmp_path: Path, fake: FakeMixpanel, http: httpx.AsyncClient
) -> None:
    """Spelling of numbers, order of keys and spaces survive; only line breaks do not."""
    fake.out = tmp_path / "out.ndjson"
    odd = f'{{ "properties": {{"distinct_id":"\\u00e9","time":{NOW_MS},"n":1.50e3,"$insert_id":"a"}},"event":"E"}}'
    broken = json.dumps(EVENT, indent=1)
    await http.post("/import?strict=1", content=f"[{odd} , {broken}]".encode())
    await http.post("/engage", json=UPDATE)
    first, second, third = fake.out.read_text().splitlines()
    assert first == f'{{"endpoint": "/import", "record": {odd}}}'
    assert json.loads(second) == {"endpoint": "/import", "record": EVENT}
    assert json.loads(third) == {"endpoint": "/engage", "record": UPDATE}


async def test_no_answer_before_the_records_are_on_disk(
    tmp_path: Path, fake: FakeMixpanel, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the fsync is under way the sender waits, and other requests are answered."""
    fake.out = tmp_path / "out.ndjson"
    loop, syncing, disk = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow_fsync(_: int) -> None:
        loop.call_soon_threadsafe(syncing.set)
        disk.wait()

    monkeypatch.setattr(os, "fsync", slow_fsync)
    sending = asyncio.create_task(http.post("/import?strict=1", json=[EVENT]))
    await syncing.wait()
    assert json.loads(fake.out.read_text())["record"] == EVENT
    assert (await http.get("/healthz")).status_code == 200
    assert not sending.done()
    assert fake.records == []
    disk.set()
    assert (await sending).status_code == 200


async def test_a_full_disk_is_no_success(fake: FakeMixpanel, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """If the records cannot be written the sender hears an error, and keeps them."""
    fake.out = tmp_path / "missing" / "out.ndjson"
    assert (await http.post("/import?strict=1", json=[EVENT])).status_code == 500
    assert fake.records == []


async def test_failures_can_be_switched_on_and_off(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """A failing request leaves nothing behind, and the next one is served."""
    send: Callable[[], Any] = lambda: http.post("/import?strict=1", json=[EVENT])  # noqa: E731
    fake.fail_rate = 1.0
    assert (await send()).status_code == 503
    fake.status = 429
    assert (await send()).json()["code"] == 429
    assert fake.records == []
    fake.fail_rate = 0.0
    assert (await send()).status_code == 200
    assert (fake.requests["/import"], dict(fake.answers)) == (3, {503: 1, 429: 1, 200: 1})


async def test_a_share_of_failures_repeats_with_its_seed() -> None:
    """The same seed fails the same requests."""
    first = await on_socket(FakeMixpanel(fail_rate=0.5, seed=7), requests=20)
    assert set(first) == {200, 503}
    assert first == await on_socket(FakeMixpanel(fail_rate=0.5, seed=7), requests=20)


async def test_scripted_replies_come_first(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """A script is played once, reply by reply, and nothing of those requests is accepted."""
    fake.script.extend([Reply(429, {"retry-after": "3"}), Reply(200, {}, b"<html>")])
    answers = [await http.post("/import", json=[EVENT]) for _ in range(3)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(429, ""), (200, "<html>"), (200, "1")]
    assert answers[0].headers["retry-after"] == "3"
    assert len(fake.records) == 1


async def test_latency_delays_the_acceptance() -> None:
    """A sender that gives up early has sent nothing."""
    fake = FakeMixpanel(latency_s=60.0)
    with pytest.raises(httpx.ReadTimeout):
        await on_socket(fake, timeout_s=0.1)
    assert fake.requests["/import"] == 1
    assert fake.records == []


async def test_without_keep_only_counts_remain() -> None:
    """A long run does not fill the memory."""
    fake = FakeMixpanel(keep=False)
    assert await on_socket(fake, requests=2) == [200, 200]
    assert (fake.records, fake.accepted["/import"]) == ([], 2)


async def test_an_address_in_use_is_an_error() -> None:
    """A second fake on the same port fails at once, with the system's own error."""
    async with serve_fake(FakeMixpanel()) as url:
        with pytest.raises(OSError, match="in use"):
            async with serve_fake(FakeMixpanel(), port=httpx.URL(url).port or 0):
                pass


async def test_signals_stay_with_their_owner() -> None:
    """Serving the fake leaves the process's signal handlers alone."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with serve_fake(FakeMixpanel()):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
