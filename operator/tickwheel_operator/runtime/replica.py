"""What each replica of the operator has once, whatever it leads: watch, catalog, gateway, pools, certificates, metrics.

    watch -> catalog, requests --snapshot, deltas--> partition's host <--commands-- gateway <- workers
                                                        | facts, views
                                                        v
                                             ledger (Kubernetes), projector

The parts are made here, and told when a term begins and ends. What belongs to a partition (its Lease, its ledger, its
terms) is in `runtime.partitions`. `runtime.operator` makes one replica and runs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from tickwheel_operator.clock import Clock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.census import Census
from tickwheel_operator.controllers.ownermarks import OwnerMarks
from tickwheel_operator.controllers.ownership import Ownership, OwnershipConfig
from tickwheel_operator.controllers.pods import PodWatch
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.vanished import Vanished, watched_kinds
from tickwheel_operator.controllers.watch import Watch, WatchConfig
from tickwheel_operator.election.lease import LEASE_NAME
from tickwheel_operator.engine.messages import WorkerGone
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.connections import ConnectionLimits
from tickwheel_operator.gateway.server import Gateway
from tickwheel_operator.identity.pod_owners import PodOwners
from tickwheel_operator.kube.clients import ApiClients
from tickwheel_operator.kube.resources import OURS
from tickwheel_operator.objectfaults import ObjectFaults
from tickwheel_operator.pools.deployments import Deployments
from tickwheel_operator.pools.reconciler import PoolConfig
from tickwheel_operator.runtime.access import access
from tickwheel_operator.runtime.backend import HostBackend
from tickwheel_operator.runtime.certificates import certificates, scheme, service_url
from tickwheel_operator.runtime.descriptors import connections_with_descriptors
from tickwheel_operator.runtime.leadership import Failure
from tickwheel_operator.runtime.memory import settle_memory
from tickwheel_operator.runtime.observability import MetricsServer, Observability
from tickwheel_operator.runtime.partition import PartitionHost
from tickwheel_operator.runtime.partitions import Partition
from tickwheel_operator.runtime.pools import Pools
from tickwheel_operator.runtime.settings import Settings
from tickwheel_operator.runtime.supervision import kept_alive

__all__ = ["Replica"]

_log = logging.getLogger(__name__)
_PARTITION = 0


class Replica:
    """One process. It hears of the terms of its partition (`partitions.TermListener`)."""

    def __init__(self, clients: ApiClients, settings: Settings, clock: Clock, name: str) -> None:
        """`name` is who this process is in the Lease."""
        self._settings = settings
        self._name = name
        self._gateway_port = settings.gateway_port
        self._faults = faults = ObjectFaults()
        self._deployments = Deployments()
        self._catalog = catalog = Catalog(faults)
        self._requests = requests = Requests(clock.now_ms, catalog.objects, faults=faults)
        self._owners = PodOwners(clients.reviews, clock)
        self._certificates = certificates(settings, clients.objects, clock)
        marks = OwnerMarks(clients.objects, namespaces=settings.watch_namespaces, lease_name=LEASE_NAME)
        self._ownership = Ownership(
            marks, clock, own=settings.namespace, config=OwnershipConfig(abandoned_s=settings.abandoned_seconds)
        )
        self._observability = Observability(
            clients.objects,
            catalog,
            requests,
            clock,
            settings,
            lease_name=LEASE_NAME,
            faults=faults,
            ownership=self._ownership,
        )
        self._worker_pods = PodWatch(self._worker_gone, self._owners)
        self._watch = Watch(
            clients.objects,
            catalog,
            requests,
            clock,
            config=WatchConfig(namespaces=settings.watch_namespaces),
            pods=self._worker_pods,
            deployments=self._deployments,
            faults=faults,
        )
        census = Census(clients.objects, settings.watch_namespaces)
        self._vanished = Vanished(census, watched_kinds(self._worker_pods, self._deployments, catalog))
        self._pools = Pools(
            clients.objects,
            catalog,
            self._deployments,
            self._observability,
            clock,
            PoolConfig(endpoint=service_url(settings), service_accounts=settings.worker_service_accounts),
            namespaces=settings.watch_namespaces,
            ca_bundle=self._certificates.ca_bundle if self._certificates is not None else lambda: "",
            faults=faults,
            config_maps=marks.config_maps,
        )
        self._partition = Partition(
            _PARTITION, clients, catalog, settings, clock,
            identity=name, url=self._url(), missing=lambda uids: census.missing(OURS["ScheduledTask"].plural, uids),
            sink=self._observability.sink, listener=self,
        )  # fmt: skip
        self._backend = HostBackend(lambda: self._partition.host, self._partition.leader, self._url, clock, faults)
        self._access = access(settings, clients.reviews, catalog, self._owners, clock)
        self._connect()

    def _connect(self) -> None:
        """Let the parts hear of each other."""
        self._catalog.unserved, self._ownership.namespaces = self._ownership.fault, self._catalog.namespaces
        self._ownership.on_change = self._catalog.namespaces_changed
        self._ownership.on_foreign = self._observability.served_by_another
        self._observability.show_health(self._watch.health)
        self._observability.show_schemas(self._backend.schemas)
        if self._certificates is not None:
            self._certificates.on_change.append(self._pools.ca_changed)

    # --- terms ---

    def lead(self, host: PartitionHost) -> None:
        """The parts that act on objects and runs begin to."""
        self._catalog.attach(host.post_all)
        self._worker_pods.lead()
        self._requests.lead(self._backend.call, self._backend.new_request)
        self._observability.lead(host, host.ledger)
        self._pools.lead(host.engine)
        self._ownership.lead()

    def follow(self) -> None:
        """They rest."""
        self._catalog.detach()
        self._requests.follow()
        self._observability.follow()
        self._pools.follow()
        self._ownership.follow()

    def engine_failed(self, failure: Failure) -> None:
        """Leave alone the tasks that it was about, or else the worker's process whose message it was."""
        for uid in failure.uids:
            self._catalog.isolate(uid, failure.error)
        if not failure.uids:
            self._backend.isolate(failure.command, failure.error)

    # --- the process ---

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises what ended it, such as `LedgerCorrupt`: a person must look."""
        gateway = await self._gateway()
        settings, observability = self._settings, self._observability
        metrics = MetricsServer(observability.registry, settings.metrics_host, settings.metrics_port)
        await gateway.start()
        self._gateway_port = gateway.port
        await metrics.start()
        _log.info("%s: gateway at %s, metrics on port %d", self._name, self._url(), metrics.port)
        background = [asyncio.create_task(work, name=name) for name, work in self._background().items()]
        leading = asyncio.create_task(self._partition.run(), name="leadership")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({leading, stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
            self._partition.stop()
            await asyncio.wait({leading}, timeout=10)
            for task in done - {stopping}:
                task.result()
        finally:
            await gateway.stop()
            await metrics.stop()
            for task in (leading, stopping, *background):
                task.cancel()
            await asyncio.gather(leading, stopping, *background, return_exceptions=True)

    async def _gateway(self) -> Gateway:
        settings, certificates = self._settings, self._certificates
        authenticator, authorizer = self._access
        gateway = Gateway(
            self._backend,
            authenticator,
            authorizer,
            GatewayConfig(
                host=settings.gateway_host,
                port=settings.gateway_port,
                lease_ms=settings.attempt_lease_ms,
                connections=ConnectionLimits(most=connections_with_descriptors(settings.max_connections)),
            ),
            ready=self._unready,
            faults=self._faults,
            tls=await certificates.start() if certificates is not None else None,
        )
        self._pools.show_refusals(gateway.refusals.latest)
        self._observability.show_identity(
            lambda: gateway.refusals.counts, certificates.expiries if certificates is not None else dict
        )
        return gateway

    def _background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs beside the terms, by the names of the tasks."""
        found: dict[str, Coroutine[Any, Any, None]] = {
            "memory": settle_memory(self._catalog),
            "ownership": self._ownership.run(),
            "watch": self._watch_served(),
            "requests": kept_alive("requests", self._requests.run),
            "projection": kept_alive("projection", self._observability.run),
            "pools": kept_alive("pools", self._pools.run),
            "vanished": self._vanished.run(),
        }
        if self._certificates is not None:
            found["certificates"] = self._certificates.run()
        return found

    async def _watch_served(self) -> None:
        await self._ownership.wait_listed()
        await self._watch.run()

    def _worker_gone(self, gone: WorkerGone) -> None:
        if self._partition.host is not None:
            self._partition.host.post(gone)

    def _url(self) -> str:
        settings = self._settings
        return settings.advertise_url or f"{scheme(settings)}://{settings.identity}:{self._gateway_port}"

    def _unready(self) -> str | None:
        """Why this replica is not ready; None: it is."""
        health = self._watch.health()
        if not self._catalog.synced:
            return f"the catalog is not complete yet: {health.problem or 'the first list is being read'}"
        if health.stale:
            return f"the watch has not agreed with the API server for {health.agreed_age_s:.0f} s: {health.problem}"
        return None
