"""The fenced log of one partition: the only way that facts become durable.

The host of a partition opens it when it has the Lease, appends what the engine decides, and releases effects when
`append` has returned and its Lease is still fresh. What `Ledger` keeps (DESIGN, section 3):

- A takeover is put into the log itself, so that whoever led before collides with it and gets `Deposed`.
- One segment is on its way at a time, in order. A segment whose outcome is unknown keeps its name and content until
  the store has said what became of it, also when the caller gave up waiting: nothing is ever appended around it.
- A checkpoint is written between the appends that go on meanwhile, and stands for what lay below it when it began.
- What lies below a complete checkpoint's generation is deleted, and nothing else; `Epoch` segments stay for days, so
  that the name at which a sleeping leader would wake up is never free again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

import msgspec

from tickwheel_operator.clock import Clock
from tickwheel_operator.ledger import codec, replay
from tickwheel_operator.ledger.compaction import Compaction
from tickwheel_operator.ledger.facts import Fact
from tickwheel_operator.ledger.limits import LedgerLimits, LedgerStats
from tickwheel_operator.ledger.patience import Patience
from tickwheel_operator.ledger.protocol import (
    Deposed,
    LedgerCorrupt,
    OutcomeUnknown,
    Segment,
    SegmentExists,
    SegmentHeader,
    SegmentKind,
    SegmentStore,
    StoreForbidden,
    StoreRefused,
    StoreUnavailable,
    segment_name,
)
from tickwheel_operator.ledger.splitting import encoded

__all__ = ["Appended", "Ledger", "LedgerLimits", "LedgerStats", "Opened", "Replayed"]

_LOG = logging.getLogger(__name__)


class Replayed(msgspec.Struct, frozen=True):
    """One segment of a replay."""

    segment: str
    """Its name, for messages."""
    facts: list[Fact]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A partition taken over. Fold `checkpoint`, then all of `segments`, before the first append (`ledger.folding`)."""

    epoch: int
    identity: str
    """Of the log, the same through all takeovers; a log that was lost and begun again has another one."""
    checkpoint: list[bytes] | None
    """The payloads as they were given to `checkpoint`, or None where there is no checkpoint."""
    checkpoint_segment: str = ""
    """The name of its first segment."""
    segments: AsyncGenerator[Replayed, None]
    """The facts after it, segment by segment, read ahead; close it. Raises `LedgerCorrupt`, or `Deposed` when a rival
    took over in the meantime."""
    tail_segments: int
    """How many `segments` gives."""


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """What one call made durable, with what an earlier call had left unfinished when its caller gave up."""

    first_sequence: int
    last_sequence: int
    size_bytes: int
    """Of the data as given to the store."""
    duration_ms: float


