"""The seam of the ledger: what a store of segments promises. `ledger.log` builds the fenced log on top of it.

Every implementation runs the contract test (`tests/contract/segment_store.py`), the simulated one too.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

__all__ = [
    "MAX_SEGMENT_BYTES",
    "Deposed",
    "LedgerCorrupt",
    "LedgerError",
    "OutcomeUnknown",
    "Segment",
    "SegmentExists",
    "SegmentHeader",
    "SegmentKind",
    "SegmentStore",
    "StoreForbidden",
    "StoreRefused",
    "StoreUnavailable",
    "segment_name",
]

MAX_SEGMENT_BYTES = 512 * 1024
"""The most bytes that a segment's data may have as stored (base64 included, where the store needs it)."""


def segment_name(partition: int, sequence: int) -> str:
    """What messages call a segment, and what a store may name it by."""
    return f"p{partition}-{sequence:012d}"


class SegmentKind(enum.StrEnum):
    """What a segment holds."""

    EPOCH = "Epoch"
    """A takeover. Outlives compaction, so that its name is never free again."""
    FACTS = "Facts"
    CHECKPOINT = "Checkpoint"
    """One chunk of a checkpoint: the state after all that lies below its first chunk."""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """A segment without its data."""

    partition: int
    sequence: int
    """Position in the partition's log, from 1, without gaps when it is written."""
    kind: SegmentKind
    epoch: int
    """The epoch of the leader that wrote it."""
    nonce: str
    """Drawn by the writer for each append, so that it knows its own segment again."""
    chunk: int = 0
    chunks: int = 1
    """A checkpoint's chunks have one nonce; `chunk` counts from 0. Facts may stand between them."""
    generation: int = 0
    """Of a checkpoint's chunk: the sequence from which on the log still counts, as the checkpoint stands for all below
    it. Of others: that of the newest complete checkpoint when it was written; 0 before the first."""
    created_ms: int = 0
    """The writer's wall clock. Only for people, and to tell how old an `Epoch` segment is."""
    size_bytes: int = 0
    """Of the stored data."""


class Segment(SegmentHeader, frozen=True, kw_only=True):
    """One object of the log."""

    data: bytes
    """Encoded by `ledger.codec`: versioned, compressed, with a checksum."""


class LedgerError(Exception):
    """The base of what the ledger raises."""


class SegmentExists(LedgerError):
    """The name is taken. Who holds it is for the caller to read."""


class OutcomeUnknown(LedgerError):
    """The request may or may not have been carried out (connection lost, time-out), and may yet be."""


class StoreUnavailable(LedgerError):
    """The store certainly did not carry it out (connection refused, too many requests, shutting down). Try again."""


class StoreRefused(LedgerError):
    """The store will never accept it (forbidden, too large, invalid). The message says what to mend."""


class StoreForbidden(StoreRefused):
    """The store does not let this process do it, now. An API server that has just started says so too, until it has
    read its roles; so the log tries again for a short while."""


class Deposed(LedgerError):
    """A rival has fenced this leader off. It must stop at once; nothing that it decided since may be released."""


class LedgerCorrupt(LedgerError):
    """Stored data cannot be trusted: checksum, version, a gap. The message names the segment and what to do."""


class SegmentStore(Protocol):
    """Storage of segments with put-if-absent.

    Order and atomicity: `create` is atomic and linearizable: of two creators of one name, exactly one succeeds, and
    after a success every `read` and `list` that starts later sees the segment. `list` and `read` are never stale.
    Nothing is ever updated.
    """

    async def create(self, segment: Segment) -> None:
        """Put if absent. Raises `SegmentExists`, `OutcomeUnknown`, `StoreUnavailable`, `StoreRefused`, or of these
        `StoreForbidden`."""
        ...

    async def read(self, partition: int, sequence: int) -> Segment | None:
        """The segment, or None where there is none. Raises `StoreUnavailable`, `StoreRefused`, `LedgerCorrupt`."""
        ...

    async def list(self, partition: int) -> list[SegmentHeader]:
        """All segments of the partition in the order of their sequences. Raises as `read`."""
        ...

    async def delete(self, partition: int, sequences: Sequence[int]) -> None:
        """Delete; what is not there is no error. Raises `StoreUnavailable`, `OutcomeUnknown` or `StoreRefused`."""
        ...

    async def close(self) -> None:
        """Release connections and files."""
        ...
