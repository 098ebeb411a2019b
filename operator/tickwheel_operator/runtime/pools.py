"""The pods of WorkerPools, put together: reconciler of Deployments, autoscaling, the choice of who goes, pod metrics.

`operator` makes one and starts and stops it with the term; `observability` shows what it tells of a pool.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.clock import Clock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.read.views import slots_in_use
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.kinds.workerpool import SeenPool
from tickwheel_operator.kinds.world import Workforce
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.objectfaults import ObjectFaults
from tickwheel_operator.pools.autoscaling import Autoscaler, PoolUnknown
from tickwheel_operator.pools.cluster import PoolCluster
from tickwheel_operator.pools.deletion_cost import DeletionCost
from tickwheel_operator.pools.demand import Need
from tickwheel_operator.pools.deployments import Deployments, PoolProblem
from tickwheel_operator.pools.pod_problems import Refusal
from tickwheel_operator.pools.podmetrics import PodMetrics
from tickwheel_operator.pools.reconciler import PoolConfig, PoolReconciler
from tickwheel_operator.pools.template import CA_CONFIG_MAP, CA_KEY, deployment_name, selector
from tickwheel_operator.runtime.observability import Observability

__all__ = ["Pools"]

_log = logging.getLogger(__name__)
_TRUST_S = 15.0
"""The authority's ConfigMaps are looked at so often."""


class Pools:
    """All that looks after worker pods while this replica leads."""

    def __init__(
        self,
        client: KubeClient,
        catalog: Catalog,
        deployments: Deployments,
        observability: Observability,
        clock: Clock,
        config: PoolConfig,
        *,
        namespaces: tuple[str, ...],
        ca_bundle: Callable[[], str],
        config_maps: Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]],
        faults: ObjectFaults | None = None,
    ) -> None:
        """`namespaces`: those that are served; empty: all. `config_maps` gives all of a name in these."""
        self._config_maps = config_maps
        self._cluster = PoolCluster(client)
        self._catalog = catalog
        self._deployments = deployments
        self._observability = observability
        self._engine: Engine | None = None
        self._refused: Refusal = lambda addresses: None
        self._autoscaler = Autoscaler(
            clock,
            pools=catalog.pool_keys,
            pool=catalog.pool_resource,
            present=self._present,
            changed=self._decided,
            scaled=self._scaled,
            seen=observability.show_pools,
            faults=faults,
        )
        self._metrics = PodMetrics(client, namespaces=namespaces, changed=observability.pool_changed)
        self._reconciler = PoolReconciler(
            self._cluster,
            deployments,
            config,
            pool=catalog.pool_resource,
            pools=catalog.pool_keys,
            ca_bundle=ca_bundle,
            desired_replicas=self._autoscaler.desired_replicas,
            before_scale_down=DeletionCost(self._cluster, self._slots).prepare,
            faults=faults,
            connected=self._connected,
            refused=lambda addresses: self._refused(addresses),
        )
        catalog.on_change.append(self._object_changed)
        deployments.on_change.append(observability.pool_changed)
        deployments.on_problem.append(self._problem)
        observability.show_workforce(self.workforce)

    def show_refusals(self, refused: Refusal) -> None:
        """Who says what the gateway answered to a pod that it did not let in."""
        self._refused = refused

    def lead(self, engine: Engine) -> None:
        """This replica leads now, with this engine."""
        self._engine = engine
        self._reconciler.lead()
        self._autoscaler.lead(engine)
        self._metrics.lead()

    def follow(self) -> None:
        """The term is over."""
        self._engine = None
        self._reconciler.follow()
        self._autoscaler.follow()
        self._metrics.follow()

    def _object_changed(self, seen: Seen) -> None:
        if isinstance(seen, SeenPool):
            self.changed(seen.namespace, seen.name)

    def changed(self, namespace: str, name: str) -> None:
        """Something about the pool changed."""
        self._reconciler.changed(namespace, name)

    def _decided(self, namespace: str, name: str) -> None:
        """Another number of workers is asked for, or for another reason."""
        self.changed(namespace, name)
        self._observability.pool_changed(namespace, name)

    def ca_changed(self) -> None:
        """Workers are to trust another authority."""
        self._reconciler.ca_changed()

    def workforce(self, namespace: str, name: str) -> Workforce | None:
        """The pods of the pool, for its status; None: it has no template, or its manifest is invalid."""
        pool = self._catalog.pool_resource(namespace, name)
        if pool is None or pool.spec.template is None:
            return None
        deployment = self._deployments.get(namespace, name)
        least = deployment.desired if deployment is not None else 0
        if pool.spec.autoscaling is not None:
            # One that grows is ready all the same, as long as somebody works.
            least = min(least, max(1, pool.spec.autoscaling.min_replicas))
        return Workforce(
            deployment=deployment,
            selector=selector(name),
            least=least,
            usage=self._metrics.usage(namespace, name),
            scaling=self._autoscaler.reason(namespace, name),
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconciler.run(), name="pools-deployments")
            group.create_task(self._autoscaler.run(), name="pools-autoscaling")
            group.create_task(self._metrics.run(), name="pools-metrics")
            group.create_task(self._keep_trust(), name="pools-trust")

    async def _keep_trust(self) -> None:
        """Look whether the ConfigMaps of the authority are still what was written."""
        while True:
            await asyncio.sleep(_TRUST_S)
            if self._engine is None:
                continue
            try:
                found = await self._config_maps(CA_CONFIG_MAP)
            except ApiError as error:
                _log.debug("the ConfigMaps %s cannot be looked at: %s", CA_CONFIG_MAP, error)
                continue
            self._reconciler.trust_seen(
                {item["metadata"]["namespace"]: (item.get("data") or {}).get(CA_KEY, "") for item in found}
            )

    async def _present(self, namespace: str, name: str) -> int | None:
        """How many workers the pool's Deployment asks for, also before the watch has told of it."""
        live = self._deployments.live(namespace, name)
        if live is not None:
            return live.desired
        try:
            raw = await self._cluster.read(namespace, deployment_name(name))
        except ApiError as error:
            raise PoolUnknown(str(error)) from error
        return None if raw is None else self._deployments.read(raw).desired

    def _scaled(self, pool: WorkerPool, before: int, decided: Need) -> None:
        self._observability.pool_scaled(pool, before, decided.workers, decided.reason)

    def _slots(self, namespace: str, name: str) -> dict[str, tuple[int, bool]]:
        engine = self._engine
        return {} if engine is None else slots_in_use(engine.state, engine.router, namespace, name)

    def _connected(self, namespace: str, name: str) -> Collection[str] | None:
        if self._engine is None:
            return None
        return [worker for worker, (_, draining) in self._slots(namespace, name).items() if not draining]

    def _problem(self, namespace: str, name: str, before: PoolProblem | None, now: PoolProblem | None) -> None:
        """Tell of a pool that stalls, for another reason than before, or no longer."""
        stalled, was = now is not None and now.stalled, before is not None and before.stalled
        pool = self._catalog.pool_resource(namespace, name)
        if pool is None or (not stalled and not (was and now is None)):
            return
        if now is None:
            self._observability.pool_settled(pool)
        elif not was or before is None or before.reason != now.reason:
            self._observability.pool_stalled(pool, now.reason, now.message)