class Ledger:
    """The log of `partition` as one leader sees it. One call at a time, but that a checkpoint may be on its way."""

    def __init__(
        self,
        store: SegmentStore,
        *,
        partition: int,
        leader: str,
        clock: Clock,
        nonces: Callable[[], str],
        limits: LedgerLimits | None = None,
    ) -> None:
        """`leader` is this process's identity, as in the Lease; `nonces` gives a new unguessable string each time."""
        self._store = store
        self._partition = partition
        self._leader = leader
        self._clock = clock
        self._nonces = nonces
        self._limits = limits or LedgerLimits()
        self._epoch = 0
        self._last = 0
        self._generation = 0
        self._deposed = ""
        self._busy = ""
        self._checkpointing = False
        self._lane = asyncio.Lock()
        """Who holds it may write the next segment."""
        self._unresolved: Segment | None = None
        """On its way: it has a name, and that name's fate is not known yet."""
        self._may_arrive = False
        """Whether a try of the unresolved segment had no answer, so that it may be stored yet."""
        self._backlog: deque[bytes] = deque()
        """Encoded facts that wait for a name."""
        self._tail_segments = 0
        self._tail_bytes = 0
        self._checkpoint_bytes = 0
        """Of the last complete checkpoint."""
        self._head_seen = (0, 0)
        """Boot clock and wall clock when the log was last known to end with this leader's own segment."""
        self.stats = LedgerStats(limit_bytes=self._limits.max_bytes)
        self._compaction = Compaction(store, partition, clock, self._limits, self.stats)

    @property
    def epoch(self) -> int:
        """The epoch that `open` took; 0 before."""
        return self._epoch

    @property
    def last_sequence(self) -> int:
        """The newest segment known to be durable."""
        return self._last

    @property
    def checkpoint_due(self) -> bool:
        """Whether the tail is long enough that a checkpoint should be written now.

        A large checkpoint waits for a longer tail, or most of what is written would be checkpoints.
        """
        if self._checkpointing:
            return False
        many, size = self._limits.checkpoint_every_segments, self._checkpoint_bytes
        return (
            self._tail_bytes >= max(self._limits.checkpoint_every_bytes, size)
            or self._tail_segments >= 4 * many
            or (self._tail_segments >= many and 4 * self._tail_bytes >= size)
        )

    @property
    def limits(self) -> LedgerLimits:
        """What bounds it."""
        return self._limits

    @property
    def tail_bytes(self) -> int:
        """Data after the last checkpoint: what another one could let go of."""
        return self._tail_bytes

    async def open(self, epoch_floor: int, *, may_fence: Callable[[], bool] = lambda: True) -> Opened:
        """Take the partition over: fence off whoever led before, and say what to replay.

        `epoch_floor` is the Lease's `leaseTransitions`; `may_fence` says whether the Lease is still fresh: who slept
        through it would only disturb whoever leads now. Raises `Deposed` then, and `LedgerCorrupt`, `StoreRefused`,
        or what the store raised last when the deadline has passed.
        """
        if self._epoch:
            raise RuntimeError("this ledger was opened before; make a new one for each takeover")
        with self._only("open"):
            while True:
                self._head_seen = self._clocks()
                headers = await self._list()
                plan = replay.plan(headers)
                last = headers[-1].sequence if headers else 0
                epoch = max((epoch_floor, *(header.epoch for header in headers))) + 1
                self._generation = plan.checkpoint[0].generation if plan.checkpoint else 0
                identity = await self._identity_of(headers) or self._nonces()
                record = codec.EpochRecord(leader=self._leader, at_ms=self._clock.now_ms(), ledger=identity)
                fence = self._segment(SegmentKind.EPOCH, last + 1, codec.encode_epoch(record), epoch=epoch)
                if not may_fence():
                    raise Deposed(f"{self._leader} lost the Lease before it had taken partition {self._partition} over")
                if await self._put(fence) and await self._ends_with(fence):
                    break
            self._epoch = epoch
            self._note_written(fence)
            for header in headers:
                self._compaction.note(header)
            self._tail_segments = len(plan.tail) + 1
            self._tail_bytes = sum(header.size_bytes for header in plan.tail)
            self._checkpoint_bytes = sum(header.size_bytes for header in plan.checkpoint)
            _LOG.info(
                "partition %d: epoch %d begins at %s; replaying %d checkpoint chunks and %d segments",
                self._partition, epoch, segment_name(self._partition, fence.sequence), len(plan.checkpoint),
                len(plan.facts),
            )  # fmt: skip
            checkpoint = None
            if plan.checkpoint:
                checkpoint = codec.decode_checkpoint(
                    [
                        (segment_name(self._partition, segment.sequence), segment.data)
                        async for segment in self._replayed(plan.checkpoint)
                    ]
                )
            return Opened(
                epoch=epoch,
                identity=identity,
                checkpoint=checkpoint,
                checkpoint_segment=segment_name(self._partition, plan.checkpoint[0].sequence)
                if plan.checkpoint
                else "",
                segments=self._facts(plan.replayed, identity),
                tail_segments=len(plan.facts),
            )

    async def append(self, facts: Sequence[Fact]) -> Appended:
        """Make `facts` durable, in order, after all that was appended before.

        Retries until it is so. Raises `Deposed` when a rival has taken over, `StoreRefused`, or what the store raised
        last when the deadline has passed. When the caller is cancelled, or the deadline passes, the facts are not
        withdrawn: they may be durable already, and else the next append writes them first.
        """
        if not facts:
            raise ValueError("an append needs at least one fact")
        with self._only("append"):
            self._require_leadership()
            self._backlog.extend(encoded(facts, max_bytes=self._limits.max_segment_bytes))
            async with self._lane:
                written = await self._drain()
            self.stats.appends += 1
            return written

    async def checkpoint(self, chunks: Iterable[bytes], *, stands_for: int) -> Appended:
        """Write the state, and let go of what it stands for: all up to the sequence `stands_for`.

        May run beside `append`: its segments take their turns between those of the appends. `chunks` is read bit by
        bit, so it must give the state as it was after `stands_for`, whatever is decided meanwhile. Raises as `append`,
        and RuntimeError where one is being written. When it is not finished, for whatever reason, nothing is lost: the
        log goes on with what it has. What lies below is deleted in the background; what cannot be is tried again at the
        next checkpoint.
        """
        if self._checkpointing:
            raise RuntimeError("checkpoint() while another one of the same ledger is being written")
        self._checkpointing = True
        try:
            self._require_leadership()
            started = asyncio.get_running_loop().time()
            limit = min(self._limits.max_segment_bytes, self._limits.max_chunk_bytes)
            pause_s = self._limits.checkpoint_pause_ms / 1000
            bodies = [body async for body in codec.encode_checkpoint(chunks, max_bytes=limit, pause_s=pause_s)]
            nonce = self._nonces()
            first = 0
            for number, body in enumerate(bodies):
                async with self._lane:
                    if self._unresolved is not None:
                        await self._write(self._unresolved)
                    segment = Segment(
                        partition=self._partition,
                        sequence=self._last + 1,
                        kind=SegmentKind.CHECKPOINT,
                        epoch=self._epoch,
                        nonce=nonce,
                        chunk=number,
                        chunks=len(bodies),
                        generation=stands_for + 1,
                        size_bytes=len(body),
                        created_ms=self._clock.now_ms(),
                        data=body,
                    )
                    await self._write(segment)
                    first = first or segment.sequence
            self._generation = stands_for + 1
            self._tail_segments, self._tail_bytes = self._compaction.tail(self._generation)
            self._checkpoint_bytes = sum(map(len, bodies))
            self.stats.checkpoints += 1
            self._compaction.begin(self._generation)
            return Appended(
                first_sequence=first,
                last_sequence=self._last,
                size_bytes=self._checkpoint_bytes,
                duration_ms=(asyncio.get_running_loop().time() - started) * 1000,
            )
        finally:
            self._checkpointing = False

    async def swept(self) -> None:
        """Wait until the compaction that the last checkpoint began has ended, well or not."""
        await self._compaction.swept()

    async def close(self) -> None:
        """Stop compaction. The store stays open: it is its maker's."""
        await self._compaction.close()

    # --- writing -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _only(self, what: str) -> Iterator[None]:
        if self._busy:
            raise RuntimeError(f"{what}() while {self._busy}() of the same ledger is running: one at a time")
        self._busy = what
        try:
            yield
        finally:
            self._busy = ""

    def _require_leadership(self) -> None:
        if not self._epoch:
            raise RuntimeError("open() comes before append() and checkpoint()")
        if self._deposed:
            raise Deposed(self._deposed)

    async def _drain(self) -> Appended:
        """Write what is unresolved, then the backlog, in order."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        first, size = 0, 0
        while self._unresolved or self._backlog:
            segment = self._unresolved
            if segment is None:
                segment = self._segment(SegmentKind.FACTS, self._last + 1, self._backlog.popleft(), epoch=self._epoch)
            await self._write(segment)
            first = first or segment.sequence
            size += segment.size_bytes
        duration_ms = (loop.time() - started) * 1000
        return Appended(first_sequence=first, last_sequence=self._last, size_bytes=size, duration_ms=duration_ms)

    async def _write(self, segment: Segment) -> None:
        """Put one segment at the end of the log. Raises `Deposed` for good when a rival's is there."""
        self._require_leadership()  # who waited for the lane may have lost it meanwhile
        if segment is not self._unresolved:
            self._unresolved = segment
            self._may_arrive = False
        try:
            mine = await self._put(segment)
        except StoreRefused:
            if segment.kind is SegmentKind.CHECKPOINT and not self._may_arrive:
                self._unresolved = None  # The log can do without a checkpoint, not without facts.
            raise
        except asyncio.CancelledError:
            self._may_arrive = True
            raise
        if not mine:
            name = segment_name(self._partition, segment.sequence)
            self._deposed = (
                f"{self._leader} was deposed as the leader of partition {self._partition} in epoch {self._epoch}: "
                f"a rival holds {name}"
            )
            raise Deposed(self._deposed)
        self._unresolved = None
        self._note_written(segment)

    async def _put(self, segment: Segment) -> bool:
        """Create the segment under its name; False where the name is, or was, a rival's."""
        patience = self._patience()
        while True:
            if not await self._is_head(segment):
                return False
            tried = self._clocks()
            try:
                await self._store.create(segment)
            except SegmentExists:
                # Mine, if an earlier try came through whose answer was lost.
                found = await self._read(self._partition, segment.sequence)
                if found is None or not _same(found, segment):
                    # None: it was there a moment ago, and only a leader that came after deletes it.
                    return False
            except OutcomeUnknown as error:
                self._may_arrive = True
                self.stats.unknown_outcomes += 1
                found = await self._read(self._partition, segment.sequence)
                if found is None:
                    await patience.wait(error)
                    continue
                if not _same(found, segment):
                    return False
            except (StoreUnavailable, StoreForbidden) as error:
                await patience.wait(error)
                continue
            self._head_seen = tried
            return True

    async def _is_head(self, segment: Segment) -> bool:
        """Whether the log surely ends below `segment`, or with it, as far as `Epoch` segments live.

        Put-if-absent fences only while the rival's `Epoch` segment exists. A leader that neither wrote nor looked for
        half of that time looks before it writes. By either clock: a hypervisor that pauses the machine may stop the
        boot clock too, and set the wall clock afterwards.
        """
        now = self._clocks()
        if (
            max(after - seen for after, seen in zip(now, self._head_seen, strict=True))
            <= self._limits.epoch_keep_ms // 2
        ):
            return True
        headers = await self._list()
        if any(header.sequence >= segment.sequence and not _same(header, segment) for header in headers):
            return False
        self._head_seen = now
        return True

    def _clocks(self) -> tuple[int, int]:
        return self._clock.boot_ms(), self._clock.now_ms()

    async def _ends_with(self, fence: Segment) -> bool:
        """Whether the new fence stands at the end of the log, where whoever led before must collide with it.

        While it was on its way a rival may have written that name and more, and let go of it by a checkpoint: then
        the name was free again, and the fence stands below that checkpoint, where it stops nobody.
        """
        return not any(header.sequence > fence.sequence for header in await self._list())

    async def _read(self, partition: int, sequence: int) -> Segment | None:
        """Read, however often it must be tried before the deadline."""
        return await self._patience().until_done(lambda: self._store.read(partition, sequence))

    async def _list(self) -> list[SegmentHeader]:
        """List, however often it must be tried before the deadline."""
        return await self._patience().until_done(lambda: self._store.list(self._partition))

    async def _identity_of(self, headers: Sequence[SegmentHeader]) -> str:
        """The log's identity, as its newest takeover says; empty where it has none."""
        newest = next((header for header in reversed(headers) if header.kind is SegmentKind.EPOCH), None)
        if newest is None:
            return ""
        name = segment_name(self._partition, newest.sequence)
        segment = await self._read(self._partition, newest.sequence)
        if segment is None:
            raise LedgerCorrupt(f"{name} was listed, but is not there any more")
        return codec.decode_epoch(segment.data, where=name).ledger

    def _patience(self) -> Patience:
        return Patience(self._limits, self.stats)

    def _segment(self, kind: SegmentKind, sequence: int, data: bytes, *, epoch: int) -> Segment:
        return Segment(
            partition=self._partition, sequence=sequence, kind=kind, epoch=epoch, nonce=self._nonces(),
            generation=self._generation, size_bytes=len(data), created_ms=self._clock.now_ms(), data=data,
        )  # fmt: skip

    def _note_written(self, segment: Segment) -> None:
        values = {field: getattr(segment, field) for field in SegmentHeader.__struct_fields__}
        self._compaction.note(SegmentHeader(**values))
        self._last = segment.sequence
        self._tail_segments += 1
        self._tail_bytes += segment.size_bytes
        self.stats.segments += 1
        self.stats.size_bytes += segment.size_bytes

    # --- replay --------------------------------------------------------------------------------------------------

    async def _facts(self, headers: Sequence[SegmentHeader], identity: str) -> AsyncGenerator[Replayed, None]:
        async with contextlib.aclosing(self._replayed(headers)) as segments:
            async for segment in segments:
                name = segment_name(self._partition, segment.sequence)
                if segment.kind is SegmentKind.EPOCH:
                    replay.check_identity(codec.decode_epoch(segment.data, where=name), identity, where=name)
                else:
                    yield Replayed(name, codec.decode_facts(segment.data, where=name))

    async def _replayed(self, headers: Sequence[SegmentHeader]) -> AsyncGenerator[Segment, None]:
        """The segments. One that is missing since a rival has taken over and compacted is no corruption."""
        try:
            async with contextlib.aclosing(replay.read_all(self._read, headers)) as segments:
                async for segment in segments:
                    yield segment
        except LedgerCorrupt as error:
            now = await self._list()
            rival = next((h for h in now if h.kind is SegmentKind.EPOCH and h.epoch > self._epoch), None)
            if rival is None:
                raise
            name = segment_name(self._partition, rival.sequence)
            self._deposed = f"{self._leader} was deposed while it replayed: {name} begins epoch {rival.epoch}"
            raise Deposed(self._deposed) from error


def _same(found: SegmentHeader, mine: SegmentHeader) -> bool:
    return (found.epoch, found.nonce) == (mine.epoch, mine.nonce)
