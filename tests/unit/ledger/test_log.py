"""The log where the contract does not reach: its caller's mistakes, cancellations, refusals, counters, inspection."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from tests.contract.clock import ManualClock
from tests.contract.ledger import LIMITS, a_ledger, everything, facts
from tests.contract.memory_store import Fault, MemorySegmentStore
from tests.contract.segment_store import a_segment

from tickwheel_operator.ledger.codec import decode_epoch, encode_epoch
from tickwheel_operator.ledger.facts import Fired, SucceededWith
from tickwheel_operator.ledger.inspect import Finding, Severity, status, verify
from tickwheel_operator.ledger.protocol import (
    Deposed,
    LedgerCorrupt,
    SegmentKind,
    StoreForbidden,
    StoreRefused,
    StoreUnavailable,
)
from tickwheel_operator.ledger.replay import check, checkpoints, faults

IMPATIENT = msgspec.structs.replace(LIMITS, append_deadline_ms=0)


@pytest.fixture
def store() -> MemorySegmentStore:
    return MemorySegmentStore()


async def cancelled_half_way(store: MemorySegmentStore, fault: Fault, writing: Coroutine[Any, Any, object]) -> None:
    """Cancel it where its request hangs, or where it has looked a few times for what became of a late one."""
    looks = len(store.read_faults) - 3 if fault is Fault.LATE else len(store.read_faults)
    task = asyncio.create_task(writing)
    while store.create_faults or len(store.read_faults) > looks:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Nowhere:
    """What these tests write stands for no state."""

    def restore(self, chunks: object) -> None: ...

    def replay(self, facts: object) -> None: ...


async def verify_only(store: MemorySegmentStore, partition: int) -> list[Finding]:
    return await verify(store, partition, into=Nowhere)


async def replayed(store: MemorySegmentStore):
    return await everything(await a_ledger(MemorySegmentStore(store.segments), "reader").open(0))


async def test_a_second_append_at_the_same_time_is_a_mistake(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    first = asyncio.create_task(ledger.append(facts(1)))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=r"append\(\) while append\(\) of the same ledger is running"):
        await ledger.append(facts(2))
    await first
    assert await replayed(store) == facts(1)


async def test_an_append_before_open_or_of_nothing_is_a_mistake(store):
    ledger = a_ledger(store)
    with pytest.raises(RuntimeError, match="open"):
        await ledger.append(facts(1))
    await ledger.open(0)
    with pytest.raises(ValueError, match="at least one fact"):
        await ledger.append([])
    with pytest.raises(RuntimeError, match="opened before"):
        await ledger.open(0)


async def test_facts_of_a_cancelled_append_are_written_before_the_next_ones(store):
    for fault in (Fault.HANG, Fault.LATE):
        store.segments.clear()
        ledger = a_ledger(store)
        await ledger.open(0)
        store.create_faults.append(fault)
        store.read_faults.extend([Fault.UNAVAILABLE] * 100)
        await cancelled_half_way(store, fault, ledger.append(facts(1)))
        store.read_faults.clear()
        written = await ledger.append(facts(2))
        assert (written.first_sequence, written.last_sequence) == (2, 3)
        store.deliver_late()
        assert await replayed(store) == facts(1) + facts(2)


async def test_facts_of_an_append_whose_deadline_passed_are_written_before_the_next_ones(store):
    ledger = a_ledger(store, limits=IMPATIENT)
    await ledger.open(0)
    store.create_faults.append(Fault.UNAVAILABLE)
    with pytest.raises(StoreUnavailable, match="connection refused"):
        await ledger.append(facts(1))
    await ledger.append(facts(2))
    assert await replayed(store) == facts(1) + facts(2)


async def test_a_name_that_was_taken_and_is_gone_was_a_rivals(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    rival = a_ledger(MemorySegmentStore(store.segments), "b")
    await rival.open(0)
    read = store.read

    async def read_after_a_compaction(partition: int, sequence: int):
        del store.segments[(partition, sequence)]
        return await read(partition, sequence)

    store.read = read_after_a_compaction
    with pytest.raises(Deposed):
        await ledger.append(facts(1))


def test_chunks_of_two_attempts_do_not_make_one_checkpoint():
    def chunk(number: int, nonce: str, generation: int = 5):
        return a_segment(
            5 + number, kind=SegmentKind.CHECKPOINT, nonce=nonce, chunk=number, chunks=2, generation=generation
        )

    assert checkpoints([chunk(0, "one"), chunk(1, "two")]) == []
    assert checkpoints([chunk(0, "one"), chunk(1, "one", 4)]) == [], "somebody has edited it"
    assert len(checkpoints([chunk(0, "one"), chunk(1, "one")])) == 1


async def test_each_try_has_the_same_name_and_content(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    store.created.clear()
    store.create_faults.extend([Fault.LATE, Fault.UNAVAILABLE, Fault.LOSE_REQUEST])
    await ledger.append(facts(1))
    assert len(store.created) == 4
    assert len(set(map(msgspec.structs.astuple, store.created))) == 1


async def test_a_request_that_arrives_after_its_repetition_changes_nothing(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    store.create_faults.append(Fault.LATE)
    await ledger.append(facts(1))
    await ledger.append(facts(2))
    assert store.deliver_late() == 0
    assert await replayed(store) == facts(1) + facts(2)


async def test_a_request_that_arrives_after_compaction_is_ignored_and_deleted(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    store.create_faults.append(Fault.LATE)
    await ledger.append(facts(1))
    await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    await ledger.swept()
    assert store.deliver_late() == 1
    successor = a_ledger(store, "b")
    opened = await successor.open(0)
    assert (opened.checkpoint, await everything(opened)) == ([b"state"], [])
    await successor.checkpoint([b"state 2"], stands_for=successor.last_sequence)
    await successor.swept()
    assert [h.kind for h in await store.list(0)] == [SegmentKind.EPOCH, SegmentKind.EPOCH, SegmentKind.CHECKPOINT]


async def test_a_refusal_is_raised_and_forgets_nothing(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    store.create_faults.append(Fault.REFUSED)
    with pytest.raises(StoreRefused):
        await ledger.append(facts(1))
    await ledger.append(facts(2))
    assert await replayed(store) == facts(1) + facts(2)


async def test_what_is_forbidden_for_a_moment_is_tried_again(store):
    store.list_faults.extend([Fault.FORBIDDEN] * 3)
    store.create_faults.extend([Fault.FORBIDDEN] * 3)
    ledger = a_ledger(store)
    await ledger.open(0)
    store.create_faults.extend([Fault.FORBIDDEN] * 3)
    await ledger.append(facts(1))
    store.create_faults.extend([Fault.FORBIDDEN] * 3)
    await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    await ledger.append(facts(2))
    assert await replayed(store) == facts(2)


async def test_what_stays_forbidden_is_told_before_the_deadline_of_a_store_that_is_down(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, forbidden_ms=20))
    await ledger.open(0)
    store.create_faults.extend([Fault.FORBIDDEN] * 1_000)
    with pytest.raises(StoreForbidden):
        await ledger.append(facts(1))
    store.create_faults.clear()
    await ledger.append(facts(2))
    assert await replayed(store) == facts(1) + facts(2)


@pytest.mark.parametrize("before", [Fault.NONE, Fault.LOSE_ANSWER])
async def test_a_refused_checkpoint_does_not_stop_the_log(store, before):
    ledger = a_ledger(store)
    await ledger.open(0)
    store.create_faults.append(before)
    await ledger.append(facts(1))
    store.create_faults.append(Fault.REFUSED)
    with pytest.raises(StoreRefused):
        await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    await ledger.append(facts(2))
    assert SegmentKind.CHECKPOINT not in {segment.kind for segment in store.segments.values()}
    assert await replayed(store) == facts(1) + facts(2)


async def test_a_checkpoint_that_is_cancelled_half_way_leaves_a_log_that_goes_on(store):
    limits = msgspec.structs.replace(LIMITS, max_segment_bytes=300)
    for fault in (Fault.HANG, Fault.LATE):
        store.segments.clear()
        ledger = a_ledger(store, limits=limits)
        await ledger.open(0)
        await ledger.append(facts(1))
        store.create_faults.extend([Fault.NONE, fault])
        store.read_faults.extend([Fault.UNAVAILABLE] * 100)
        await cancelled_half_way(
            store, fault, ledger.checkpoint([random.Random(1).randbytes(2_000)], stands_for=ledger.last_sequence)
        )
        store.read_faults.clear()
        await ledger.append(facts(2))
        store.deliver_late()
        assert await replayed(store) == facts(1) + facts(2)


async def test_a_takeover_in_the_middle_of_a_checkpoint_ignores_it(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, max_segment_bytes=300))
    await ledger.open(0)
    await ledger.append(facts(1))
    rival = a_ledger(MemorySegmentStore(store.segments), "b")
    store.create_faults.extend([Fault.NONE, Fault.NONE, Fault.UNAVAILABLE])
    writing = asyncio.create_task(
        ledger.checkpoint([random.Random(1).randbytes(2_000)], stands_for=ledger.last_sequence)
    )
    while store.create_faults:
        await asyncio.sleep(0)
    opened = await rival.open(0)
    with pytest.raises(Deposed):
        await writing
    assert (opened.checkpoint, await everything(opened)) == (None, facts(1))


async def test_a_checkpoint_is_due_after_so_many_segments_or_bytes(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, checkpoint_every_segments=4))
    await ledger.open(0)
    assert not ledger.checkpoint_due
    for number in range(3):
        await ledger.append(facts(number))
    assert ledger.checkpoint_due
    await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    assert not ledger.checkpoint_due
    by_bytes = a_ledger(store, limits=msgspec.structs.replace(LIMITS, checkpoint_every_bytes=2_000))
    await by_bytes.open(0)
    await by_bytes.append([Fired(1, 1, random.Random(1).sample(range(10**9), 1_000))])
    assert by_bytes.checkpoint_due


async def test_a_large_checkpoint_waits_for_a_longer_tail(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, checkpoint_every_segments=4))
    await ledger.open(0)
    await ledger.checkpoint([random.Random(1).randbytes(20_000)], stands_for=ledger.last_sequence)
    for number in range(15):
        await ledger.append(facts(number))
    assert not ledger.checkpoint_due
    await ledger.append(facts(16))
    assert ledger.checkpoint_due
    successor = a_ledger(store, "b", limits=msgspec.structs.replace(LIMITS, checkpoint_every_segments=14))
    await successor.open(0)
    assert not successor.checkpoint_due, "a successor knows how large the checkpoint is"


async def test_a_tail_is_as_large_as_the_last_checkpoint_before_the_next_is_due_for_its_bytes(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, checkpoint_every_bytes=2_000))
    await ledger.open(0)
    await ledger.checkpoint([random.Random(1).randbytes(20_000)], stands_for=ledger.last_sequence)
    sizes = []
    while not ledger.checkpoint_due:
        batch = [Fired(1, 1, random.Random(len(sizes)).sample(range(10**9), 1_000))]
        sizes.append((await ledger.append(batch)).size_bytes)
    assert len(sizes) < 10, "so that it is not for their number"
    assert sum(sizes[:-1]) < 20_000 <= sum(sizes)


async def test_a_fact_that_fits_no_segment_is_refused_by_name(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, max_segment_bytes=1_000))
    await ledger.open(0)
    with pytest.raises(StoreRefused, match=r"a fact of kind SucceededWith has .* bytes compressed"):
        await ledger.append([SucceededWith(1, random.Random(1).randbytes(5_000))])
    await ledger.append(facts(1))
    assert await replayed(store) == facts(1)


async def test_the_store_may_be_down_while_a_leader_opens(store):
    store.list_faults.extend([Fault.UNAVAILABLE] * 3)
    store.create_faults.extend([Fault.UNAVAILABLE, Fault.LOSE_REQUEST])
    ledger = a_ledger(store)
    assert (await ledger.open(0)).epoch == 1
    assert ledger.stats.retries == 5


async def test_a_corrupt_log_is_not_taken_over(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    await ledger.append(facts(1))
    await ledger.append(facts(2))
    del store.segments[(0, 2)]
    with pytest.raises(LedgerCorrupt):
        await a_ledger(store, "b").open(0)
    assert len(store.segments) == 2, "a restart in a loop must not fill the store"


async def test_the_counters_count(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    store.create_faults.append(Fault.LOSE_ANSWER)
    await ledger.append(facts(1))
    await ledger.append(facts(2))
    await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    await ledger.swept()
    stats = ledger.stats
    assert (stats.appends, stats.segments, stats.checkpoints, stats.unknown_outcomes) == (2, 4, 1, 1)
    assert stats.retained_segments == len(store.segments) == 2
    assert stats.retained_bytes == sum(len(s.data) for s in store.segments.values())


async def test_any_storm_of_faults_loses_nothing_and_doubles_nothing():
    """Two leaders take turns on a bad network; what was acknowledged is in the log once, in order."""
    faults = [Fault.NONE] * 6 + [Fault.UNAVAILABLE, Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.LATE]
    for seed in range(60):
        rng = random.Random(seed)
        shared: dict = {}
        acknowledged, tried = [], []
        numbers = itertools.count(1)
        network = MemorySegmentStore(shared)
        checkpointed = 0
        for turn in range(6):
            store = MemorySegmentStore(shared)
            store.late = network.late
            store.create_faults.extend(rng.choices(faults, k=60))
            ledger = a_ledger(store, f"{turn}")
            opened = await ledger.open(0)
            seen = [int(p) for p in opened.checkpoint or []]
            seen += [fact.at_ms async for batch in opened.segments for fact in batch.facts]
            assert set(acknowledged) <= set(seen) <= set(tried)
            assert seen == sorted(set(seen))
            acknowledged = list(seen)
            for _ in range(rng.randrange(8)):
                number = next(numbers)
                tried.append(number)
                await ledger.append(facts(number)[:1])
                acknowledged.append(number)
                if rng.random() < 0.2:
                    await ledger.checkpoint([str(n).encode() for n in acknowledged], stands_for=ledger.last_sequence)
                    checkpointed += 1
                if rng.random() < 0.3:
                    network.deliver_late()
            await ledger.swept()
        network.deliver_late()


async def test_status_says_what_is_there_and_verify_finds_nothing_wrong(store):
    clock = ManualClock()
    ledger = a_ledger(store, "a-1", clock=clock)
    await ledger.open(0)
    await ledger.append(facts(1))
    clock.advance(60_000)
    successor = a_ledger(store, "b-2", clock=clock)
    await successor.open(0)
    await successor.checkpoint([b"state"], stands_for=successor.last_sequence)
    await successor.swept()
    await successor.append(facts(2))
    found = await status(store, 0)
    assert [(e.epoch, e.sequence, e.leader, e.at_ms) for e in found.epochs] == [
        (1, 1, "a-1", 1_770_000_000_000),
        (2, 3, "b-2", 1_770_000_060_000),
    ]
    assert found.segments == {SegmentKind.EPOCH: 2, SegmentKind.FACTS: 1, SegmentKind.CHECKPOINT: 1}
    assert (found.checkpoint_sequence, found.checkpoint_chunks, found.checkpoint_ms) == (4, 1, 1_770_000_060_000)
    assert (found.last_sequence, found.tail_segments, found.leftovers) == (5, 1, 0)
    assert await verify_only(store, 0) == []


async def test_status_of_an_empty_partition_is_empty(store):
    found = await status(store, 3)
    assert (found.last_sequence, found.epochs, found.size_bytes) == (0, [], 0)
    assert await verify_only(store, 3) == []


async def test_verify_names_every_fault(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    for number in range(1, 7):
        await ledger.append(facts(number))
    del store.segments[(0, 3)]
    segment = store.segments[(0, 5)]
    store.segments[(0, 5)] = msgspec.structs.replace(segment, data=segment.data[:-1])
    store.segments[(0, 6)] = msgspec.structs.replace(store.segments[(0, 6)], epoch=9)
    found = await verify_only(store, 0)
    assert [finding.severity for finding in found] == [Severity.ERROR] * len(found)
    text = "\n".join(finding.message for finding in found)
    assert "p0-000000000003 to p0-000000000003 are missing" in text
    assert "p0-000000000005: the checksum" in text
    assert "p0-000000000006 is Facts of epoch 9 among the segments of epoch 1" in text


async def test_verify_warns_of_what_compaction_left(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    await ledger.append(facts(1))
    store.delete_faults.append(Fault.UNAVAILABLE)
    await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    await ledger.swept()
    (finding,) = await verify_only(store, 0)
    assert (finding.severity, finding.segment) == (Severity.WARNING, "p0-000000000002")


async def test_facts_that_are_appended_while_a_checkpoint_is_written_are_replayed_after_it(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, max_chunk_bytes=300))
    await ledger.open(0)
    await ledger.append(facts(1))
    state = [random.Random(1).randbytes(2_000)]
    writing = asyncio.create_task(ledger.checkpoint(state, stands_for=ledger.last_sequence))
    number = 1
    while not writing.done():
        number += 1
        await ledger.append(facts(number))
    written = await writing
    await ledger.swept()
    kinds = [header.kind for header in await store.list(0) if header.sequence <= written.last_sequence]
    assert kinds.index(SegmentKind.FACTS, kinds.index(SegmentKind.CHECKPOINT)) < len(kinds) - 1, "among the chunks"
    successor = a_ledger(store, "b")
    opened = await successor.open(0)
    assert opened.checkpoint == state
    assert await everything(opened) == [fact for n in range(2, number + 1) for fact in facts(n)]
    assert await verify_only(store, 0) == []


async def test_what_a_checkpoint_does_not_stand_for_is_kept_and_counts_towards_the_next(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, checkpoint_every_segments=3))
    await ledger.open(0)
    await ledger.append(facts(1))
    stands_for = ledger.last_sequence
    for number in (2, 3, 4):
        await ledger.append(facts(number))
    await ledger.checkpoint([b"state with facts 1"], stands_for=stands_for)
    await ledger.swept()
    assert ledger.checkpoint_due
    assert await replayed(store) == facts(2) + facts(3) + facts(4)


async def test_one_checkpoint_is_written_at_a_time(store):
    ledger = a_ledger(store, limits=msgspec.structs.replace(LIMITS, checkpoint_every_segments=1))
    await ledger.open(0)
    await ledger.append(facts(1))
    assert ledger.checkpoint_due
    writing = asyncio.create_task(ledger.checkpoint([b"state"], stands_for=ledger.last_sequence))
    await asyncio.sleep(0)
    assert not ledger.checkpoint_due
    with pytest.raises(RuntimeError, match="another one"):
        await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    await writing


async def test_who_has_lost_the_lease_fences_nobody(store):
    with pytest.raises(Deposed, match="lost the Lease"):
        await a_ledger(store).open(0, may_fence=lambda: False)

    assert store.created == []


async def test_a_chunk_that_is_refused_though_an_earlier_try_may_arrive_keeps_its_name(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    await ledger.append(facts(1))
    store.create_faults.extend([Fault.LATE, Fault.REFUSED])
    with pytest.raises(StoreRefused):
        await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
    assert store.deliver_late() == 1

    await ledger.append(facts(2))

    assert [segment.kind for _, segment in sorted(store.segments.items())][-2:] == [
        SegmentKind.CHECKPOINT, SegmentKind.FACTS,
    ]  # fmt: skip


@pytest.mark.parametrize("operation", ["create", "list"])
async def test_the_end_of_the_log_counts_as_seen_from_before_the_request(store, operation):
    """A leader that sleeps while its request is on its way looks again before it writes the next."""
    clock = ManualClock()
    ledger = a_ledger(store, clock=clock, limits=msgspec.structs.replace(LIMITS, epoch_keep_ms=1_000))
    await ledger.open(0)
    if operation == "list":
        clock.advance(600)  # so that it looks
    request, asleep, listed = getattr(store, operation), True, 0

    async def slow(*arguments):
        nonlocal asleep
        answer = await request(*arguments)
        if asleep:
            asleep = False
            clock.advance(600)
        return answer

    setattr(store, operation, slow)
    if operation == "list":
        assert await ledger._is_head(a_segment(9))
    else:
        await ledger.append(facts(1))
    look = store.list

    async def counted(partition):
        nonlocal listed
        listed += 1
        return await look(partition)

    store.list = counted
    await ledger.append(facts(2))

    assert listed == 1


async def test_who_was_deposed_asks_the_store_for_nothing_more(store):
    ledger = a_ledger(store)
    await ledger.open(0)
    await a_ledger(MemorySegmentStore(store.segments), "b").open(0)
    with pytest.raises(Deposed):
        await ledger.append(facts(1))
    tried = len(store.created)

    with pytest.raises(Deposed):
        await ledger.append(facts(2))

    assert len(store.created) == tried


@pytest.mark.parametrize("limit", [{"checkpoint_every_segments": 4}, {"checkpoint_every_bytes": 1_000}], ids=str)
async def test_what_a_takeover_replays_counts_towards_the_next_checkpoint(store, limit):
    first = a_ledger(store)
    await first.open(0)
    size_bytes = 0
    for number in range(4):
        size_bytes += (await first.append(facts(number, count=400))).size_bytes
    assert size_bytes > 1_000

    second = a_ledger(store, "b", limits=msgspec.structs.replace(LIMITS, **limit))
    await second.open(0)

    assert second.checkpoint_due


async def test_a_takeover_of_another_ledger_among_the_segments_is_corruption(store):
    """Such as part of a backup that was restored over a ledger that had begun anew."""
    await a_ledger(store).open(0)
    await a_ledger(store, "b").open(0)
    mine, newest = store.segments[0, 1], store.segments[0, 2]
    record = msgspec.structs.replace(decode_epoch(mine.data, where=""), ledger="another")
    store.segments[0, 1] = msgspec.structs.replace(mine, data=encode_epoch(record))

    opened = await a_ledger(store, "c").open(0)

    with pytest.raises(LedgerCorrupt, match=r"p0-0*1: it is of ledger another, but the newest takeover is of ledger"):
        await everything(opened)
    assert opened.identity == decode_epoch(newest.data, where="").ledger


@pytest.mark.parametrize("first", [SegmentKind.FACTS, SegmentKind.CHECKPOINT])
async def test_who_waited_while_its_leader_was_deposed_asks_the_store_for_nothing_more(store, first):
    ledger = a_ledger(store)
    await ledger.open(0)
    await a_ledger(MemorySegmentStore(store.segments), "b").open(0)
    writing = [ledger.append(facts(1)), ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)]
    if first is SegmentKind.CHECKPOINT:
        writing.reverse()
    begun = asyncio.create_task(writing[0])
    while not ledger._lane.locked():
        await asyncio.sleep(0)

    ended = await asyncio.gather(begun, writing[1], return_exceptions=True)

    assert [type(error) for error in ended] == [Deposed, Deposed]
    assert [segment.kind for segment in store.created] == [SegmentKind.EPOCH, first]


def test_an_epoch_that_is_taken_twice_is_a_fault():
    taken = [a_segment(number, kind=SegmentKind.EPOCH, epoch=7) for number in (1, 2)]

    assert ["epoch 7 was there before" in fault for fault in faults(taken)] == [True]


def test_a_segment_that_is_not_the_listed_one_is_corruption():
    listed = a_segment(1, nonce="a")
    with pytest.raises(LedgerCorrupt, match="its nonce is 'b', but the list says 'a'"):
        check(listed, a_segment(1, nonce="b"))
