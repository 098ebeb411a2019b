"""The stores behind the network: segments and Leases, each kept once, reached by each node through messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

import msgspec
from tests.simulation.record import Record
from tests.simulation.world import Lost, World

from tickwheel_operator.election.lease import Lease, LeaseConflict, LeaseUnavailable
from tickwheel_operator.ledger.protocol import (
    OutcomeUnknown,
    Segment,
    SegmentExists,
    SegmentHeader,
    StoreUnavailable,
)

T = TypeVar("T")

__all__ = ["Leases", "NodeLeases", "NodeSegments", "Segments"]

_TIMEOUT_S = 0.4
_LOSS = 0.02


class Segments:
    """All segments, where they are durable."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.kept: dict[int, Segment] = {}

    def put(self, segment: Segment) -> None:
        if segment.sequence in self.kept:
            raise SegmentExists(f"{segment.sequence}")
        self.record.segment_written(segment)
        self.kept[segment.sequence] = segment


class NodeSegments:
    """A `SegmentStore` as one node reaches it. A create that was lost, or given up, may yet arrive."""

    def __init__(self, world: World, segments: Segments) -> None:
        self._world = world
        self._segments = segments

    async def create(self, segment: Segment) -> None:
        if self._world.chance(0.01):
            raise StoreUnavailable("connection refused")
        try:
            await _ask(self._world, lambda: self._segments.put(segment))
        except Lost:
            raise OutcomeUnknown("no answer") from None

    async def read(self, partition: int, sequence: int) -> Segment | None:
        return await self._read(lambda: self._segments.kept.get(sequence))

    async def list(self, partition: int) -> list[SegmentHeader]:
        def listed() -> list[SegmentHeader]:
            return [segment for _, segment in sorted(self._segments.kept.items())]

        return await self._read(listed)

    async def delete(self, partition: int, sequences: Sequence[int]) -> None:
        def drop() -> None:
            for sequence in sequences:
                self._segments.kept.pop(sequence, None)

        try:
            await _ask(self._world, drop)
        except Lost:
            raise OutcomeUnknown("no answer") from None

    async def close(self) -> None: ...

    async def _read(self, serve: Callable[[], T]) -> T:
        try:
            return await _ask(self._world, serve)
        except Lost:
            raise StoreUnavailable("no answer") from None


class Leases:
    """All Leases."""

    def __init__(self) -> None:
        self.kept: dict[str, Lease] = {}
        self._version = 0

    def put(self, name: str, lease: Lease) -> Lease:
        self._version += 1
        self.kept[name] = msgspec.structs.replace(lease, version=str(self._version))
        return self.kept[name]


class NodeLeases:
    """A `LeaseStore` as one node reaches it."""

    def __init__(self, world: World, leases: Leases) -> None:
        self._world = world
        self._leases = leases

    async def get(self, name: str) -> Lease | None:
        return await self._call(lambda: self._leases.kept.get(name))

    async def create(self, name: str, lease: Lease) -> Lease:
        def put() -> Lease:
            if name in self._leases.kept:
                raise LeaseConflict("exists")
            return self._leases.put(name, lease)

        return await self._call(put)

    async def update(self, name: str, lease: Lease) -> Lease:
        def put() -> Lease:
            current = self._leases.kept.get(name)
            if current is None or current.version != lease.version:
                raise LeaseConflict("changed")
            return self._leases.put(name, lease)

        return await self._call(put)

    async def watch(self, name: str) -> AsyncGenerator[Lease | None, None]:
        await asyncio.Event().wait()
        yield None

    async def close(self) -> None: ...

    async def _call(self, serve: Callable[[], T]) -> T:
        try:
            return await _ask(self._world, serve)
        except Lost:
            raise LeaseUnavailable("no answer") from None


async def _ask(world: World, serve: Callable[[], T]) -> T:
    def handle(answer: Callable[[object, BaseException | None], None]) -> None:
        try:
            result = serve()
        except (SegmentExists, LeaseConflict) as error:
            answer(None, error)
        else:
            answer(result, None)

    answered: T = await world.ask(handle, _TIMEOUT_S, _LOSS)
    return answered
