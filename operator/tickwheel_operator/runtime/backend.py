"""What the gateway asks of this process: the host of the partition it leads, or where the leader is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import cast

from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.messages import (
    CancelRun,
    Command,
    CommandRefused,
    Effect,
    Pull,
    RefusalReason,
    Report,
    StartBackfill,
    Submit,
    WorkerKey,
)
from tickwheel_operator.gateway.backend import Leadership as LeadershipView
from tickwheel_operator.gateway.backend import NotLeader
from tickwheel_operator.gateway.schemas import Replica
from tickwheel_operator.handlers.known import HandlerSchema, KnownSchemas
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.runtime.parameters import ParameterCheck
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

__all__ = ["HostBackend"]

_MOST_ISOLATED = 1_000
"""Worker processes that are refused; above it the oldest is taken again."""


class HostBackend:
    """The gateway's `Backend` over the host that leads now, if any."""

    def __init__(
        self,
        host: Callable[[], PartitionHost | None],
        leader: Callable[[], tuple[str, int]],
        own_url: Callable[[], str],
        clock: Clock,
        faults: ObjectFaults | None = None,
    ) -> None:
        """`leader` answers the leader's URL (empty: none is known) and a lower bound of its epoch."""
        self.schemas = KnownSchemas(self._live_schemas)
        """What workers registered."""
        self._parameters = ParameterCheck(self.schemas)
        self._host = host
        self._leader = leader
        self._url = own_url
        self._clock = clock
        self._requests = itertools.count(1)
        self._faults = faults or ObjectFaults()
        self._isolated: dict[tuple[WorkerKey, str], str] = {}
        """Worker processes whose message the engine failed at, and what they are told."""

    def leadership(self) -> LeadershipView:
        host = self._host()
        if host is not None and host.surely_leads:
            replica = Replica(url=self._url(), partitions=[0], epoch=host.epoch)
            return LeadershipView(
                is_leader=True,
                epoch=host.epoch,
                ledger=host.ledger_identity,
                leader_url=self._url(),
                partitions=1,
                replicas=(replica,),
            )
        url, epoch = self._leader()
        if not url or url == self._url():
            return LeadershipView(is_leader=False, epoch=epoch)
        replica = Replica(url=url, partitions=[0], epoch=epoch)
        return LeadershipView(is_leader=False, epoch=epoch, leader_url=url, replicas=(replica,))

    def isolate(self, command: object, error: Exception) -> None:
        """The engine failed at this command, and at no task that is known: is it a worker's, the process is refused."""
        if not isinstance(command, Pull | Report):
            return
        key = command.worker.key
        self._faults.record(Layer.ENGINE, "Worker", key.namespace, f"{key.pool}/{key.name}", error)
        if len(self._isolated) >= _MOST_ISOLATED:
            del self._isolated[next(iter(self._isolated))]
        self._isolated[key, command.worker.instance] = (
            f"the operator failed at an earlier message of this worker process ({repr(error)[:200]}), which is a fault "
            "of its own, and takes no more of them; restart the worker, and report what the operator's log has"
        )

    def _refused(self, command: Command) -> CommandRefused | None:
        if not self._isolated or not isinstance(command, Pull | Report):
            return None
        detail = self._isolated.get((command.worker.key, command.worker.instance))
        if detail is None:
            return None
        return CommandRefused(request=command.request, reason=RefusalReason.NOT_POSSIBLE, detail=detail)

    async def call(self, command: Command) -> Effect:
        if (refused := self._refused(command)) is not None:
            return refused
        host = self._host()
        if host is None:
            raise NotLeader(self.leadership().leader_url)
        if isinstance(command, Submit | StartBackfill):
            refused = await self._parameters.refusal(host.engine, command)
            if refused is not None:
                return refused
        try:
            return await host.call(cast("Pull | Report | Submit | StartBackfill | CancelRun", command))
        except TermEnded:
            raise NotLeader(self.leadership().leader_url) from None

    def wants_schemas(self, namespace: str, pool: str, name: str) -> bool:
        return bool(name) and self.schemas.wants(namespace, pool, name)

    def take_schemas(self, namespace: str, pool: str, name: str, schemas: Mapping[str, HandlerSchema]) -> None:
        if name:
            self.schemas.take(namespace, pool, name, schemas)

    def _live_schemas(self, namespace: str, pool: str) -> Collection[str]:
        host = self._host()
        known = host.engine.router.pools.get((namespace, pool)) if host is not None else None
        return known.schemas if known is not None else ()

    def new_request(self) -> Hashable:
        return next(self._requests)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def now_us(self) -> int:
        return self._clock.now_us()
