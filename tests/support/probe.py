"""What a server answers at this moment: to one event, and whether it serves at all."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

import canary
import grpc
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status
from programs import Program, Site

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

LIMIT_S = 2.0
LOG = "probe.log"

UNKNOWN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""The codes of a server that ends, or is not there: the outcome is unknown, the call is to be repeated. gRPC itself
gives the second one, to calls that come in at the very moment."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and of its details the stable reason and the wait that it asks for."""

    code: grpc.StatusCode
    text: str = ""
    reason: str = ""
    retry_s: float | None = None


def track(here: Site) -> Answer:
    """Send one event on a connection of its own, note it in the site's `probe.log`, and return the answer."""
    event_id = str(uuid4())
    event = pb.Event(event_id=event_id, name="Probe", distinct_id=canary.PERSON, properties_json=canary.PROPERTIES)
    _note(here, f"attempt {event_id}")
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            AnalyticsServiceStub(channel).TrackEvent(pb.TrackEventRequest(event=event), timeout=LIMIT_S)
        except grpc.RpcError as error:
            return _answer(error)
    _note(here, f"ack {event_id}")
    return Answer(grpc.StatusCode.OK)


def _note(here: Site, line: str) -> None:
    with (here.path / LOG).open("a") as log:
        log.write(f"{line}\n")


def _answer(error: grpc.RpcError) -> Answer:
    code, text = error.code(), error.details() or ""
    status = rpc_status.from_call(error)
    reason, retry_s = "", None
    for detail in status.details if status else ():
        info, retry = details.ErrorInfo(), details.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_s = retry.retry_delay.ToMilliseconds() / 1000
    return Answer(code, text, reason, retry_s)


def answers(here: Site, program: Program) -> bool:
    """Say whether this very process serves its ports, ready or not; fail if it ended instead."""
    assert program.process.poll() is None, f"exit {program.process.returncode}: {program.output()}"
    with suppress(OSError, KeyError):
        mine = here.lock().get("pid") == program.process.pid
        return mine and here.admin_get("/livez", LIMIT_S)[0] == HTTPStatus.OK
    return False
