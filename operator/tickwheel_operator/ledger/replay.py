"""Which stored segments make up a partition's state, and how they are read back.

`ledger.log` replays with it when it opens, `ledger.inspect` reports with it. The rules: what counts is the newest
complete checkpoint and all facts from its generation on, since it stands for what lies below that; facts that were
appended while its chunks were written stand among them. From the generation on there is no gap; an epoch begins with
an `Epoch` segment, is greater than the one before, and nothing of another epoch stands below it until the next one.
Whatever breaks a rule is `LedgerCorrupt`, never skipped. Half-written checkpoints break none: they are ignored. Below
the generation only leftovers of compaction live, and they mean nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from tickwheel_operator.ledger.codec import EpochRecord
from tickwheel_operator.ledger.protocol import (
    LedgerCorrupt,
    Segment,
    SegmentHeader,
    SegmentKind,
    segment_name,
)

__all__ = ["Plan", "check", "check_identity", "checkpoints", "choose", "faults", "plan", "read_all"]

Read: TypeAlias = Callable[[int, int], Coroutine[Any, Any, Segment | None]]

_READS_IN_FLIGHT = 16
"""Segments that are read ahead: one by one, a tail of 1,000 takes 3 s on Kubernetes, so takes well under one."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to read, in order."""

    checkpoint: tuple[SegmentHeader, ...]
    """The chunks of the newest complete checkpoint; empty where there is none."""
    tail: tuple[SegmentHeader, ...]
    """All other segments from its generation on (from the first one, where there is none)."""

    @property
    def base(self) -> int:
        """The lowest sequence that counts; 1 for an empty log."""
        return self.checkpoint[0].generation if self.checkpoint else 1

    @property
    def checkpoint_segment(self) -> str:
        """The name of its first segment; empty where there is none."""
        return segment_name(self.checkpoint[0].partition, self.checkpoint[0].sequence) if self.checkpoint else ""

    @property
    def replayed(self) -> tuple[SegmentHeader, ...]:
        """The part of the tail that is read: facts, and takeovers. Half-written checkpoints mean nothing."""
        return tuple(header for header in self.tail if header.kind is not SegmentKind.CHECKPOINT)

    @property
    def facts(self) -> tuple[SegmentHeader, ...]:
        """The part of the tail that holds facts."""
        return tuple(header for header in self.tail if header.kind is SegmentKind.FACTS)


def plan(headers: Sequence[SegmentHeader]) -> Plan:
    """What to replay. `headers` is all that the store lists. Raises `LedgerCorrupt` where the log breaks a rule."""
    chosen = choose(headers)
    for fault in _faults(chosen):
        raise LedgerCorrupt(fault)
    return chosen


def faults(headers: Sequence[SegmentHeader]) -> list[str]:
    """All rules that the log breaks, one sentence each."""
    return list(_faults(choose(headers)))


def checkpoints(headers: Sequence[SegmentHeader]) -> list[tuple[SegmentHeader, ...]]:
    """The complete checkpoints, in the order in which they were completed."""
    begun: dict[tuple[int, str], list[SegmentHeader]] = {}
    found = []
    for header in headers:
        if header.kind is SegmentKind.CHECKPOINT:
            chunks = begun.setdefault((header.epoch, header.nonce), [])
            if (header.chunk, header.generation) == (len(chunks), (chunks or [header])[0].generation):
                chunks.append(header)
                if len(chunks) == header.chunks:
                    found.append(tuple(chunks))
    return found


async def read_all(read: Read, headers: Iterable[SegmentHeader]) -> AsyncGenerator[Segment, None]:
    """The segments in order, some of them read ahead. `read` is `SegmentStore.read`, or something like it.

    Raises `LedgerCorrupt` where one is not there or is not the listed one, and what `read` raises.
    """
    waiting: deque[tuple[SegmentHeader, asyncio.Task[Segment | None]]] = deque()
    coming = iter(headers)
    try:
        while True:
            while len(waiting) < _READS_IN_FLIGHT and (header := next(coming, None)) is not None:
                name = f"read {segment_name(header.partition, header.sequence)}"
                waiting.append((header, asyncio.create_task(read(header.partition, header.sequence), name=name)))
            if not waiting:
                return
            header, task = waiting[0]
            segment = await task
            waiting.popleft()
            yield _checked(header, segment)
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


def choose(headers: Sequence[SegmentHeader]) -> Plan:
    """What counts, without looking whether it breaks a rule."""
    complete = checkpoints(headers)
    newest = complete[-1] if complete else ()
    base = newest[0].generation if newest else 0
    own = {chunk.sequence for chunk in newest}
    return Plan(checkpoint=newest, tail=tuple(h for h in headers if h.sequence >= base and h.sequence not in own))


def _faults(chosen: Plan) -> list[str]:
    found = []
    expected = chosen.base
    epoch = chosen.checkpoint[0].epoch if chosen.checkpoint else None
    for header in sorted((*chosen.checkpoint, *chosen.tail), key=lambda header: header.sequence):
        name = segment_name(header.partition, header.sequence)
        if header.sequence != expected:
            first, last = (segment_name(header.partition, n) for n in (expected, header.sequence - 1))
            found.append(
                f"{first} to {last} are missing below {name}: facts are lost; restore them from a backup of etcd"
                if chosen.checkpoint or expected > 1
                else f"{first} to {last} are missing and no complete checkpoint stands for them: facts are lost; "
                "restore them from a backup of etcd"
            )
        if header.kind is SegmentKind.EPOCH:
            if epoch is not None and header.epoch <= epoch:
                found.append(f"{name} takes over with epoch {header.epoch}, but epoch {epoch} was there before it")
            epoch = header.epoch
        elif epoch is None:
            found.append(f"{name} is {header.kind} of epoch {header.epoch}, but no Epoch segment stands before it")
            epoch = header.epoch
        elif header.epoch != epoch:
            found.append(
                f"{name} is {header.kind} of epoch {header.epoch} among the segments of epoch {epoch}: "
                "a leader wrote after it was fenced off"
            )
        expected = header.sequence + 1
    return found


def _checked(header: SegmentHeader, segment: Segment | None) -> Segment:
    if segment is None:
        raise LedgerCorrupt(f"{segment_name(header.partition, header.sequence)} was listed, but is not there any more")
    check(header, segment)
    return segment


def check_identity(record: EpochRecord, identity: str, *, where: str) -> None:
    """Raises `LedgerCorrupt` where a takeover is of another log than the newest one, whose identity is given."""
    if record.ledger not in ("", identity):  # earlier builds drew none
        raise LedgerCorrupt(
            f"{where}: it is of ledger {record.ledger}, but the newest takeover is of ledger {identity}: segments of "
            "two ledgers are mixed (docs/backup.md)"
        )


def check(header: SegmentHeader, segment: Segment) -> None:
    """Raises `LedgerCorrupt` where what was read is not what was listed."""
    name = segment_name(header.partition, header.sequence)
    for field in ("partition", "sequence", "kind", "epoch", "nonce", "chunk", "chunks"):
        listed, read = getattr(header, field), getattr(segment, field)
        if listed != read:
            raise LedgerCorrupt(f"{name}: its {field} is {read!r}, but the list says {listed!r}; it was edited")
