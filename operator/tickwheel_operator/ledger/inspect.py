"""What is in a partition's log, and whether it can be trusted: for `tickwheel ledger status` and `verify`.

It only reads, and needs no Lease: a leader may append meanwhile. Segments that a leader compacts away while they are
inspected are left out, not reported as missing.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator

import msgspec

from tickwheel_operator.engine.core import Engine
from tickwheel_operator.ledger import codec, folding, replay
from tickwheel_operator.ledger.folding import Folded
from tickwheel_operator.ledger.protocol import (
    LedgerCorrupt,
    Segment,
    SegmentHeader,
    SegmentKind,
    SegmentStore,
    segment_name,
)

__all__ = ["Epoch", "Finding", "LedgerStatus", "Severity", "status", "verify"]


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One takeover that the log still remembers."""

    epoch: int
    sequence: int
    leader: str
    at_ms: int
    """The leader's wall clock."""


class LedgerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A partition's log in numbers."""

    partition: int
    segments: dict[SegmentKind, int]
    size_bytes: int
    """Of the data that is retained."""
    last_sequence: int
    epochs: list[Epoch]
    """Oldest first; the last one leads, or led last."""
    checkpoint_sequence: int
    """First chunk of the newest complete checkpoint; 0 where there is none."""
    checkpoint_chunks: int
    checkpoint_bytes: int
    checkpoint_ms: int
    """When it was written, by its leader's wall clock; 0 where there is none."""
    tail_segments: int
    """Segments of facts after it: what a takeover replays."""
    tail_bytes: int
    leftovers: int
    """Segments below the newest checkpoint that compaction has not deleted yet, `Epoch` segments not counted."""


class Severity(enum.StrEnum):
    ERROR = "Error"
    """The log cannot be replayed as it is: facts are lost or damaged."""
    WARNING = "Warning"
    """Replay works, but something is not as a leader leaves it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with the log."""

    severity: Severity
    segment: str
    """The segment's name, or empty where it is about more than one."""
    message: str


async def status(store: SegmentStore, partition: int) -> LedgerStatus:
    """The numbers. Raises what the store raises, and `LedgerCorrupt` for an `Epoch` segment that cannot be read."""
    headers = await store.list(partition)
    chosen = replay.choose(headers)
    epochs = []
    for header in headers:
        if header.kind is SegmentKind.EPOCH:
            segment = await store.read(partition, header.sequence)
            if segment is not None:
                record = codec.decode_epoch(segment.data, where=segment_name(partition, header.sequence))
                epochs.append(
                    Epoch(epoch=header.epoch, sequence=header.sequence, leader=record.leader, at_ms=record.at_ms)
                )
    first = chosen.checkpoint[0] if chosen.checkpoint else None
    return LedgerStatus(
        partition=partition,
        segments={kind: sum(header.kind is kind for header in headers) for kind in SegmentKind},
        size_bytes=_size(headers),
        last_sequence=headers[-1].sequence if headers else 0,
        epochs=epochs,
        checkpoint_sequence=first.sequence if first else 0,
        checkpoint_chunks=len(chosen.checkpoint),
        checkpoint_bytes=_size(chosen.checkpoint),
        checkpoint_ms=first.created_ms if first else 0,
        tail_segments=len(chosen.facts),
        tail_bytes=_size(chosen.facts),
        leftovers=len(_leftovers(headers, chosen)),
    )


async def verify(
    store: SegmentStore, partition: int, *, into: Callable[[], Folded] = lambda: Engine(now_ms=0)
) -> list[Finding]:
    """Read every segment that counts, check it, and fold it as a takeover does; errors first. Empty where all is well.

    Raises `StoreUnavailable` and `StoreRefused`.
    """
    try:
        headers = await store.list(partition)
    except LedgerCorrupt as error:
        return [Finding(severity=Severity.ERROR, segment="", message=str(error))]
    verification = _Verification(store, partition, headers, into())
    await verification.run()
    return verification.errors + verification.warnings + _warnings(partition, headers, verification.chosen)


