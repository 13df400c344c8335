"""The composition root: what is started, in which order, and how it stops.

Start: own the directory, recover, open the log, then delivery, the admin port, and the gRPC port last, so that whoever
can connect can be served.

Stop, after the first SIGTERM or SIGINT, with the reason for each place in the order:
    1. not ready, health NOT_SERVING     load balancers look elsewhere
    2. stop accepting                    calls under way end: their commits finish, and they are answered
    3. one last flush                    what waits goes out, if the destination answers; bounded
    4. cancel what is still in flight    it stays pending on disk, or is held where that is the policy
    5. checkpoint, close, unlock         the next start has nothing to recover
A watchdog ends the process at the end of the grace, since a hung fsync cannot be cancelled. A second signal ends it
at once. Neither loses anything that was acknowledged.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from walbatch import admin, http_server
from walbatch.clock import SystemClock
from walbatch.dashboard.watch import Watch
from walbatch.decoding import Decoding
from walbatch.delivery import Answered
from walbatch.destinations import Destination, configured
from walbatch.errors import ConfigurationError, Unavailable
from walbatch.ingest import TRANSPORT_MAX_BYTES, IngestService
from walbatch.metrics.exposition import Metrics
from walbatch.notify import Manager
from walbatch.outlets import Outlets, open_outlets
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import add_AnalyticsServiceServicer_to_server
from walbatch.retention import Retention
from walbatch.routing import Router
from walbatch.settings import Settings
from walbatch.stats import read_backlog, rfc3339
from walbatch.tracing import NO_TRACING, Tracing, exporting
from walbatch.upkeep import Upkeep
from walbatch.wal.admission import Limits
from walbatch.wal.sqlite import SqliteLog

log = structlog.stdlib.get_logger("walbatch.service")

WATCHDOG_EXIT = 70
RPC_SHARE = 0.2
"""Share of the grace that calls under way may take to end."""
FLUSH_SHARE = 0.8
"""Share of the grace after which the last flush is cut off; the rest is for the checkpoint."""

GC_THRESHOLD = 5000
"""New objects that may be left over until Python looks for cycles among them. With its default of 700, which 64 calls
under way exceed, those were looked through again and again. What a call leaves in a cycle, inside of gRPC, is small."""

LIVENESS = "liveness"
"""Name for health checks that only ask whether the event loop runs: SERVING while records are refused, too. A restart
gives no room to a full disk."""

SERVICE = pb.DESCRIPTOR.services_by_name["AnalyticsService"].full_name

GRPC_OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),  # by default a second server shares the port without a word
    ("grpc.max_receive_message_length", TRANSPORT_MAX_BYTES),
    ("grpc.max_metadata_size", 8192),
    ("grpc.absolute_max_metadata_size", 16384),
    ("grpc.max_concurrent_streams", 100),  # of one connection: each may hold a request of 4 MiB; more calls wait
    # By default a stream counts until its last object is freed, and a client with 64 calls in flight was refused some
    # with "Stream removed"; what it is against, streams that are reset at once, costs no memory without it (measured).
    ("grpc.http.overload_protection", 0),
    ("grpc.server_handshake_timeout_ms", 5_000),  # by default who connects and says nothing stays for two minutes
    # A window of this size for each stream. By default it grows to megabytes, and 100 streams that are not read,
    # because the disk does not keep up, would hold hundreds of them.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    ("grpc.max_connection_idle_ms", 300_000),  # without a call; a client connects again by itself
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
]


@dataclass
class StopSignal:
    """Set by the first SIGTERM or SIGINT; the second ends the process on the spot."""

    received: asyncio.Event = field(default_factory=asyncio.Event)

    def install(self) -> None:
        """Take over both signals in the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.received.is_set():
            os._exit(128 + number)
        self.received.set()


