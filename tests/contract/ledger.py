"""The contract of `ledger.log.Ledger` on any store: what makes the log safe (DESIGN, section 3).

A test module subclasses `LedgerContract` and gives the fixture `stores`, as for `SegmentStoreContract`. Faults of the
network come from `Unreliable`, which stands between the ledger and the real store.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import pytest
from tests.contract.clock import ManualClock
from tests.contract.memory_store import Fault

from tickwheel_operator.ledger.facts import Clock, Fact, Fired, Submitted
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger, Opened
from tickwheel_operator.ledger.protocol import (
    Deposed,
    LedgerCorrupt,
    OutcomeUnknown,
    Segment,
    SegmentHeader,
    SegmentKind,
    SegmentStore,
    StoreUnavailable,
)

__all__ = ["LIMITS", "LedgerContract", "Unreliable", "a_ledger", "everything", "facts"]

LIMITS = LedgerLimits(
    retry_initial_ms=1, retry_max_ms=4, append_deadline_ms=30_000, checkpoint_every_segments=10, epochs_kept=2
)
_nonces = (f"nonce-{number}" for number in itertools.count())


def facts(number: int, count: int = 3) -> list[Fact]:
    """A recognisable batch."""
    return [Clock(number), Fired(number, number * 100, list(range(count)))]


def a_ledger(
    store: SegmentStore, leader: str = "a", *, clock: ManualClock | None = None, limits: LedgerLimits = LIMITS
) -> Ledger:
    return Ledger(
        store, partition=0, leader=leader, clock=clock or ManualClock(), nonces=lambda: next(_nonces), limits=limits
    )


async def everything(opened: Opened) -> list[Fact]:
    """All facts of the tail."""
    return [fact async for batch in opened.segments for fact in batch.facts]


class Unreliable:
    """A store behind a network that loses what the test tells it to."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self.create_faults: deque[Fault] = deque()
        self.delete_faults: deque[Fault] = deque()
        self.late: list[Segment] = []

    async def create(self, segment: Segment) -> None:
        fault = self.create_faults.popleft() if self.create_faults else Fault.NONE
        if fault is Fault.UNAVAILABLE:
            raise StoreUnavailable("connection refused")
        if fault is Fault.LOSE_REQUEST:
            raise OutcomeUnknown("connection reset")
        if fault is Fault.LATE:
            self.late.append(segment)
            raise OutcomeUnknown("timed out")
        await self._store.create(segment)
        if fault is Fault.LOSE_ANSWER:
            raise OutcomeUnknown("connection reset")

    async def read(self, partition: int, sequence: int) -> Segment | None:
        return await self._store.read(partition, sequence)

    async def list(self, partition: int) -> list[SegmentHeader]:
        return await self._store.list(partition)

    async def delete(self, partition: int, sequences: Sequence[int]) -> None:
        if self.delete_faults:
            self.delete_faults.popleft()
            raise StoreUnavailable("connection refused")
        await self._store.delete(partition, sequences)

    async def close(self) -> None:
        await self._store.close()


