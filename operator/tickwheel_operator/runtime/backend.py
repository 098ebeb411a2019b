"""What the gateway asks of this process: the host of the partition it leads, or where the leader is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import cast

from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.messages import CancelRun, Command, Effect, Pull, Report, StartBackfill, Submit
from tickwheel_operator.gateway.backend import Leadership as LeadershipView
from tickwheel_operator.gateway.backend import NotLeader
from tickwheel_operator.gateway.schemas import Replica
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

__all__ = ["HostBackend"]


class HostBackend:
    """The gateway's `Backend` over the host that leads now, if any."""

    def __init__(
        self,
        host: Callable[[], PartitionHost | None],
        leader: Callable[[], tuple[str, int]],
        own_url: Callable[[], str],
        clock: Clock,
    ) -> None:
        """`leader` answers the leader's URL (empty: none is known) and a lower bound of its epoch."""
        self._host = host
        self._leader = leader
        self._url = own_url
        self._clock = clock
        self._requests = itertools.count(1)

    def leadership(self) -> LeadershipView:
        host = self._host()
        if host is not None and host.leading:
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

    async def call(self, command: Command) -> Effect:
        host = self._host()
        if host is None:
            raise NotLeader(self.leadership().leader_url)
        try:
            return await host.call(cast("Pull | Report | Submit | StartBackfill | CancelRun", command))
        except TermEnded:
            raise NotLeader(self.leadership().leader_url) from None

    def new_request(self) -> Hashable:
        return next(self._requests)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def now_us(self) -> int:
        return self._clock.now_us()
