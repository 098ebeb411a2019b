"""The contract of `ledger.protocol.SegmentStore`: what every store of segments must do.

A test module of a store subclasses `SegmentStoreContract` and gives the fixture `stores`, which makes clients of one
and the same storage.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from tests.contract.memory_store import header_of

from tickwheel_operator.ledger.protocol import (
    MAX_SEGMENT_BYTES,
    Segment,
    SegmentExists,
    SegmentKind,
    SegmentStore,
)

__all__ = ["SegmentStoreContract", "a_segment"]


def a_segment(
    sequence: int,
    *,
    partition: int = 0,
    kind: SegmentKind = SegmentKind.FACTS,
    epoch: int = 1,
    nonce: str = "n",
    chunk: int = 0,
    chunks: int = 1,
    generation: int = 0,
    data: bytes = b"some data",
) -> Segment:
    return Segment(
        partition=partition, sequence=sequence, kind=kind, epoch=epoch, nonce=nonce, chunk=chunk, chunks=chunks,
        generation=generation, created_ms=1_770_000_000_123, size_bytes=len(data), data=data,
    )  # fmt: skip


class SegmentStoreContract:
    """Give a fixture `stores: Callable[[], SegmentStore]`."""

    @pytest.fixture
    def store(self, stores: Callable[[], SegmentStore]) -> SegmentStore:
        return stores()

    async def test_what_is_created_is_read_as_it_was(self, store):
        segment = a_segment(
            7,
            kind=SegmentKind.CHECKPOINT,
            epoch=12,
            nonce="abc",
            chunk=2,
            chunks=5,
            generation=5,
            data=bytes(range(256)),
        )
        await store.create(segment)
        assert await store.read(0, 7) == segment

    async def test_a_name_is_given_once(self, store):
        first = a_segment(1, nonce="first")
        await store.create(first)
        with pytest.raises(SegmentExists):
            await store.create(a_segment(1, nonce="second"))
        assert await store.read(0, 1) == first

    async def test_of_many_creators_of_a_name_exactly_one_succeeds(self, stores):
        clients = [stores() for _ in range(4)]

        async def try_to(number: int) -> str | None:
            try:
                await clients[number % 4].create(a_segment(1, nonce=f"n{number}"))
            except SegmentExists:
                return None
            return f"n{number}"

        winners = [nonce for nonce in await asyncio.gather(*map(try_to, range(16))) if nonce]
        assert len(winners) == 1
        assert (await clients[3].read(0, 1)).nonce == winners[0]

    async def test_a_created_segment_is_seen_by_every_client_at_once(self, stores):
        writer, reader = stores(), stores()
        for sequence in range(1, 21):
            await writer.create(a_segment(sequence))
            assert await reader.read(0, sequence) is not None
            assert [header.sequence for header in await reader.list(0)] == list(range(1, sequence + 1))

    async def test_a_deleted_segment_is_gone_for_every_client_at_once(self, stores):
        writer, reader = stores(), stores()
        for sequence in range(1, 11):
            await writer.create(a_segment(sequence))
        for sequence in range(1, 11):
            await writer.delete(0, [sequence])
            assert await reader.read(0, sequence) is None
            assert len(await reader.list(0)) == 10 - sequence

    async def test_what_is_not_there_reads_as_none(self, store):
        assert await store.read(0, 1) is None
        assert await store.list(0) == []

    async def test_the_list_has_all_headers_in_the_order_of_the_sequences(self, store):
        segments = {n: a_segment(n, nonce=f"n{n}", data=b"x" * n) for n in (1, 2, 9, 10, 11, 99, 100, 101, 1_000)}
        for sequence in random.Random(1).sample(sorted(segments), len(segments)):
            await store.create(segments[sequence])
        assert await store.list(0) == [header_of(segments[n]) for n in sorted(segments)]

    async def test_partitions_do_not_see_each_other(self, store):
        await store.create(a_segment(1, partition=1, nonce="one"))
        await store.create(a_segment(1, partition=11, nonce="eleven"))
        assert [header.nonce for header in await store.list(1)] == ["one"]
        await store.delete(1, [1])
        assert await store.list(1) == []
        assert (await store.read(11, 1)).nonce == "eleven"

    async def test_delete_takes_the_named_ones_of_all_kinds_and_no_others(self, store):
        kinds = [SegmentKind.EPOCH, SegmentKind.FACTS, SegmentKind.CHECKPOINT]
        for sequence in range(1, 13):
            await store.create(a_segment(sequence, kind=kinds[sequence % 3], generation=sequence // 6))
        await store.delete(0, [1, 2, 4, 5, 6, 9, 12])
        assert [header.sequence for header in await store.list(0)] == [3, 7, 8, 10, 11]

    async def test_many_are_deleted_at_once(self, store):
        for sequence in range(1, 331):
            await store.create(a_segment(sequence))
        await store.delete(0, list(range(1, 325)))
        assert [header.sequence for header in await store.list(0)] == [325, 326, 327, 328, 329, 330]

    async def test_deleting_what_is_not_there_is_no_error(self, store):
        await store.delete(0, [])
        await store.delete(0, [5, 6])
        await store.create(a_segment(5))
        await store.delete(0, [4, 5, 6])
        assert await store.list(0) == []

    async def test_the_largest_segment_fits(self, store):
        data = random.Random(1).randbytes(MAX_SEGMENT_BYTES * 3 // 4)
        await store.create(a_segment(1, data=data))
        assert (await store.read(0, 1)).data == data

    async def test_a_segment_without_data_is_kept(self, store):
        await store.create(a_segment(1, data=b""))
        assert (await store.read(0, 1)).data == b""

    async def test_large_sequences_and_epochs_are_kept(self, store):
        segment = a_segment(999_999_999_999, epoch=2**40)
        await store.create(segment)
        assert await store.read(0, 999_999_999_999) == segment
        assert await store.list(0) == [header_of(segment)]