class LedgerContract:
    """Give a fixture `stores: Callable[[], SegmentStore]`."""

    @pytest.fixture
    def store(self, stores: Callable[[], SegmentStore]) -> Unreliable:
        return Unreliable(stores())

    @pytest.fixture
    def rival_store(self, stores: Callable[[], SegmentStore], store: Unreliable) -> Unreliable:
        return Unreliable(stores())

    # --- takeover ------------------------------------------------------------------------------------------------

    async def test_an_empty_partition_opens_with_an_epoch_above_the_floor(self, store):
        opened = await a_ledger(store).open(4)
        assert (opened.epoch, opened.checkpoint, await everything(opened)) == (5, None, [])
        (header,) = await store.list(0)
        assert (header.sequence, header.kind, header.epoch) == (1, SegmentKind.EPOCH, 5)

    async def test_the_next_leader_replays_what_the_last_one_appended(self, store, rival_store):
        first = a_ledger(store, "a")
        await first.open(0)
        for number in range(1, 40):
            await first.append(facts(number))
        opened = await a_ledger(rival_store, "b").open(0)
        assert opened.epoch == 2
        assert await everything(opened) == [fact for number in range(1, 40) for fact in facts(number)]

    async def test_an_epoch_is_above_all_that_the_log_has_seen_whatever_the_lease_says(self, store, rival_store):
        assert (await a_ledger(store).open(41)).epoch == 42
        assert (await a_ledger(rival_store).open(0)).epoch == 43

    async def test_the_logs_identity_is_kept_through_takeovers_and_compaction(self, store, rival_store):
        first = a_ledger(store, "a")
        identity = (await first.open(0)).identity
        assert identity
        for number in range(12):
            await first.append(facts(number))
        await first.checkpoint([b"state"], stands_for=first.last_sequence)
        await first.swept()
        for number in range(5):
            opened = await a_ledger(rival_store, f"b{number}").open(0)
            assert opened.identity == identity

    async def test_a_log_that_was_deleted_begins_again_with_another_identity(self, store, rival_store):
        lost = await a_ledger(store, "a").open(0)
        await store.delete(0, [header.sequence for header in await store.list(0)])
        begun = await a_ledger(rival_store, "b").open(0)
        assert begun.identity not in ("", lost.identity)

    async def test_a_takeover_fences_the_old_leader(self, store, rival_store):
        old, new = a_ledger(store, "a"), a_ledger(rival_store, "b")
        await old.open(0)
        await old.append(facts(1))
        await new.open(0)
        with pytest.raises(Deposed, match=r"a was deposed .* a rival holds p0-000000000003"):
            await old.append(facts(2))
        await new.append(facts(3))
        opened = await a_ledger(store, "c").open(0)
        assert await everything(opened) == facts(1) + facts(3)

    async def test_a_deposed_leader_never_appends_again(self, store, rival_store):
        old, new = a_ledger(store, "a"), a_ledger(rival_store, "b")
        await old.open(0)
        await new.open(0)
        for _ in range(3):
            with pytest.raises(Deposed):
                await old.append(facts(1))
            with pytest.raises(Deposed):
                await old.checkpoint([b"state"], stands_for=old.last_sequence)
        assert len(await store.list(0)) == 2

    async def test_a_leader_that_slept_through_a_takeover_and_a_compaction_cannot_append(self, store, rival_store):
        old, new = a_ledger(store, "a"), a_ledger(rival_store, "b")
        await old.open(0)
        await old.append(facts(1))
        await new.open(0)
        for number in range(2, 6):
            await new.append(facts(number))
        await new.checkpoint([b"state"], stands_for=new.last_sequence)
        await new.swept()
        await new.append(facts(6))
        with pytest.raises(Deposed):
            await old.append(facts(99))
        opened = await a_ledger(store, "c").open(0)
        assert (opened.checkpoint, await everything(opened)) == ([b"state"], facts(6))

    async def test_a_leader_that_slept_until_its_fence_was_deleted_looks_before_it_writes(self, store, rival_store):
        clock = ManualClock()
        old, new = a_ledger(store, "a", clock=clock), a_ledger(rival_store, "b", clock=clock)
        await old.open(0)
        await old.append(facts(1))
        await new.open(0)
        clock.advance(LIMITS.epoch_keep_ms + 1)
        for name in ("c", "d", "e"):
            later = a_ledger(rival_store, name, clock=clock)
            await later.open(0)
        await later.checkpoint([b"state"], stands_for=later.last_sequence)
        await later.swept()
        assert await rival_store.read(0, 3) is None, "the fence at which the sleeper would wake is gone"
        with pytest.raises(Deposed):
            await old.append(facts(99))
        assert await rival_store.read(0, 3) is None

    async def test_a_leader_whose_machine_was_paused_with_its_boot_clock_looks_before_it_writes(
        self, store, rival_store
    ):
        """As a hypervisor may: for the leader no time has passed, until its wall clock is set."""
        paused, clock = ManualClock(), ManualClock()
        old, new = a_ledger(store, "a", clock=paused), a_ledger(rival_store, "b", clock=clock)
        await old.open(0)
        await old.append(facts(1))
        await new.open(0)
        clock.advance(LIMITS.epoch_keep_ms + 1)
        for name in ("c", "d", "e"):
            later = a_ledger(rival_store, name, clock=clock)
            await later.open(0)
        await later.checkpoint([b"state"], stands_for=later.last_sequence)
        await later.swept()
        assert await rival_store.read(0, 3) is None, "the fence at which the sleeper would wake is gone"
        paused.set_wall(clock.now_ms())
        with pytest.raises(Deposed):
            await old.append(facts(99))
        assert await rival_store.read(0, 3) is None

    async def test_of_two_leaders_that_open_at_once_one_is_fenced(self, store, rival_store):
        a, b = a_ledger(store, "a"), a_ledger(rival_store, "b")
        await asyncio.gather(a.open(0), b.open(0))
        assert a.epoch != b.epoch
        winner, loser = (a, b) if a.epoch > b.epoch else (b, a)
        with pytest.raises(Deposed):
            await loser.append(facts(1))
        await winner.append(facts(2))

    async def test_a_rival_that_replays_while_the_next_one_compacts_is_deposed_not_corrupt(self, store, rival_store):
        first = a_ledger(store)
        await first.open(0)
        for number in range(1, 60):
            await first.append(facts(number))
        slow = await a_ledger(store, "slow").open(0)
        fast = a_ledger(rival_store, "fast")
        await fast.open(0)
        await fast.checkpoint([b"state"], stands_for=fast.last_sequence)
        await fast.swept()
        with pytest.raises(Deposed):
            await everything(slow)

    # --- lost answers --------------------------------------------------------------------------------------------

    async def test_an_append_whose_answer_was_lost_is_written_once(self, store):
        ledger = a_ledger(store)
        await ledger.open(0)
        store.create_faults.extend([Fault.LOSE_ANSWER])
        written = await ledger.append(facts(1))
        assert (written.first_sequence, written.last_sequence) == (2, 2)
        await ledger.append(facts(2))
        assert await everything(await a_ledger(store).open(0)) == facts(1) + facts(2)

    async def test_an_append_whose_request_was_lost_is_tried_again(self, store):
        ledger = a_ledger(store)
        await ledger.open(0)
        store.create_faults.extend([Fault.LOSE_REQUEST, Fault.UNAVAILABLE, Fault.LATE])
        await ledger.append(facts(1))
        assert await everything(await a_ledger(store).open(0)) == facts(1)

    async def test_a_request_that_arrives_late_is_the_same_segment(self, store):
        ledger = a_ledger(store)
        await ledger.open(0)
        store.create_faults.append(Fault.LATE)
        await ledger.append(facts(1))
        (late,) = store.late
        assert await store.read(0, 2) == late, "the second try had the same name and content"

    async def test_a_takeover_during_a_lost_answer_deposes(self, store, rival_store):
        old = a_ledger(store, "a")
        await old.open(0)
        new = a_ledger(rival_store, "b")
        await new.open(0)
        store.create_faults.append(Fault.LATE)
        with pytest.raises(Deposed):
            await old.append(facts(1))

    async def test_a_takeover_whose_answer_was_lost_counts(self, store):
        store.create_faults.append(Fault.LOSE_ANSWER)
        opened = await a_ledger(store).open(0)
        assert opened.epoch == 1
        assert len(await store.list(0)) == 1

    # --- checkpoints ---------------------------------------------------------------------------------------------

    async def test_a_checkpoint_stands_for_all_below_it_and_only_that_is_deleted(self, store):
        ledger = a_ledger(store)
        await ledger.open(0)
        for number in range(1, 4):
            await ledger.append(facts(number))
        await ledger.checkpoint([b"one", b"two"], stands_for=ledger.last_sequence)
        await ledger.append(facts(4))
        await ledger.swept()
        assert [(h.sequence, h.kind) for h in await store.list(0)] == [
            (1, SegmentKind.EPOCH),
            (5, SegmentKind.CHECKPOINT),
            (6, SegmentKind.FACTS),
        ]
        opened = await a_ledger(store).open(0)
        assert (opened.checkpoint, await everything(opened)) == ([b"one", b"two"], facts(4))

    async def test_a_large_checkpoint_spans_several_segments(self, store):
        payloads = [random.Random(n).randbytes(size) for n, size in enumerate([10, 3_000, 0, 90_000, 500])]
        ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, max_segment_bytes=20_000))
        await ledger.open(0)
        written = await ledger.checkpoint(payloads, stands_for=ledger.last_sequence)
        assert written.last_sequence - written.first_sequence + 1 >= 5
        assert all(header.size_bytes <= 20_000 for header in await store.list(0))
        assert (await a_ledger(store).open(0)).checkpoint == payloads

    async def test_a_half_written_checkpoint_is_ignored(self, store, rival_store):
        ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, max_segment_bytes=300, append_deadline_ms=0))
        await ledger.open(0)
        await ledger.append(facts(1))
        await ledger.checkpoint([b"good"], stands_for=ledger.last_sequence)
        await ledger.append(facts(2))
        store.create_faults.extend([Fault.NONE, Fault.NONE, Fault.UNAVAILABLE])
        with pytest.raises(StoreUnavailable):
            await ledger.checkpoint([random.Random(1).randbytes(2_000)], stands_for=ledger.last_sequence)
        await ledger.append(facts(3))
        opened = await a_ledger(rival_store, "b").open(0)
        assert (opened.checkpoint, await everything(opened)) == ([b"good"], facts(2) + facts(3))

    async def test_what_could_not_be_deleted_is_deleted_at_the_next_checkpoint(self, store):
        ledger = a_ledger(store)
        await ledger.open(0)
        await ledger.append(facts(1))
        store.delete_faults.append(Fault.UNAVAILABLE)
        await ledger.checkpoint([b"one"], stands_for=ledger.last_sequence)
        await ledger.swept()
        assert len(await store.list(0)) == 3
        assert ledger.stats.failed_sweeps == 1
        await ledger.checkpoint([b"two"], stands_for=ledger.last_sequence)
        await ledger.swept()
        assert [h.sequence for h in await store.list(0)] == [1, 4]
        assert ledger.stats.retained_segments == 2

    async def test_what_a_dead_leader_left_below_its_checkpoint_is_deleted_by_the_next(self, store, rival_store):
        old = a_ledger(store)
        await old.open(0)
        await old.append(facts(1))
        store.delete_faults.append(Fault.UNAVAILABLE)
        await old.checkpoint([b"one"], stands_for=old.last_sequence)
        await old.swept()
        new = a_ledger(rival_store, "b")
        await new.open(0)
        await new.checkpoint([b"two"], stands_for=new.last_sequence)
        await new.swept()
        assert [(h.sequence, h.kind) for h in await store.list(0)] == [
            (1, SegmentKind.EPOCH),
            (4, SegmentKind.EPOCH),
            (5, SegmentKind.CHECKPOINT),
        ]

    async def test_old_epochs_are_deleted_but_never_the_newest(self, store):
        clock = ManualClock()
        for _ in range(4):
            ledger = a_ledger(store, clock=clock)
            await ledger.open(0)
            clock.advance(LIMITS.epoch_keep_ms)
        await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
        await ledger.swept()
        assert [h.epoch for h in await store.list(0) if h.kind is SegmentKind.EPOCH] == [3, 4]

    async def test_epochs_that_are_not_old_are_kept_however_many_there_are(self, store):
        """A leader that sleeps for less than `epoch_keep_ms` must still find the name taken at which it wakes up."""
        clock = ManualClock()
        for _ in range(5):
            ledger = a_ledger(store, clock=clock)
            await ledger.open(0)
            clock.advance(LIMITS.epoch_keep_ms // 5)
        await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
        await ledger.swept()
        assert [h.epoch for h in await store.list(0) if h.kind is SegmentKind.EPOCH] == [1, 2, 3, 4, 5]

    async def test_what_a_checkpoint_stands_for_does_not_count_towards_the_next_one(self, store):
        ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, checkpoint_every_segments=4))
        await ledger.open(0)
        for number in range(5):
            await ledger.append(facts(number))
        assert ledger.checkpoint_due
        await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
        assert (ledger.checkpoint_due, ledger.tail_bytes) == (False, 0)

    # --- corruption ----------------------------------------------------------------------------------------------

    async def test_a_missing_segment_is_corruption(self, store):
        ledger = a_ledger(store)
        await ledger.open(0)
        for number in range(1, 6):
            await ledger.append(facts(number))
        await store.delete(0, [3, 4])
        with pytest.raises(LedgerCorrupt, match="p0-000000000003 to p0-000000000004 are missing"):
            await a_ledger(store).open(0)

    async def test_damaged_data_is_corruption_and_names_the_segment(self, store):
        ledger = a_ledger(store)
        await ledger.open(0)
        await ledger.append(facts(1))
        segment = await store.read(0, 2)
        damaged = bytearray(segment.data)
        damaged[-1] ^= 1
        await store.delete(0, [2])
        await store.create(msgspec.structs.replace(segment, data=bytes(damaged)))
        opened = await a_ledger(store).open(0)
        with pytest.raises(LedgerCorrupt, match="p0-000000000002: the checksum"):
            await everything(opened)

    async def test_what_a_fenced_leader_could_write_would_be_corruption(self, store, rival_store):
        old = a_ledger(store, "a")
        await old.open(0)
        await old.append(facts(1))
        segment = await store.read(0, 2)
        await a_ledger(rival_store, "b").open(0)
        await store.create(msgspec.structs.replace(segment, sequence=4))
        with pytest.raises(LedgerCorrupt, match="epoch 1 among the segments of epoch 2"):
            await a_ledger(store).open(0)

    # --- size ----------------------------------------------------------------------------------------------------

    async def test_a_large_append_becomes_several_segments_in_order(self, store):
        limits = msgspec.structs.replace(LIMITS, max_segment_bytes=1_000)
        ledger = a_ledger(store, limits=limits)
        await ledger.open(0)
        numbers = random.Random(1).sample(range(10**9), 5_000)
        batch: list[Fact] = [Clock(1), Fired(1, 10, numbers), Submitted(6_000, 1, 2, "key")]
        written = await ledger.append(batch)
        assert written.last_sequence > written.first_sequence
        assert all(header.size_bytes <= 1_000 for header in await store.list(0))
        replayed = await everything(await a_ledger(store).open(0))
        fired = [fact for fact in replayed if isinstance(fact, Fired)]
        assert [task for fact in fired for task in fact.tasks] == numbers
        assert fired[0].first_run == 10
        assert all(a.first_run + len(a.tasks) == b.first_run for a, b in itertools.pairwise(fired))
        assert (replayed[0], replayed[-1]) == (batch[0], batch[-1])
