"""The ceiling: the same gRPC server, options, interceptor and loop, with handlers that do nothing. Prints its port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from walbatch.decoding import Decoding
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceServicer, add_AnalyticsServiceServicer_to_server
from walbatch.service import GRPC_OPTIONS


class Empty(AnalyticsServiceServicer):
    """Answers at once."""

    async def TrackEvent(self, request: pb.TrackEventRequest, context: Any) -> pb.TrackEventResponse:
        """Store nothing."""
        return pb.TrackEventResponse(event_id="01a2085a-de2b-7214-8bed-356309cde8ac", durability=pb.DURABILITY_FSYNCED)

    async def IdentifyUser(self, request: pb.IdentifyUserRequest, context: Any) -> pb.IdentifyUserResponse:
        """Store nothing."""
        return pb.IdentifyUserResponse(durability=pb.DURABILITY_FSYNCED)

    async def Ingest(self, request: pb.IngestRequest, context: Any) -> pb.IngestResponse:
        """Store nothing."""
        return pb.IngestResponse(accepted_count=len(request.records), durability=pb.DURABILITY_FSYNCED)

    async def IngestStream(
        self, request_iterator: AsyncIterator[pb.IngestStreamRequest], context: Any
    ) -> AsyncIterator[pb.IngestStreamResponse]:
        """Acknowledge each request."""
        async for request in request_iterator:
            yield pb.IngestStreamResponse(acked_sequence=request.sequence, durability=pb.DURABILITY_FSYNCED)


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server(interceptors=[Decoding()], options=GRPC_OPTIONS)
    add_AnalyticsServiceServicer_to_server(Empty(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
