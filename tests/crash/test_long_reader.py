"""Somebody reads the database for a long time, so that SQLite's log cannot be trimmed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from bad_destination import destinations
from programs import Site, eventually, site
from settled import settled_account
from steady_client import steady
from watching import MIB, numbers

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.crash

READER = str(Path(__file__).parent.parent / "support" / "long_reader.py")
BROKEN = (sys.executable, str(Path(__file__).parent.parent / "support" / "broken_server.py"))
LIMIT_MIB = 32
SLACK = 24 * MIB
"""What may be written until the limit is noticed: a second of the load, and what waits in memory."""
SETTINGS = {"max_wal_bytes": f"{LIMIT_MIB}MiB", "flush_interval": "50ms", "max_backlog_bytes": "1GiB"}


@contextmanager
def reading(here: Site) -> Iterator[None]:
    """Hold a read transaction open, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, READER, str(here.data / "events.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdout is not None
        try:
            assert reader.stdout.readline() == b"reading\n"
            yield
        finally:
            reader.send_signal(signal.SIGTERM)
