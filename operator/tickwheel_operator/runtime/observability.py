"""What people see of this process: status and TaskRun objects, Events, metrics. Wires `projection` to the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.clock import Clock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.ownership import Ownership
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.watch import WatchHealth
from tickwheel_operator.engine.read.views import PoolView, pool_views
from tickwheel_operator.handlers.known import KnownSchemas
from tickwheel_operator.kinds import AWAITED
from tickwheel_operator.kinds.registered import Schemas
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.taskrun import TASK_RUN
from tickwheel_operator.kinds.world import Workforce
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.projection.config import ProjectionConfig
from tickwheel_operator.projection.events import EventConfig, EventRecorder
from tickwheel_operator.projection.metrics import MetricsCollector, PoolFigures, Sources, TermFigures
from tickwheel_operator.projection.projector import Projector
from tickwheel_operator.runtime.partition import PartitionHost, ViewSink
from tickwheel_operator.runtime.settings import Settings

__all__ = ["MetricsServer", "Observability"]

_EVENT_SHARE = 0.1
"""Of the writes that the settings allow: Events are few, and status must not wait for them."""
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Observability:
    """The projector, the Events and the metrics of one process, and the term that they show."""

    def __init__(
        self,
        client: KubeClient,
        catalog: Catalog,
        requests: Requests,
        clock: Clock,
        settings: Settings,
        *,
        lease_name: str,
        faults: ObjectFaults | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        self._faults = faults = faults or ObjectFaults()
        self._catalog = catalog
        self._lease = (settings.namespace, lease_name)
        writes = settings.status_writes_per_second
        self._events = EventRecorder(
            client,
            clock,
            instance=settings.identity,
            config=EventConfig(writes_per_s=writes * _EVENT_SHARE),
        )
        self._projector = Projector(
            client,
            catalog.objects,
            catalog,
            requests,
            clock,
            config=ProjectionConfig(writes_per_s=writes * (1 - _EVENT_SHARE)),
            events=self._events,
            namespaces=settings.watch_namespaces,
            serves=ownership.serves if ownership is not None else lambda namespace: True,
            workforce=lambda namespace, name: self._workforce(namespace, name),
            schemas=lambda namespace, name: self._schemas(namespace, name),
            faults=faults,
        )
        self._workforce: Callable[[str, str], Workforce | None] = lambda namespace, name: None
        self._schemas: Callable[[str, str], Schemas] = lambda namespace, name: {}
        catalog.on_change.append(self._projector.changed)
        requests.on_change = self._projector.changed
        self._term: Callable[[], TermFigures] | None = None
        self._health: Callable[[], WatchHealth] | None = None
        self._refused: Callable[[], Mapping[str, int]] = dict
        self._expiries: Callable[[], Mapping[str, float]] = dict
        self._collector = MetricsCollector(
            Sources(
                term=lambda: None if self._term is None else self._term(),
                objects=self._objects,
                faults=lambda: faults.counts,
                health=lambda: None if self._health is None else self._health(),
                writes=lambda: (self._projector.writes, self._events.writes),
                pending=lambda: self._projector.pending,
                oldest_s=lambda: self._projector.oldest_s,
                namespaces=ownership.counts if ownership is not None else dict,
                refused=lambda: self._refused(),
                expiries=lambda: self._expiries(),
            )
        )
        self.registry = CollectorRegistry()
        self.registry.register(self._collector)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    @property
    def sink(self) -> ViewSink:
        return self._projector

    def show_health(self, health: Callable[[], WatchHealth]) -> None:
        self._health = health

    def show_identity(
        self, refused: Callable[[], Mapping[str, int]], expiries: Callable[[], Mapping[str, float]]
    ) -> None:
        """Whom the gateway did not let in, and when its certificates end."""
        self._refused, self._expiries = refused, expiries

    def show_workforce(self, workforce: Callable[[str, str], Workforce | None]) -> None:
        """Who tells of the pods of a pool."""
        self._workforce = workforce

    def show_pools(self, views: Sequence[PoolView]) -> None:
        """The figures of all pools, now."""
        self._projector.show_pools(views)

    def show_schemas(self, known: KnownSchemas) -> None:
        """What workers registered, for the statuses of their pools."""
        self._schemas = known.of_pool
        known.on_change = self._projector.pool_changed

    def pool_changed(self, namespace: str, name: str) -> None:
        """Something about the pool's pods changed."""
        self._projector.pool_changed(namespace, name)

    def served_by_another(self, namespace: str, message: str) -> None:
        """Another release serves a namespace that this one sees too."""
        if self._projector.leading:
            self._events.served_by_another(namespace, message)

    def pool_scaled(self, pool: WorkerPool, before: int, after: int, reason: str) -> None:
        """Autoscaling asks for another number of workers."""
        metadata = pool.metadata
        self._events.pool_scaled(metadata.uid, metadata.namespace, metadata.name, before, after, reason)

    def pool_stalled(self, pool: WorkerPool, reason: str, message: str) -> None:
        """Somebody must see to the pool."""
        metadata = pool.metadata
        self._events.pool_stalled(metadata.uid, metadata.namespace, metadata.name, reason, message)

    def pool_settled(self, pool: WorkerPool) -> None:
        """What stalled the pool is over."""
        metadata = pool.metadata
        self._events.pool_settled(metadata.uid, metadata.namespace, metadata.name)

    def lead(self, host: PartitionHost, ledger: Ledger) -> None:
        """This process leads with `host` now."""
        host.append_observer = self._collector.observe_append
        self._term = lambda: self._figures(host, ledger)
        self._projector.lead()
        namespace, name = self._lease
        self._events.leading(lease_namespace=namespace, lease_name=name, epoch=host.epoch)
        if host.ledger_problem:
            self._events.ledger_lost(lease_namespace=namespace, lease_name=name, why=host.ledger_problem)
            for spec in host.engine.scheduler.recovery.first:
                self._events.task_recovered(spec.uid, spec.namespace, spec.name)

    def follow(self) -> None:
        """The term is over."""
        term, self._term = self._term, None
        if term is not None:
            self._collector.term_ended(term())
        self._projector.follow()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._projector.run(), name="projector")
            group.create_task(self._events.run(), name="events")

    def _figures(self, host: PartitionHost, ledger: Ledger) -> TermFigures:
        engine = host.engine
        return TermFigures(
            stats=engine.stats,
            ledger=ledger.stats,
            epoch=host.epoch,
            runs_open=len(engine.state.runs),
            leases_open=len(engine.state.attempts),
            intake_held=host.intake_held,
            clock_behind_ms=host.clock_behind_ms,
            lead_ms=host.lead_ms,
            recovered_tasks=engine.scheduler.recovery.count,
            pools=[
                figures
                for view in pool_views(engine.state, engine.router)
                if (figures := self._figures_of(view)) is not None
            ],
        )

    def _figures_of(self, view: PoolView) -> PoolFigures | None:
        """None: they cannot be told, which hides no others."""
        try:
            return self._pool_figures(view)
        except Exception as error:
            self._faults.record(Layer.METRICS, "WorkerPool", view.namespace, view.name, error)
            return None

    def _pool_figures(self, view: PoolView) -> PoolFigures:
        workforce = self._workforce(view.namespace, view.name)
        deployment = workforce.deployment if workforce is not None else None
        return PoolFigures(
            view.namespace,
            view.name,
            view.backlog,
            view.workers,
            slots=view.slots,
            slots_used=view.used,
            desired=deployment.desired if deployment is not None else None,
            ready=deployment.ready if deployment is not None else None,
            timed=view.timed,
            clock_offset_us=view.clock_offset_us,
            clock_error_us=view.clock_error_us,
        )

    def _objects(self) -> dict[tuple[str, str], int]:
        """How many there are of each kind, by what became of them."""
        armed = sum(entry.fault is None for entry in self._catalog.tasks())
        counts = {
            (SCHEDULED_TASK.name, "armed"): armed,
            (SCHEDULED_TASK.name, "stalled"): len(self._catalog.tasks()) - armed,
            (TASK_RUN.name, "requested"): len(self._catalog.objects.all(TASK_RUN)),
        }
        for kind in AWAITED:
            if kind not in (SCHEDULED_TASK, TASK_RUN):
                objects = self._catalog.objects.all(kind)
                valid = sum(seen.fault is None for seen in objects)
                counts |= {(kind.name, "valid"): valid, (kind.name, "stalled"): len(objects) - valid}
        return counts


class MetricsServer:
    """`/metrics`, on a port of its own: scraping needs no token of a worker."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._registry = registry
        self._host = host
        self.port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        # Collected on the event loop: the figures are the engine's own, and only that thread may read them.
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": _METRICS_TYPE})
