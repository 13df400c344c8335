"""Destinations whose certificate is not to be trusted, and a port that does not talk TLS at all."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trustme
from bad_destination import LISTENS, destinations
from programs import WALBATCH, Site, eventually, site
from settled import settled_account
from steady_client import steady
from watching import numbers

pytestmark = pytest.mark.crash

BROKEN = str(Path(__file__).parent.parent / "support" / "broken_server.py")
SETTINGS = {"retry_base": "20ms", "retry_max": "50ms", "flush_interval": "50ms", "mixpanel_timeout": "1500ms"}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TLS_HANDSHAKE = 22


def serves(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return what a destination talks TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def failed_again(here: Site, words: str) -> bool:
    """Say whether the last request failed for one of these reasons, in an outage of several attempts."""
    (told,) = numbers(here)["destinations"]
    return told["failures"] > 3 and any(word in (told["last_error"] or "") for word in words.split("|"))


def test_who_cannot_prove_who_they_are_get_nothing(
    tmp_path: Path, matrix: Callable[..., None], rounds: Callable[[int, int], int]
) -> None:
    """Each is an outage: not a byte of a record leaves, and all arrives once the certificate is good."""
    ours, another = trustme.CA(), trustme.CA()
    authorities = tmp_path / "authorities.pem"
    ours.cert_pem.write_to_path(authorities)
    wrong = {
        "self-signed|unable to get local issuer": serves(another.issue_cert("127.0.0.1")),
        "IP address mismatch": serves(ours.issue_cert("elsewhere.test")),
        "certificate has expired": serves(ours.issue_cert("127.0.0.1", not_before=LONG_AGO, not_after=LONG_AGO)),
    }
    times = rounds(1, 3)
    with site(tmp_path, **SETTINGS) as here, destinations() as there:
        one = there.add(here.out, LISTENS)
        here.delivers_to(one.port, "https")
        here.serve(entry=("env", f"SSL_CERT_FILE={authorities}", WALBATCH, "serve"))
        with steady(f"127.0.0.1:{here.grpc_port}", tmp_path / "client.log") as client:
            for _ in range(times):
                there.switch(one, LISTENS)
                eventually(lambda: failed_again(here, "no connection in time"), "it gives up")
                heard = bytes(one.received)
                assert heard[0] == TLS_HANDSHAKE
                assert b"POST" not in heard
                for words, context in wrong.items():
                    there.switch(one, "good", context)
                    eventually(partial(failed_again, here, words), words)
                    assert not one.received
            assert numbers(here)["sent"] == 0
            assert not client.failures
            there.switch(one, "good", serves(ours.issue_cert("127.0.0.1")))
        verdict = settled_account(here, [client.log])
    assert not verdict.dead
    assert not verdict.complaints(most_repeats=0)
    matrix(
        fault="TLS: unknown authority, wrong name, expired, none at all",
        rounds=4 * times,
        **verdict.counts(),
        control=f"certificates unchecked: {bytes_for_anybody(tmp_path / 'control')} bytes told to a stranger",
    )


def bytes_for_anybody(path: Path) -> int:
    """Return how much a server that checks no certificate tells a stranger."""
    path.mkdir()
    with site(path, **SETTINGS) as here, destinations() as there:
        one = there.add(path / "out.ndjson", "good", serves(trustme.CA().issue_cert("elsewhere.test")))
        here.delivers_to(one.port, "https")
        here.serve(entry=(sys.executable, BROKEN, "check_no_certificate"))
        with steady(f"127.0.0.1:{here.grpc_port}", path / "client.log"):
            eventually(lambda: one.received, "it heard something")
    return len(one.received)
