"""What a partition's store retains, and the deletion of what a checkpoint stands for.

`ledger.log` notes each segment that it finds or writes, and begins a sweep after each checkpoint. Nothing is deleted
but what lies below the checkpoint's generation, and of that no `Epoch` segment that may still have to fence: the name
at which a sleeping leader would wake up must never be free again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from tickwheel_operator.clock import Clock
from tickwheel_operator.ledger.limits import LedgerLimits, LedgerStats
from tickwheel_operator.ledger.protocol import LedgerError, SegmentHeader, SegmentKind, SegmentStore

__all__ = ["Compaction"]

_LOG = logging.getLogger(__name__)
_DELETE_BATCH = 50
_GENTLY = 1_500
"""Up to so many segments a sweep rests twice as long as each batch took. To delete a segment costs the API server and
etcd as much as to create it (some 3 ms), and all at once they stand in the way of appends for seconds."""


class Compaction:
    """Of one partition, for one term."""

    def __init__(
        self, store: SegmentStore, partition: int, clock: Clock, limits: LedgerLimits, stats: LedgerStats
    ) -> None:
        self._store = store
        self._partition = partition
        self._clock = clock
        self._limits = limits
        self._stats = stats
        self._retained: dict[int, SegmentHeader] = {}
        self._generation = 0
        """All below it is to go, but for epochs."""
        self._sweeper: asyncio.Task[None] | None = None

    def note(self, header: SegmentHeader) -> None:
        """It is in the store."""
        if header.sequence not in self._retained:
            self._stats.retained_segments += 1
            self._stats.retained_bytes += header.size_bytes
        self._retained[header.sequence] = header

    def tail(self, generation: int) -> tuple[int, int]:
        """Segments of facts, and their bytes, that a takeover replays after the checkpoint of this generation."""
        facts = [h for h in self._retained.values() if h.sequence >= generation and h.kind is SegmentKind.FACTS]
        return len(facts), sum(header.size_bytes for header in facts)

    def begin(self, generation: int) -> None:
        """Delete in the background what lies below; a sweep that is running goes on with it."""
        self._generation = generation
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep(), name=f"compaction of partition {self._partition}")

    def garbage(self, generation: int) -> list[int]:
        """What a checkpoint lets go of: all below its generation but the `Epoch` segments that still fence."""
        oldest_ms = self._clock.now_ms() - self._limits.epoch_keep_ms
        below = [header for sequence, header in sorted(self._retained.items()) if sequence < generation]
        epochs = [header for header in below if header.kind is SegmentKind.EPOCH]
        newest = {header.sequence for header in epochs[max(0, len(epochs) - self._limits.epochs_kept) :]}
        return [
            header.sequence
            for header in below
            if header.kind is not SegmentKind.EPOCH or (header.created_ms < oldest_ms and header.sequence not in newest)
        ]

    async def swept(self) -> None:
        """Wait until the sweep that runs has ended, well or not."""
        if self._sweeper is not None:
            await asyncio.wait([self._sweeper])

    async def close(self) -> None:
        """Stop; the next leader's checkpoint deletes the rest."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])

    async def _sweep(self) -> None:
        swept = None
        while swept != self._generation:
            swept = self._generation
            if not await self._delete(self.garbage(swept)):
                return

    async def _delete(self, garbage: Sequence[int]) -> bool:
        """Batch by batch; false: the store refused one."""
        loop = asyncio.get_running_loop()
        rests = 2 if len(garbage) <= _GENTLY else 0
        for start in range(0, len(garbage), _DELETE_BATCH):
            batch = garbage[start : start + _DELETE_BATCH]
            began = loop.time()
            try:
                await self._store.delete(self._partition, batch)
            except LedgerError as error:
                self._stats.failed_sweeps += 1
                _LOG.warning(
                    "partition %d: %d old segments could not be deleted; the next checkpoint tries again: %s",
                    self._partition, len(garbage) - start, error,
                )  # fmt: skip
                return False
            for sequence in batch:
                if (gone := self._retained.pop(sequence, None)) is not None:
                    self._stats.retained_segments -= 1
                    self._stats.retained_bytes -= gone.size_bytes
            await asyncio.sleep(rests * (loop.time() - began))
        return True
