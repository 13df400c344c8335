"""Send many events from an asyncio program, without one call for each: `python track_async.py [ADDRESS [COUNT]]`.

Events wait in memory until a call takes all that are there, so calls are few when there is much to send. What is in
memory is lost with the process: who needs to know that an event is stored, awaits `track`. 500 events of up to 8 kB fit
into the 4 MiB that a call may have.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

SERVICE_CONFIG = (Path(__file__).parents[1] / "service-config.json").read_text()
AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
FULL_S, AGAIN_S = 30.0, 1.0


class Refused(Exception):
    """An event breaks a rule: a bug of the caller's."""


class Tracker:
    """A connection to walbatch, as a context. Leaving it waits until everything is stored."""

    def __init__(self, address: str, max_batch: int = 500, max_waiting: int = 10_000) -> None:
        self._channel = grpc.aio.insecure_channel(address, [("grpc.service_config", SERVICE_CONFIG)])
        self._stub: Any = AnalyticsServiceStub(self._channel)
        self._max_batch = max_batch
        self._waiting: asyncio.Queue[tuple[pb.Event, asyncio.Future[None]]] = asyncio.Queue(max_waiting)

    async def __aenter__(self) -> Self:
        self._sending = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._waiting.join()
        self._sending.cancel()
        await self._channel.close()

    async def track(self, name: str, distinct_id: str, **properties: Any) -> None:
        """Return once the event is on disk. Waits while too many others do: that is the moment to send fewer.

        Raises:
            Refused: as it says.
        """
        now = Timestamp()
        now.GetCurrentTime()
        event = pb.Event(
            event_id=str(uuid.uuid4()),
            name=name,
            distinct_id=distinct_id,
            event_time=now,
            properties_json=json.dumps(properties),
        )
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._waiting.put((event, stored))
        await stored

    async def _send_all(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                reply = await self._until_answered([event for event, _ in batch])
                wrong: dict[int, Exception] = {
                    rejection.index: Refused(f"{rejection.field}: {rejection.description}")
                    for rejection in reply.rejections
                }
            except grpc.aio.AioRpcError as error:  # it will not be another one: a wrong address, too large a call
                wrong = dict.fromkeys(range(len(batch)), error)
            for index, (_, stored) in enumerate(batch):
                if stored.done():
                    pass  # whoever asked has gone; it is stored all the same
                elif index in wrong:
                    stored.set_exception(wrong[index])
                else:
                    stored.set_result(None)
                self._waiting.task_done()

    async def _until_answered(self, events: list[pb.Event]) -> pb.IngestResponse:
        """Send the same events with the same ids, for as long as it takes."""
        request = pb.IngestRequest(records=[pb.Record(event=event) for event in events])
        while True:
            try:
                reply: pb.IngestResponse = await self._stub.Ingest(request)
            except grpc.aio.AioRpcError as error:
                if error.code() not in AGAIN | {grpc.StatusCode.RESOURCE_EXHAUSTED}:
                    raise
                await asyncio.sleep(AGAIN_S if error.code() in AGAIN else FULL_S)
            else:
                return reply


async def main(address: str, count: int) -> None:
    """Send some events at once."""
    async with Tracker(address) as tracker:
        await asyncio.gather(*(tracker.track("Page Viewed", f"user-{n % 7}", page=n) for n in range(count)))
        try:
            await tracker.track("", "user-1")
        except Refused as error:
            print(f"refused: {error}")
    print(f"{count} stored")


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051", int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    )
