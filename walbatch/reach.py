"""Whether each destination can be reached and takes our credentials. No record is sent.

Mixpanel is sent an import of one empty object, `POST /import?strict=1` with `[{}]`: its own add-on for spreadsheets
checks credentials that way. An object without a name is refused, and what is refused is not stored; but it is refused
only after the credentials were taken (docs/decisions/2026-11-30-asking-a-destination.md).

    answer                                            finding
    ------------------------------------------------  ----------------------------------------
    400 in Mixpanel's words, 200 that counts nothing  ok: it is there, and takes the credentials
    401, 403, any redirect, 404 and the like          fail: a person has to correct something
    a certificate that proves nothing, no TLS         fail
    429, 5xx, no answer, no connection, no name       warn: an outage, in which nothing is lost
    anything that Mixpanel would not say              warn
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from walbatch.delivery import DELIVERED, Answer, Hold, Pause, Settled, Untrusted
from walbatch.destinations import Destination, MixpanelDestination, NdjsonDestination
from walbatch.diagnosis import Finding, Status
from walbatch.errors import ConfigurationError
from walbatch.event import Kind
from walbatch.outlets import api_of
from walbatch.sinks.http import HttpSink
from walbatch.sinks.mixpanel import REGION_URLS
from walbatch.values import origin

LIMIT_S = 10.0
"""For one answer, whatever the destination's own time-out: somebody is waiting for this."""

NO_RECORD = "{}"
"""What no Mixpanel stores: an event without a name."""

CHECK = "destination"

_OUTAGE = "nothing is lost, what is accepted waits for it; if it lasts: is the address right, is a firewall in the way?"
_CORRECT = "correct it where it is set: `walbatch config show` says where that is"
_TRUST = "is the address right, and this machine's clock? SSL_CERT_FILE names the authorities of a proxy of your own"
_STRANGE = "is this address Mixpanel's, or that of a proxy that passes everything on?"


def look(destinations: Mapping[str, Destination]) -> list[Finding]:
    """Return a finding for each destination, in their order. The projects are asked all at the same time."""
    projects = {name: one for name, one in destinations.items() if isinstance(one, MixpanelDestination)}
    answers = asyncio.run(_ask(projects)) if projects else {}
    return [answers[name] if name in answers else _local(name, one) for name, one in destinations.items()]


async def _ask(projects: Mapping[str, MixpanelDestination]) -> dict[str, Finding]:
    found = await asyncio.gather(*(_mixpanel(name, project) for name, project in projects.items()))
    return dict(zip(projects, found, strict=True))


def _local(name: str, destination: Destination) -> Finding:
    if isinstance(destination, NdjsonDestination):
        return _files(name, destination.directory)
    return Finding(CHECK, Status.OK, f"{name}: standard output")


async def _mixpanel(name: str, destination: MixpanelDestination) -> Finding:
    """Ask with each of its credentials, and stop at the first that is not taken."""
    address = origin(destination.url or REGION_URLS[destination.region])
    taken = []
    for credential, only in _credentials(destination):
        sink = HttpSink(api_of(only), timeout_s=min(destination.timeout, LIMIT_S), max_connections=1)
        try:
            async with sink:
                answer = await sink.send(Kind.EVENT, [NO_RECORD])
        except ConfigurationError as error:
            return Finding(CHECK, Status.FAIL, f"{name}: {error}", _TRUST)
        taken.append(credential)
        status, text, fix = _judged(answer)
        if status is not Status.OK:
            return Finding(CHECK, status, f"{name}: {address}, asked with the {credential}: {text}", fix)
    return Finding(CHECK, Status.OK, f"{name}: {address} takes the {' and the '.join(taken)}")


def _credentials(destination: MixpanelDestination) -> Iterator[tuple[str, MixpanelDestination]]:
    """Yield each credential with a destination that has no other."""
    account = {"service_account": None, "service_secret": None, "project_id": None}
    if destination.service_account is not None:
        yield "service account", destination
    if destination.token is not None:
        yield "token", destination.model_copy(update=account)


def _judged(answer: Answer) -> tuple[Status, str, str]:
    match answer:
        case Pause(reason=reason):
            return Status.FAIL, reason, _CORRECT
        case Untrusted(reason=reason):
            return Status.FAIL, reason, _TRUST
        case Hold(reason=reason):
            return Status.WARN, reason, _OUTAGE
        case Settled(outcomes=outcomes, warning=False) if outcomes[0] == DELIVERED:
            return Status.WARN, "it took an event without a name, which Mixpanel refuses", _STRANGE
        case _:
            return Status.OK, "", ""


def _files(name: str, directory: Path) -> Finding:
    there = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        made = "" if there == directory else ", which `walbatch serve` makes"
        return Finding(CHECK, Status.OK, f"{name}: files in {directory}{made}")
    fix = "make it a directory that this user may write to, or run this as the server's user"
    return Finding(CHECK, Status.FAIL, f"{name}: nothing can be written to {there}", fix)
