"""What an append or a checkpoint left unfinished: it keeps its name and its place, and nothing goes around it."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from tests.contract.ledger import LIMITS, a_ledger, everything, facts
from tests.contract.memory_store import Fault, MemorySegmentStore

from tickwheel_operator.ledger.facts import Fired
from tickwheel_operator.ledger.protocol import StoreRefused, StoreUnavailable

_IMPATIENT = msgspec.structs.replace(LIMITS, append_deadline_ms=0)


@pytest.fixture
def store() -> MemorySegmentStore:
    return MemorySegmentStore()


async def test_a_chunk_whose_write_was_cancelled_keeps_its_name_though_the_next_try_is_refused(
    store: MemorySegmentStore,
) -> None:
    """It is stored already: facts under its name would collide with it, and their leader would think it was deposed."""
    ledger = a_ledger(store)
    await ledger.open(0)
    await ledger.append(facts(1))
    store.create_faults.append(Fault.HANG)
    writing = asyncio.create_task(ledger.checkpoint([b"state"], stands_for=ledger.last_sequence))
    while store.create_faults:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    store.create_faults.append(Fault.REFUSED)
    with pytest.raises(StoreRefused):
        await ledger.append(facts(2))

    await ledger.append(facts(3))

    opened = await a_ledger(store, "b").open(0)
    assert (opened.checkpoint, await everything(opened)) == ([b"state"], facts(2) + facts(3))


async def test_a_checkpoint_of_an_earlier_state_comes_after_the_facts_that_were_left_unfinished(
    store: MemorySegmentStore,
) -> None:
    ledger = a_ledger(store, limits=_IMPATIENT)
    await ledger.open(0)
    await ledger.append(facts(1))
    stands_for = ledger.last_sequence
    store.create_faults.append(Fault.UNAVAILABLE)
    with pytest.raises(StoreUnavailable):
        await ledger.append(facts(2))

    await ledger.checkpoint([b"state with facts 1"], stands_for=stands_for)

    await ledger.append(facts(3))
    opened = await a_ledger(store, "b").open(0)
    assert (opened.checkpoint, await everything(opened)) == ([b"state with facts 1"], facts(2) + facts(3))


@pytest.mark.parametrize("written_before", [0, 1, 2])
async def test_no_segment_of_an_append_that_failed_half_way_is_dropped(
    store: MemorySegmentStore, written_before: int
) -> None:
    ledger = a_ledger(store, limits=msgspec.structs.replace(_IMPATIENT, max_segment_bytes=1_000))
    await ledger.open(0)
    numbers = random.Random(1).sample(range(10**9), 1_000)
    store.create_faults.extend([*[Fault.NONE] * written_before, Fault.UNAVAILABLE])
    with pytest.raises(StoreUnavailable):
        await ledger.append([Fired(1, 1, numbers)])

    await ledger.append(facts(2))

    replayed = await everything(await a_ledger(store, "b").open(0))
    assert replayed[-2:] == facts(2)
    assert [task for fact in replayed[:-2] if isinstance(fact, Fired) for task in fact.tasks] == numbers
