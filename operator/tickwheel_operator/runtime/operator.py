"""The operator's process, put together: watch, election, partition, gateway, metrics. The only place that knows all.

    watch -> catalog, requests --snapshot, deltas--> partition's host <--commands-- gateway <- workers
                                                        | facts, views
                                                        v
                                             ledger (Kubernetes), projector

Everything has one owner here and ends with `stop()`: the gateway last takes reports, the host appends what it decided,
the Lease is released, and a successor goes on within about a second.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.census import Census
from tickwheel_operator.controllers.ownermarks import OwnerMarks
from tickwheel_operator.controllers.ownership import Ownership, OwnershipConfig
from tickwheel_operator.controllers.pods import PodWatch
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.vanished import Vanished, watched_kinds
from tickwheel_operator.controllers.watch import Watch, WatchConfig
from tickwheel_operator.election.config import ElectionConfig
from tickwheel_operator.election.elector import Elector
from tickwheel_operator.election.identity import make_identity
from tickwheel_operator.election.kubernetes import KubernetesLeaseStore
from tickwheel_operator.election.lease import LEASE_NAME
from tickwheel_operator.election.peers import Peers
from tickwheel_operator.engine.messages import WorkerGone
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.connections import ConnectionLimits
from tickwheel_operator.gateway.server import Gateway
from tickwheel_operator.identity.pod_owners import PodOwners
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.clients import ApiClients, open_clients
from tickwheel_operator.ledger.kubernetes import KubernetesSegmentStore
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.objectfaults import ObjectFaults
from tickwheel_operator.pools.deployments import Deployments
from tickwheel_operator.pools.reconciler import PoolConfig
from tickwheel_operator.runtime import identity
from tickwheel_operator.runtime.backend import HostBackend
from tickwheel_operator.runtime.descriptors import connections_with_descriptors
from tickwheel_operator.runtime.leadership import Failure, Leadership, LeadershipConfig
from tickwheel_operator.runtime.memory import settle_memory
from tickwheel_operator.runtime.observability import MetricsServer, Observability
from tickwheel_operator.runtime.partition import CommitConfig, PartitionHost
from tickwheel_operator.runtime.pools import Pools
from tickwheel_operator.runtime.settings import Settings
from tickwheel_operator.runtime.supervision import kept_alive

__all__ = ["Operator"]

_log = logging.getLogger(__name__)
_PARTITION = 0


class Operator:
    """One replica."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        # A restarted process is another candidate than the one before it, though the pod's name is the same.
        self._identity = make_identity(settings.identity, started_ms=self._clock.now_ms(), nonce=secrets.token_hex(4))
        self._stop = asyncio.Event()
        self._gateway_port = settings.gateway_port

    def stop(self) -> None:
        """End in order."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop()`. Raises what ended it, such as `LedgerCorrupt`: a person must look."""
        async with open_clients(self._settings.kubeconfig) as clients:
            await self._serve(clients)

    async def _serve(self, clients: ApiClients) -> None:
        settings, clock, client = self._settings, self._clock, clients.objects
        faults = ObjectFaults()
        catalog = Catalog(faults)
        requests = Requests(clock.now_ms, catalog.objects, faults=faults)
        deployments = Deployments()
        owners = PodOwners(clients.reviews, clock)
        certificates = identity.certificates(settings, client, clock)
        marks = OwnerMarks(client, namespaces=settings.watch_namespaces, lease_name=LEASE_NAME)
        ownership = Ownership(marks, clock, own=settings.namespace, config=self._ownership_config())
        observability = Observability(
            client,
            catalog,
            requests,
            clock,
            settings,
            lease_name=LEASE_NAME,
            faults=faults,
            ownership=ownership,
        )
        catalog.unserved, ownership.namespaces = ownership.fault, catalog.namespaces
        ownership.on_change, ownership.on_foreign = catalog.namespaces_changed, observability.served_by_another
        worker_pods = PodWatch(lambda gone: self._post(leadership, gone), owners)
        watch = Watch(
            client,
            catalog,
            requests,
            clock,
            config=WatchConfig(namespaces=settings.watch_namespaces),
            pods=worker_pods,
            deployments=deployments,
            faults=faults,
        )
        census = Census(client, settings.watch_namespaces)
        vanished = Vanished(census, watched_kinds(worker_pods, deployments, catalog))
        pools = Pools(
            client,
            catalog,
            deployments,
            observability,
            clock,
            self._pool_config(),
            namespaces=settings.watch_namespaces,
            ca_bundle=certificates.ca_bundle if certificates is not None else lambda: "",
            faults=faults,
            config_maps=marks.config_maps,
        )
        store = KubernetesSegmentStore(clients.ledger, namespace=settings.namespace)
        elector = self._elector(clients.lease)
        backend = HostBackend(
            lambda: leadership.host,
            lambda: (elector.observed.endpoint, elector.observed.transitions),
            self._url,
            clock,
            faults,
        )
        observability.show_health(watch.health)
        observability.show_schemas(backend.schemas)

        def open_ledger() -> Ledger:
            return Ledger(
                store,
                partition=_PARTITION,
                leader=self._identity,
                clock=clock,
                nonces=lambda: secrets.token_hex(8),
                limits=LedgerLimits(
                    checkpoint_every_segments=settings.checkpoint_segments, max_bytes=settings.ledger_max_bytes
                ),
            )

        def lead(host: PartitionHost) -> None:
            catalog.attach(host.post_all)
            worker_pods.lead()
            requests.lead(backend.call, backend.new_request)
            observability.lead(host, host.ledger)
            pools.lead(host.engine)
            ownership.lead()

        def follow() -> None:
            catalog.detach()
            requests.follow()
            observability.follow()
            pools.follow()
            ownership.follow()

        async def watch_served() -> None:
            await ownership.wait_listed()
            await watch.run()

        def engine_failed(failure: Failure) -> None:
            for uid in failure.uids:
                catalog.isolate(uid, failure.error)
            if not failure.uids:
                backend.isolate(failure.command, failure.error)

        leadership = Leadership(
            elector, open_ledger, catalog, clock, self._leadership_config(),
            missing=lambda uids: census.missing("scheduledtasks", uids), sink=observability.sink,
            on_lead=lead, on_end=follow, on_failure=engine_failed,
        )  # fmt: skip
        authenticator, authorizer = identity.access(settings, clients.reviews, catalog, owners, clock)
        gateway = Gateway(
            backend,
            authenticator,
            authorizer,
            self._gateway_config(),
            ready=lambda: _unready(watch, catalog),
            faults=faults,
            tls=await certificates.start() if certificates is not None else None,
        )
        pools.show_refusals(gateway.refusals.latest)
        observability.show_identity(
            lambda: gateway.refusals.counts, certificates.expiries if certificates is not None else dict
        )
        metrics = MetricsServer(observability.registry, settings.metrics_host, settings.metrics_port)
        await gateway.start()
        self._gateway_port = gateway.port
        await metrics.start()
        _log.info("%s: gateway at %s, metrics on port %d", self._identity, self._url(), metrics.port)
        background = [
            asyncio.create_task(settle_memory(catalog), name="memory"),
            asyncio.create_task(ownership.run(), name="ownership"),
            asyncio.create_task(watch_served(), name="watch"),
            asyncio.create_task(kept_alive("requests", requests.run), name="requests"),
            asyncio.create_task(kept_alive("projection", observability.run), name="projection"),
            asyncio.create_task(kept_alive("pools", pools.run), name="pools"),
            asyncio.create_task(vanished.run(), name="vanished"),
        ]
        if certificates is not None:
            certificates.on_change.append(pools.ca_changed)
            background.append(asyncio.create_task(certificates.run(), name="certificates"))
        if settings.replica_selector:
            peers = Peers(
                clients.lease,
                namespace=settings.namespace,
                selector=settings.replica_selector,
                on_end=elector.replica_ended,
            )
            background.append(asyncio.create_task(peers.run(), name="replicas"))
        leading = asyncio.create_task(leadership.run(), name="leadership")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({leading, stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
            leadership.stop()
            await asyncio.wait({leading}, timeout=10)
            for task in done - {stopping}:
                task.result()
        finally:
            await gateway.stop()
            await metrics.stop()
            for task in (leading, stopping, *background):
                task.cancel()
            await asyncio.gather(leading, stopping, *background, return_exceptions=True)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _elector(self, client: KubeClient) -> Elector:
        settings = self._settings
        return Elector(
            KubernetesLeaseStore(client, namespace=settings.namespace),
            name=LEASE_NAME,
            identity=self._identity,
            endpoint_url=self._url(),
            clock=self._clock,
            config=ElectionConfig(
                lease_duration_ms=settings.lease_duration_ms,
                renew_deadline_ms=settings.renew_deadline_ms,
                retry_period_ms=settings.retry_period_ms,
            ),
            random=random.SystemRandom(),
        )

    def _leadership_config(self) -> LeadershipConfig:
        settings = self._settings
        return LeadershipConfig(
            engine=EngineConfig(
                lease_ms=settings.attempt_lease_ms,
                max_backlog=settings.max_backlog,
                metrics_max_pools=settings.metrics_max_pools,
                metrics_max_tasks=settings.metrics_max_tasks,
            ),
            commit=CommitConfig(interval_ms=settings.commit_interval_ms, early_leases=settings.early_leases),
        )

    def _gateway_config(self) -> GatewayConfig:
        settings = self._settings
        return GatewayConfig(
            host=settings.gateway_host,
            port=settings.gateway_port,
            lease_ms=settings.attempt_lease_ms,
            connections=ConnectionLimits(most=connections_with_descriptors(settings.max_connections)),
        )

    def _ownership_config(self) -> OwnershipConfig:
        return OwnershipConfig(abandoned_s=self._settings.abandoned_seconds)

    def _pool_config(self) -> PoolConfig:
        settings = self._settings
        return PoolConfig(endpoint=identity.service_url(settings), service_accounts=settings.worker_service_accounts)

    def _url(self) -> str:
        settings = self._settings
        return settings.advertise_url or f"{identity.scheme(settings)}://{settings.identity}:{self._gateway_port}"

    @staticmethod
    def _post(leadership: Leadership, command: WorkerGone) -> None:
        if leadership.host is not None:
            leadership.host.post(command)


def _unready(watch: Watch, catalog: Catalog) -> str | None:
    """Why this replica is not ready; None: it is."""
    health = watch.health()
    if not catalog.synced:
        return f"the catalog is not complete yet: {health.problem or 'the first list is being read'}"
    if health.stale:
        return f"the watch has not agreed with the API server for {health.agreed_age_s:.0f} s: {health.problem}"
    return None
