"""A rival that takes over while a checkpoint is written: its leader hears of it by the chunk that collides."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from tests.contract.memory_store import MemorySegmentStore

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Deposed, Segment, SegmentKind
from tickwheel_operator.runtime.partition import PartitionHost

_SPEC = TaskSpec(uid="u-1", namespace="default", name="t", generation=1, created_ms=0, pool="p", handler="h")


class _Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


def _ledger(store: MemorySegmentStore, leader: str) -> Ledger:
    return Ledger(
        store, partition=0, leader=leader, clock=SystemClock(), nonces=lambda: secrets.token_hex(8),
        limits=LedgerLimits(checkpoint_every_segments=1),
    )  # fmt: skip


class _TakenOver(MemorySegmentStore):
    """A rival fences just before the first chunk of a checkpoint arrives."""

    async def create(self, segment: Segment) -> None:
        if segment.kind is SegmentKind.CHECKPOINT:
            await _ledger(MemorySegmentStore(self.segments), "b").open(0)
        await super().create(segment)


async def test_a_host_that_a_checkpoint_finds_deposed_leads_no_longer() -> None:
    host = PartitionHost(_ledger(_TakenOver(), "a"), _Term(), SystemClock())
    pool = m.PoolApplied(spec=PoolSpec(namespace="default", name="p"))
    await host.take_over(lambda: [pool, m.TaskApplied(spec=_SPEC)])
    leading = asyncio.create_task(host.run())
    run = m.Submission(key="k", scheduled_ms=0)

    await host.call(m.Submit(request=1, namespace="default", name="t", runs=[run]))

    with pytest.raises(Deposed):
        async with asyncio.timeout(30):
            await leading
    assert not host.leading
