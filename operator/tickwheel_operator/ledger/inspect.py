"""What is in a partition's log, and whether it can be trusted: for `tickwheel ledger status` and `verify`.

It only reads, and needs no Lease: a leader may append meanwhile. Segments that a leader compacts away while they are
inspected are left out, not reported as missing.
"""

from __future__ import annotations

import enum

import msgspec

from tickwheel_operator.ledger import codec, replay
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


async def verify(store: SegmentStore, partition: int) -> list[Finding]:
    """Read every segment that counts, and check it; errors first. Empty where all is well.

    Raises `StoreUnavailable` and `StoreRefused`.
    """
    try:
        headers = await store.list(partition)
    except LedgerCorrupt as error:
        return [Finding(severity=Severity.ERROR, segment="", message=str(error))]
    chosen = replay.choose(headers)
    findings = [Finding(severity=Severity.ERROR, segment="", message=fault) for fault in replay.faults(headers)]
    chunks: list[tuple[str, bytes]] = []
    whole = True
    for header in (*chosen.checkpoint, *chosen.tail):
        name = segment_name(partition, header.sequence)
        try:
            segment = await store.read(partition, header.sequence)
            if segment is None:
                if await _compacted(store, header):
                    continue
                raise LedgerCorrupt(f"{name} was listed, but is not there any more")
            replay.check(header, segment)
            if header.kind is SegmentKind.CHECKPOINT:
                codec.decode_checkpoint_part(segment.data, where=name)
                if header in chosen.checkpoint:
                    chunks.append((name, segment.data))
            else:
                _decode(segment, name)
        except LedgerCorrupt as error:
            whole = whole and header not in chosen.checkpoint
            findings.append(Finding(severity=Severity.ERROR, segment=name, message=str(error)))
    if chunks and whole and len(chunks) == len(chosen.checkpoint):
        try:
            codec.decode_checkpoint(chunks)
        except LedgerCorrupt as error:
            findings.append(Finding(severity=Severity.ERROR, segment=chunks[0][0], message=str(error)))
    return findings + _warnings(partition, headers, chosen)


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


async def _compacted(store: SegmentStore, header: SegmentHeader) -> bool:
    """Whether a checkpoint that came after the list stands for the segment now."""
    return header.sequence < replay.choose(await store.list(header.partition)).base


def _decode(segment: Segment, name: str) -> None:
    if segment.kind is SegmentKind.EPOCH:
        codec.decode_epoch(segment.data, where=name)
    else:
        codec.decode_facts(segment.data, where=name)


def _size(headers: list[SegmentHeader] | tuple[SegmentHeader, ...]) -> int:
    return sum(header.size_bytes for header in headers)
