"""Leases in memory, with the faults of a network on request. It passes the contract of the real store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import msgspec
from tests.contract.memory_store import Fault

from tickwheel_operator.election.lease import Lease, LeaseConflict, LeaseUnavailable

__all__ = ["LeaseTable", "MemoryLeaseStore"]


class LeaseTable:
    """What the clients of one storage share."""

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.version = 0
        self.watchers: list[asyncio.Queue[tuple[str, Lease | None]]] = []

    def put(self, name: str, lease: Lease | None) -> Lease | None:
        self.version += 1
        if lease is None:
            self.leases.pop(name, None)
        else:
            lease = self.leases[name] = msgspec.structs.replace(lease, version=str(self.version))
        for watcher in self.watchers:
            watcher.put_nowait((name, lease))
        return lease


class MemoryLeaseStore:
    """One client. `faults` befall its writes, `down` all that it does; `delay_s` is the network's, each way."""

    def __init__(self, table: LeaseTable | None = None, *, watches: bool = True) -> None:
        self.table = table or LeaseTable()
        self.faults: deque[Fault] = deque()
        self.down = False
        self.delay_s = 0.0
        self._watches = watches

    async def get(self, name: str) -> Lease | None:
        await self._network()
        lease = self.table.leases.get(name)
        await asyncio.sleep(self.delay_s)
        return lease

    async def create(self, name: str, lease: Lease) -> Lease:
        fault = await self._network()
        if name in self.table.leases:
            raise LeaseConflict("exists")
        return await self._answer(fault, self.table.put(name, lease))

    async def update(self, name: str, lease: Lease) -> Lease:
        fault = await self._network()
        current = self.table.leases.get(name)
        if current is None or current.version != lease.version:
            raise LeaseConflict("changed")
        return await self._answer(fault, self.table.put(name, lease))

    async def watch(self, name: str) -> AsyncGenerator[Lease | None, None]:
        if not self._watches:
            return
        queue: asyncio.Queue[tuple[str, Lease | None]] = asyncio.Queue()
        self.table.watchers.append(queue)
        try:
            if name in self.table.leases:
                yield self.table.leases[name]
            while True:
                changed, lease = await queue.get()
                if changed == name and not self.down:
                    yield lease
        finally:
            self.table.watchers.remove(queue)

    async def close(self) -> None:
        pass

    async def _network(self) -> Fault:
        await asyncio.sleep(self.delay_s)
        if self.down:
            raise LeaseUnavailable("connection refused")
        fault = self.faults.popleft() if self.faults else Fault.NONE
        if fault in (Fault.LOSE_REQUEST, Fault.UNAVAILABLE):
            raise LeaseUnavailable("connection reset")
        return fault

    async def _answer(self, fault: Fault, lease: Lease | None) -> Lease:
        await asyncio.sleep(self.delay_s)
        if fault is Fault.LOSE_ANSWER:
            raise LeaseUnavailable("connection reset")
        assert lease is not None
        return lease
