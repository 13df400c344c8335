"""A server that refuses new records says so wherever somebody looks, delivers on, and accepts again by itself."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from programs import WALBATCH, Site, eventually, site

LARGE = json.dumps({"event": "Large", "properties": {"distinct_id": "u", "text": "x" * 60_000}}) + "\n"
SERVING, NOT_SERVING = (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)


def grpc_health(here: Site, service: str = "") -> int:
    """What gRPC's own health check is answered."""
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status)


def test_a_backlog_that_is_full(tmp_path: Path) -> None:
    """Health, gRPC health, stats and the log all have it; once the destination is back, everything is as before."""
    with site(tmp_path, max_backlog_bytes="1MiB", retry_base="50ms", retry_max="200ms") as here:
        server = here.serve()
        here.run("send", "-", text=LARGE * 30)
        refused = here.run("send", "-", "--retry-for", "1s", text=LARGE, check=False)
        assert refused.returncode != 0
        eventually(lambda: here.run("health", check=False).returncode == 1, "it is not healthy")
        assert "wait for delivery to mixpanel; the limit is 1MiB" in here.run("health", check=False).stdout
        assert grpc_health(here) == NOT_SERVING
        assert grpc_health(here, "liveness") == SERVING, "a restart would not help"
        assert here.stats()["storage"]["reason"] == "BACKLOG_FULL"
        assert "New records are refused" in here.run("stats").stdout
        here.sink()
        here.drained()
        eventually(lambda: here.run("health", check=False).returncode == 0, "it is healthy again", 5)
        eventually(lambda: grpc_health(here) == SERVING, "gRPC's health check too", 5)
        assert here.stats()["storage"]["accepting"]
        events = [json.loads(line)["event"] for line in server.output().splitlines()]
        assert events.count("log.refusing") == events.count("log.accepting_again") == 1


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    """The server starts, is not ready, and names the limit; what was pending is delivered all the same."""
    with site(tmp_path) as here:
        here.serve().stop()
        first = here.serve()
        here.run("send", "-", text=LARGE)
        first.kill()
        here.settings["min_free_disk"] = "1000TiB"
        here.sink()
        here.start(WALBATCH, "serve")
        eventually(lambda: "are kept free" in here.run("health", check=False).stdout, "it says why")
        here.drained()
        assert len(here.delivered()) == 1
