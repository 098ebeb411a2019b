"""One partition as this replica takes part in it: its Lease, its ledger, and the terms in which it leads.

A partition is a slice of all tasks with a leader of its own; there is one so far. `runtime.replica` has what each
process has once, makes a `Partition`, and is told when a term begins and ends. Nothing here knows gateway or watch.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Protocol

from tickwheel_operator.clock import Clock
from tickwheel_operator.election.config import ElectionConfig
from tickwheel_operator.election.elector import Elector
from tickwheel_operator.election.kubernetes import KubernetesLeaseStore
from tickwheel_operator.election.lease import LEASE_NAME
from tickwheel_operator.election.peers import Peers
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.kube.clients import ApiClients
from tickwheel_operator.ledger.kubernetes import KubernetesSegmentStore
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.runtime.leadership import Catalog, Failure, Leadership, LeadershipConfig
from tickwheel_operator.runtime.partition import CommitConfig, PartitionHost, ViewSink
from tickwheel_operator.runtime.settings import Settings
from tickwheel_operator.runtime.unheard import Missing

__all__ = ["Partition", "TermListener"]


class TermListener(Protocol):
    """What a replica does when it begins or ceases to lead a partition."""

    def lead(self, host: PartitionHost) -> None:
        """The log is replayed: from now on this replica decides."""
        ...

    def follow(self) -> None:
        """The term is over, or none began. May be called twice in a row."""
        ...

    def engine_failed(self, failure: Failure) -> None:
        """The engine raised, which ended the term: the next one must leave alone whatever it was about."""
        ...


class Partition:
    """Election, ledger and terms of one partition."""

    def __init__(
        self,
        number: int,
        clients: ApiClients,
        catalog: Catalog,
        settings: Settings,
        clock: Clock,
        *,
        identity: str,
        url: str,
        missing: Missing,
        sink: ViewSink,
        listener: TermListener,
    ) -> None:
        """`identity` is who the Lease says leads, `url` where its gateway is reached; `missing` says which of some
        tasks do not exist."""
        self._number = number
        self._settings = settings
        self._clock = clock
        self._identity = identity
        self._store = KubernetesSegmentStore(clients.ledger, namespace=settings.namespace)
        self._elector = _elector(clients, settings, clock, identity, url)
        self._peers = _peers(clients, settings, self._elector.replica_ended) if settings.replica_selector else None
        self._leadership = Leadership(
            self._elector, self._open_ledger, catalog, clock, _leadership_config(settings),
            missing=missing, sink=sink,
            on_lead=listener.lead, on_end=listener.follow, on_failure=listener.engine_failed,
        )  # fmt: skip

    @property
    def host(self) -> PartitionHost | None:
        """The host of the term that this replica leads now; None while it follows."""
        return self._leadership.host

    def leader(self) -> tuple[str, int]:
        """The leader's URL (empty: none is known) and a lower bound of its epoch, as the Lease says."""
        return self._elector.observed.endpoint, self._elector.observed.transitions

    async def run(self) -> None:
        """Lead whenever elected, until `stop()`. Raises `LedgerCorrupt`: a person must look."""
        tasks = {asyncio.create_task(self._leadership.run(), name="terms")}
        if self._peers is not None:
            tasks.add(asyncio.create_task(self._peers.run(), name="replicas"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """End after what is decided is durable, and release the Lease."""
        self._leadership.stop()

    def _open_ledger(self) -> Ledger:
        settings = self._settings
        return Ledger(
            self._store,
            partition=self._number,
            leader=self._identity,
            clock=self._clock,
            nonces=lambda: secrets.token_hex(8),
            limits=LedgerLimits(
                checkpoint_every_segments=settings.checkpoint_segments, max_bytes=settings.ledger_max_bytes
            ),
        )


def _elector(clients: ApiClients, settings: Settings, clock: Clock, identity: str, url: str) -> Elector:
    return Elector(
        KubernetesLeaseStore(clients.lease, namespace=settings.namespace),
        name=LEASE_NAME,
        identity=identity,
        endpoint_url=url,
        clock=clock,
        config=ElectionConfig(
            lease_duration_ms=settings.lease_duration_ms,
            renew_deadline_ms=settings.renew_deadline_ms,
            retry_period_ms=settings.retry_period_ms,
        ),
        random=random.SystemRandom(),
    )


def _peers(clients: ApiClients, settings: Settings, ended: Callable[[str, int], None]) -> Peers:
    return Peers(clients.lease, namespace=settings.namespace, selector=settings.replica_selector, on_end=ended)


def _leadership_config(settings: Settings) -> LeadershipConfig:
    return LeadershipConfig(
        engine=EngineConfig(
            lease_ms=settings.attempt_lease_ms,
            max_backlog=settings.max_backlog,
            metrics_max_pools=settings.metrics_max_pools,
            metrics_max_tasks=settings.metrics_max_tasks,
        ),
        commit=CommitConfig(interval_ms=settings.commit_interval_ms, early_leases=settings.early_leases),
    )
