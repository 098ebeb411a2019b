"""The stores behind the network: segments and Leases, each kept once, reached by each node through messages."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

import msgspec
from tests.simulation.loop import current_node
from tests.simulation.record import Record
from tests.simulation.world import API, Answerer, Lost, World

from tickwheel_operator.election.lease import Lease, LeaseConflict, LeaseUnavailable
from tickwheel_operator.ledger.protocol import (
    OutcomeUnknown,
    Segment,
    SegmentExists,
    SegmentHeader,
    StoreForbidden,
    StoreRefused,
    StoreUnavailable,
)

T = TypeVar("T")

__all__ = ["Leases", "NodeLeases", "NodeSegments", "Segments"]

_TIMEOUT_S = 0.4


class Segments:
    """All segments, where they are durable."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.kept: dict[tuple[int, int], Segment] = {}

    def put(self, segment: Segment) -> None:
        name = (segment.partition, segment.sequence)
        if name in self.kept:
            raise SegmentExists(f"{segment.sequence}")
        self.kept[name] = segment
        self.record.segment_written(segment)

    def listed(self, partition: int) -> list[SegmentHeader]:
        """Without the data, as a real store lists them."""
        return [_header(segment) for name, segment in sorted(self.kept.items()) if name[0] == partition]

    def drop(self, partition: int, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            self.kept.pop((partition, sequence), None)
        self.record.compacted(self.listed(partition))


class NodeSegments:
    """A `SegmentStore` as one node reaches it. A create that was lost, or given up, may yet arrive."""

    def __init__(self, world: World, segments: Segments) -> None:
        self._world = world
        self._segments = segments

    async def create(self, segment: Segment) -> None:
        if self._world.chance(self._world.loss / 2):
            raise StoreUnavailable("connection refused")
        if self._world.chance(self._world.loss / 30):
            raise StoreRefused("the quota is used up")
        if self._world.chance(self._world.loss / 10):
            raise StoreForbidden("the roles are not read yet")
        await self._doze()
        try:
            await _ask(self._world, lambda: self._segments.put(segment))
        except Lost:
            raise OutcomeUnknown("no answer") from None

    async def _doze(self) -> None:
        """Now and then the writer falls asleep at the worst moment: just before it sends, or just after."""
        world, node = self._world, current_node()
        if node is None or not world.chance(world.drowsiness):
            return
        seconds, before = world.random.choice((1.7, 2.6, 4.0)), world.random.random() < 0.5
        world.later(0 if before else world.random.uniform(0.000_1, 0.003), lambda: world.freeze(node, seconds))
        if before:
            await asyncio.sleep(0.000_1)

    async def read(self, partition: int, sequence: int) -> Segment | None:
        return await self._read(lambda: self._segments.kept.get((partition, sequence)))

    async def list(self, partition: int) -> list[SegmentHeader]:
        return await self._read(lambda: self._segments.listed(partition))

    async def delete(self, partition: int, sequences: Sequence[int]) -> None:
        try:
            await _ask(self._world, lambda: self._segments.drop(partition, sequences))
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

    def __init__(self, world: World) -> None:
        self._world = world
        self.kept: dict[str, Lease] = {}
        self.watchers: dict[asyncio.Queue[tuple[str, Lease]], None] = {}
        self._version = 0

    def put(self, name: str, lease: Lease) -> Lease:
        self._version += 1
        kept = self.kept[name] = msgspec.structs.replace(lease, version=str(self._version))
        for queue in self.watchers:
            if not self._world.chance(0.2):
                self._world.later(self._world.latency_s(), functools.partial(queue.put_nowait, (name, kept)))
        return kept


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
        """It misses changes, gives some late, and others out of order: it is there for speed only."""
        queue: asyncio.Queue[tuple[str, Lease]] = asyncio.Queue()
        self._leases.watchers[queue] = None
        try:
            while True:
                changed, lease = await queue.get()
                if changed == name:
                    yield lease
        finally:
            self._leases.watchers.pop(queue, None)

    async def close(self) -> None: ...

    async def _call(self, serve: Callable[[], T]) -> T:
        try:
            return await _ask(self._world, serve)
        except Lost:
            raise LeaseUnavailable("no answer") from None


def _header(segment: Segment) -> SegmentHeader:
    return SegmentHeader(
        partition=segment.partition, sequence=segment.sequence, kind=segment.kind, epoch=segment.epoch,
        nonce=segment.nonce, chunk=segment.chunk, chunks=segment.chunks, generation=segment.generation,
        created_ms=segment.created_ms, size_bytes=segment.size_bytes,
    )  # fmt: skip


async def _ask(world: World, serve: Callable[[], T]) -> T:
    def handle(answer: Answerer) -> None:
        try:
            result = serve()
        except (SegmentExists, LeaseConflict) as error:
            answer(None, error)
        else:
            answer(result, None)

    answered: T = await world.ask(API, handle, _TIMEOUT_S)
    return answered
