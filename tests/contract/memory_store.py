"""Segments in memory, with the faults of a network on request. It passes the contract of the real stores."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Sequence

from tickwheel_operator.ledger.protocol import (
    OutcomeUnknown,
    Segment,
    SegmentExists,
    SegmentHeader,
    StoreForbidden,
    StoreRefused,
    StoreUnavailable,
    segment_name,
)

__all__ = ["Fault", "MemorySegmentStore", "header_of"]


class Fault(enum.Enum):
    """What befalls one call."""

    NONE = enum.auto()
    UNAVAILABLE = enum.auto()
    """Not carried out, and the caller knows."""
    REFUSED = enum.auto()
    FORBIDDEN = enum.auto()
    """As by an API server that has not read its roles yet."""
    LOSE_REQUEST = enum.auto()
    """Not carried out, and the caller cannot know."""
    LOSE_ANSWER = enum.auto()
    """Carried out, and the caller cannot know."""
    LATE = enum.auto()
    """The caller sees a time-out; the request arrives when the test calls `deliver_late`."""
    HANG = enum.auto()
    """Carried out, but no answer comes until the caller is cancelled."""


def header_of(segment: SegmentHeader) -> SegmentHeader:
    return SegmentHeader(**{field: getattr(segment, field) for field in SegmentHeader.__struct_fields__})


class MemorySegmentStore:
    """Several of them may share one `segments`: clients of one storage, each with its own faults."""

    def __init__(self, segments: dict[tuple[int, int], Segment] | None = None) -> None:
        self.segments = {} if segments is None else segments
        self.create_faults: deque[Fault] = deque()
        self.read_faults: deque[Fault] = deque()
        self.list_faults: deque[Fault] = deque()
        self.delete_faults: deque[Fault] = deque()
        self.late: list[Segment] = []
        self.created: list[Segment] = []
        """Every create that was tried, whatever became of it."""
        self.closed = False

    async def create(self, segment: Segment) -> None:
        self.created.append(segment)
        await asyncio.sleep(0)
        fault = _next(self.create_faults)
        if fault is Fault.LATE:
            self.late.append(segment)
            raise OutcomeUnknown("timed out")
        _fail_before(fault)
        self._insert(segment)
        await self._fail_after(fault)

    async def read(self, partition: int, sequence: int) -> Segment | None:
        await asyncio.sleep(0)
        fault = _next(self.read_faults)
        _fail_before(fault)
        return self.segments.get((partition, sequence))

    async def list(self, partition: int) -> list[SegmentHeader]:
        await asyncio.sleep(0)
        _fail_before(_next(self.list_faults))
        return [header_of(s) for (p, _), s in sorted(self.segments.items()) if p == partition]

    async def delete(self, partition: int, sequences: Sequence[int]) -> None:
        await asyncio.sleep(0)
        fault = _next(self.delete_faults)
        _fail_before(fault)
        for sequence in sequences:
            self.segments.pop((partition, sequence), None)
        await self._fail_after(fault)

    async def close(self) -> None:
        self.closed = True

    def deliver_late(self) -> int:
        """Let the requests arrive that were on their way; how many of them created something."""
        created = 0
        while self.late:
            try:
                self._insert(self.late.pop(0))
            except SegmentExists:
                continue
            created += 1
        return created

    def _insert(self, segment: Segment) -> None:
        key = (segment.partition, segment.sequence)
        if key in self.segments:
            raise SegmentExists(segment_name(*key))
        self.segments[key] = segment

    async def _fail_after(self, fault: Fault) -> None:
        if fault is Fault.LOSE_ANSWER:
            raise OutcomeUnknown("connection reset")
        if fault is Fault.HANG:
            await asyncio.Event().wait()


def _next(faults: deque[Fault]) -> Fault:
    return faults.popleft() if faults else Fault.NONE


def _fail_before(fault: Fault) -> None:
    if fault is Fault.UNAVAILABLE:
        raise StoreUnavailable("connection refused")
    if fault is Fault.REFUSED:
        raise StoreRefused("too large")
    if fault is Fault.FORBIDDEN:
        raise StoreForbidden("forbidden")
    if fault is Fault.LOSE_REQUEST:
        raise OutcomeUnknown("connection reset")