class _Verification:
    """One reading of a log. No error is found exactly where a takeover would succeed."""

    def __init__(self, store: SegmentStore, partition: int, headers: list[SegmentHeader], into: Folded) -> None:
        self._store = store
        self._partition = partition
        self._headers = headers
        self.chosen = replay.choose(headers)
        self.errors = [Finding(severity=Severity.ERROR, segment="", message=fault) for fault in replay.faults(headers)]
        self.warnings: list[Finding] = []
        self._into = into
        self._folds = True
        """All up to here was folded; else what comes next need not fit."""

    async def run(self) -> None:
        identity = await self._identity()
        await self._checkpoint()
        for header in self.chosen.tail:
            await self._segment(header, identity)

    async def _identity(self) -> str:
        """Of the log, as its newest takeover says, which compaction keeps."""
        newest = next((header for header in reversed(self._headers) if header.kind is SegmentKind.EPOCH), None)
        if newest is None:
            return ""
        name = segment_name(self._partition, newest.sequence)
        with self._finding(name):
            if (segment := await self._read(newest)) is not None:
                return codec.decode_epoch(segment.data, where=name).ledger
        return ""

    async def _checkpoint(self) -> None:
        chunks: list[tuple[str, bytes]] = []
        for header in self.chosen.checkpoint:
            name = segment_name(self._partition, header.sequence)
            with self._finding(name):
                if (segment := await self._read(header)) is not None:
                    codec.decode_checkpoint_part(segment.data, where=name)
                    chunks.append((name, segment.data))
        if not chunks or not self._folds:
            return
        with self._finding(chunks[0][0]):
            folding.restore(self._into, codec.decode_checkpoint(chunks), where=chunks[0][0])

    async def _segment(self, header: SegmentHeader, identity: str) -> None:
        name = segment_name(self._partition, header.sequence)
        if header.kind is SegmentKind.CHECKPOINT:  # of one that is not finished: a takeover does not read it
            try:
                if (segment := await self._read(header)) is not None:
                    codec.decode_checkpoint_part(segment.data, where=name)
            except LedgerCorrupt as error:
                self.warnings.append(Finding(severity=Severity.WARNING, segment=name, message=str(error)))
            return
        with self._finding(name):
            segment = await self._read(header)
            if segment is None:
                return
            if header.kind is SegmentKind.EPOCH:
                replay.check_identity(codec.decode_epoch(segment.data, where=name), identity, where=name)
                return
            facts = codec.decode_facts(segment.data, where=name)
            if self._folds:
                folding.replay(self._into, facts, where=name)

    async def _read(self, header: SegmentHeader) -> Segment | None:
        """None: it was compacted away while this reads, so that what comes next cannot be folded."""
        segment = await self._store.read(self._partition, header.sequence)
        if segment is not None:
            replay.check(header, segment)
            return segment
        if header.sequence < replay.choose(await self._store.list(self._partition)).base:
            self._folds = False
            return None
        raise LedgerCorrupt(f"{segment_name(self._partition, header.sequence)} was listed, but is not there any more")

    @contextlib.contextmanager
    def _finding(self, segment: str) -> Iterator[None]:
        """What is wrong is found, and the reading goes on; folding does not."""
        try:
            yield
        except LedgerCorrupt as error:
            self._folds = False
            found = Finding(severity=Severity.ERROR, segment=segment, message=str(error))
            if found not in self.errors:
                self.errors.append(found)


def _warnings(partition: int, headers: list[SegmentHeader], chosen: replay.Plan) -> list[Finding]:
    found = []
    complete = {header.sequence for chunks in replay.checkpoints(headers) for header in chunks}
    for header in chosen.tail:
        if header.kind is SegmentKind.CHECKPOINT and header.sequence not in complete and header.chunk == 0:
            found.append(
                Finding(
                    severity=Severity.WARNING,
                    segment=segment_name(partition, header.sequence),
                    message=f"a checkpoint of {header.chunks} chunks is not finished: it is being written, or was "
                    "given up; replay ignores it",
                )
            )
    leftovers = _leftovers(headers, chosen)
    if leftovers:
        found.append(
            Finding(
                severity=Severity.WARNING,
                segment=segment_name(partition, leftovers[0].sequence),
                message=f"{len(leftovers)} segments below the newest checkpoint were not deleted; "
                "the next checkpoint deletes them",
            )
        )
    return found


def _leftovers(headers: list[SegmentHeader], chosen: replay.Plan) -> list[SegmentHeader]:
    return [h for h in headers if h.sequence < chosen.base and h.kind is not SegmentKind.EPOCH]


def _size(headers: list[SegmentHeader] | tuple[SegmentHeader, ...]) -> int:
    return sum(header.size_bytes for header in headers)