async def serve(settings: Settings, stop: StopSignal) -> None:
    """Serve until a stop signal, or until the log breaks.

    Raises:
        ConfigurationError, FatalError: as their `exit_code` says.
    """
    stop.install()
    clock = SystemClock()
    destinations = configured(settings)
    metrics = Metrics(list(destinations), settings.max_backlog_bytes)
    async with AsyncExitStack() as stack:
        watchdog = _watchdog(settings.shutdown_grace)
        stack.callback(watchdog.cancel)  # the first in, so the last out: after everything that could hang
        manager = stack.enter_context(Manager.of(os.environ))
        alive = await stack.enter_async_context(_background(alive=manager.keep_alive(clock)))
        manager.status("Starting: reading the log")
        tracing = stack.enter_context(exporting())
        event_log = await stack.enter_async_context(_open_log(settings, destinations, clock, metrics, tracing))
        await _tell_waiting(event_log, destinations)
        watch = Watch(event_log, clock)
        observe = _telling(metrics.deliveries.answered, watch.observe)
        outlets = await stack.enter_async_context(
            open_outlets(settings, destinations, event_log, clock, observe=observe, tracing=tracing)
        )
        ingest = IngestService(event_log, clock, intake=metrics.intake, tracing=tracing)
        servers = await stack.enter_async_context(
            _servers(settings, event_log, ingest, clock, metrics=metrics, ask_now=outlets.ask_now, watch=watch)
        )
        upkeep = Upkeep(event_log, clock, partial(_refuse, servers, manager))
        retention = Retention(event_log, clock, settings.retention)
        background = await stack.enter_async_context(
            _background(log=event_log.broken(), upkeep=upkeep.run(), retention=retention.run(), watch=watch.run())
        )
        event_log.ownership.announce(grpc=servers.grpc_address, admin=servers.admin_address)
        _collect_again()
        log.info(
            "service.ready",
            grpc=servers.grpc_address,
            admin=f"http://{servers.admin_address}",
            data_dir=str(settings.data_dir),
            destinations=list(destinations),
        )
        manager.ready(_status(servers, None))
        stopping = partial(_stopping, watchdog, manager, settings.shutdown_grace)
        running = [*alive, *background]
        await _deliver(outlets, servers, stop, running, grace_s=settings.shutdown_grace, stopping=stopping)


def _collect_again() -> None:
    """Give Python's collector of cycles back what `walbatch serve` took from it for the start."""
    gc.set_threshold(GC_THRESHOLD)
    gc.freeze()  # what is there by now stays: no need to look for cycles in it again and again
    gc.enable()  # each call that gRPC serves leaves a cycle


def _stopping(watchdog: threading.Timer, manager: Manager, grace_s: float) -> None:
    watchdog.start()
    log.info("service.stopping", grace_s=grace_s)
    manager.stopping(f"Stopping: one last flush, at most {grace_s:g} s")


async def _deliver(
    outlets: Outlets,
    servers: Servers,
    stop: StopSignal,
    background: list[asyncio.Task[None]],
    *,
    grace_s: float,
    stopping: Callable[[], None],
) -> None:
    """Deliver until the stop signal, or until something breaks; then stop in the order that the module tells."""
    flushing = asyncio.create_task(outlets.run(), name="delivery")
    try:
        try:
            await until_stopped(stop, background, flushing)
        finally:
            stopping()
        await servers.stop(grace_s * RPC_SHARE)
        await _last_flush(outlets, flushing, grace_s * (FLUSH_SHARE - RPC_SHARE))
    finally:
        await _cancel(flushing)


def _open_log(
    settings: Settings,
    destinations: Mapping[str, Destination],
    clock: SystemClock,
    metrics: Metrics,
    tracing: Tracing,
) -> SqliteLog:
    return SqliteLog(
        settings.data_dir,
        list(destinations),
        clock,
        router=Router({name: destination.filter for name, destination in destinations.items()}),
        formerly={name: d.formerly for name, d in destinations.items() if d.formerly},
        limits=Limits(settings.max_backlog_bytes, settings.min_free_disk, settings.max_wal_bytes),
        allow_affected_sqlite=settings.allow_affected_sqlite,
        watch=metrics.log,
        traced=tracing is not NO_TRACING,
    )


async def _tell_waiting(event_log: SqliteLog, destinations: Mapping[str, Destination]) -> None:
    """Warn of a destination that gets nothing: a person has paused it, or it is owed something and not configured.

    In the second case it may have been renamed.
    """
    for known in (await event_log.read(read_backlog)).destinations:
        pending = sum(lane.pending for lane in known.lanes)
        if known.name in destinations and known.paused_at_ms is not None:
            since = rfc3339(known.paused_at_ms)
            log.warning("service.destination_paused", destination=known.name, since=since, pending=pending)
        elif known.name not in destinations and pending:
            log.warning("service.destination_not_configured", destination=known.name, pending=pending)


async def _refuse(servers: Servers, manager: Manager, refusal: Unavailable | None) -> None:
    await servers.refuse(refusal)
    if servers.ready:
        manager.status(_status(servers, refusal))


def _status(servers: Servers, refusal: Unavailable | None) -> str:
    return f"Refusing new records: {refusal}" if refusal else f"Accepting records on {servers.grpc_address}"


