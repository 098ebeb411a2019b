"""Sweeps: what a checkpoint lets go of is deleted, also while an earlier sweep is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.contract.clock import ManualClock

from tickwheel_operator.ledger.compaction import Compaction
from tickwheel_operator.ledger.limits import LedgerLimits, LedgerStats
from tickwheel_operator.ledger.protocol import SegmentHeader, SegmentKind


class SlowStore:
    """Deletes when it is told to."""

    def __init__(self) -> None:
        self.deleted: list[int] = []
        self.may = asyncio.Event()

    async def delete(self, partition: int, sequences: Sequence[int]) -> None:
        await self.may.wait()
        self.deleted += sequences


async def test_what_a_later_checkpoint_lets_go_of_is_deleted_by_the_sweep_that_runs() -> None:
    """Or a full store would have to wait for the checkpoint after that, a minute later."""
    store: Any = SlowStore()
    stats = LedgerStats()
    compaction = Compaction(store, 0, ManualClock(), LedgerLimits(), stats)
    for sequence in range(1, 201):
        compaction.note(
            SegmentHeader(partition=0, sequence=sequence, kind=SegmentKind.FACTS, epoch=1, nonce="n", size_bytes=10)
        )
    compaction.begin(60)
    await asyncio.sleep(0)
    compaction.begin(150)
    store.may.set()
    async with asyncio.timeout(30):
        await compaction.swept()
    assert store.deleted == list(range(1, 150))
    assert (stats.retained_segments, stats.retained_bytes) == (51, 510)
