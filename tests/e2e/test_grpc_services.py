"""What stands beside the calls on the gRPC port: health checking and reflection."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from programs import Site, eventually, site

pytestmark = pytest.mark.e2e

SERVICE = "analytics.v1.AnalyticsService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def services(here: Site) -> set[str]:
    """Ask the server by reflection which services it has."""
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        return {service.name for service in answer.list_services_response.service}


def test_reflection_names_the_services(tmp_path: Path) -> None:
    """Tools such as grpcurl need no file."""
    with site(tmp_path) as here:
        here.serve()
        assert services(here) == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_reflection_can_be_switched_off(tmp_path: Path) -> None:
    """Who does not want to tell does not."""
    with site(tmp_path, grpc_reflection="false") as here:
        here.serve()
        with pytest.raises(grpc.RpcError) as refused:
            services(here)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_is_serving_until_the_stop_begins(tmp_path: Path) -> None:
    """A watcher is told NOT_SERVING before the connection ends, for the server and for the service."""
    with site(tmp_path, shutdown_grace="10s") as here:
        hung = here.sink("--latency", "60s")
        server = here.serve()
        here.run("send", "--event", "Tick", "--distinct-id", "u1")
        eventually(lambda: here.stats()["in_flight"], "a delivery that the stop has to wait for")
        with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE):
                assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status == SERVING
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
            assert next(watch).status == SERVING
            server.signal(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
        hung.kill()
        assert server.wait() == 0