def _telling(*observers: Callable[[Answered], None]) -> Callable[[Answered], None]:
    """Return what tells each of them of an answer."""

    def tell(answered: Answered) -> None:
        for observe in observers:
            observe(answered)

    return tell


@asynccontextmanager
async def _background(**loops: Coroutine[None, None, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run what must never end by itself."""
    tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
    try:
        yield tasks
    finally:
        for task in tasks:
            await _cancel(task)


async def until_stopped(stop: StopSignal, background: list[asyncio.Task[None]], flushing: asyncio.Task[None]) -> None:
    """Wait for the stop signal. A task that ends before it is an error, and is raised here."""
    stopped = asyncio.create_task(stop.received.wait())
    await asyncio.wait([stopped, flushing, *background], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in (*background, flushing):
        if task.done():
            raise first_cause(task.exception()) or RuntimeError(f"{task.get_name()} ended by itself")


def first_cause(error: BaseException | None) -> BaseException | None:
    """Return what is inside groups of exceptions: it says with which code to exit."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _last_flush(outlets: Outlets, flushing: asyncio.Task[None], budget_s: float) -> None:
    outlets.drain()
    done, _ = await asyncio.wait([flushing], timeout=budget_s)
    log.info("service.flushed", complete=bool(done))


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end. Its own failure has been told by whoever waited for it, or is told here."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        log.debug("service.task_failed", task=task.get_name(), error=str(error))


def _watchdog(grace_s: float) -> threading.Timer:
    """Return what ends the process a grace after its start, from a thread that no hung event loop can hold up."""

    def end() -> None:
        sys.stderr.write("walbatch: the shutdown took too long and was cut off; nothing acknowledged is lost\n")
        os._exit(WATCHDOG_EXIT)

    timer = threading.Timer(grace_s, end)
    timer.daemon = True
    return timer


class Servers:
    """Both ports, while they are open."""

    def __init__(self, server: grpc.aio.Server, status: health.aio.HealthServicer, ingest: IngestService) -> None:
        self._server = server
        self._status = status
        self._ingest = ingest
        self.ready = False
        self.grpc_address = ""
        self.admin_address = ""

    async def start(self) -> None:
        """Accept records, and say so."""
        await self._server.start()
        await self._status.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._tell(health_pb2.HealthCheckResponse.SERVING)
        self.ready = True

    async def refuse(self, refusal: Unavailable | None) -> None:
        """Tell health checks that new records are refused at this moment, or are not any more."""
        if self.ready:
            status = health_pb2.HealthCheckResponse
            await self._tell(status.NOT_SERVING if refusal else status.SERVING)

    async def _tell(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", SERVICE):
            await self._status.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Say that no more records are accepted, and let the calls under way end. A second time does nothing."""
        self.ready = False
        await self._status.enter_graceful_shutdown()
        self._ingest.drain()
        await self._server.stop(grace_s)


@asynccontextmanager
async def _servers(
    settings: Settings,
    event_log: SqliteLog,
    ingest: IngestService,
    clock: SystemClock,
    *,
    metrics: Metrics,
    ask_now: Callable[[str], None],
    watch: Watch,
) -> AsyncIterator[Servers]:
    server = grpc.aio.server(interceptors=[Decoding(metrics.intake.ended)], options=GRPC_OPTIONS)
    status = health.aio.HealthServicer()
    servers = Servers(server, status, ingest)
    add_AnalyticsServiceServicer_to_server(ingest, server)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if settings.grpc_reflection:
        reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    servers.grpc_address = _bind(server, settings.grpc_listen)
    with admin.listen(settings.admin_listen) as listener:
        servers.admin_address = _address(settings.admin_listen, listener.getsockname()[1])
        token = admin.write_token(settings.data_dir)
        port = admin.Admin(
            event_log, clock, lambda: servers.ready, token, metrics=metrics, ask_now=ask_now, watch=watch
        )
        async with http_server.serve(admin.check_host(port.app, listener), listener):
            try:
                await servers.start()
                yield servers
            finally:
                await servers.stop(0)
                port.close()


def _bind(server: grpc.aio.Server, address: str) -> str:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigurationError(f"WALBATCH_GRPC_LISTEN: cannot listen on {address}: is it in use by another program?")
    return address if address.startswith("unix:") else _address(address, port)


def _address(listen: str, port: int) -> str:
    return f"{listen.rpartition(':')[0]}:{port}"
