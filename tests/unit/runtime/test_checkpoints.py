"""When a checkpoint is due, and what becomes of one that fails or is given up."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from tests.contract.clock import ManualClock
from tests.contract.ledger import facts
from tests.contract.memory_store import Fault, MemorySegmentStore

from tickwheel_operator.engine.model.snapshot import Snapshot
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.ledger.facts import TaskNamed
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Deposed, SegmentKind
from tickwheel_operator.runtime.checkpoints import Checkpoints

_MUCH_LATER_S = 3_600.0


@pytest.fixture
def store() -> MemorySegmentStore:
    return MemorySegmentStore()


def _no_rival(error: Deposed) -> None:
    raise AssertionError(error)


async def _ledger(store: MemorySegmentStore, *, every_segments: int) -> Ledger:
    limits = LedgerLimits(checkpoint_every_segments=every_segments, checkpoint_every_bytes=1 << 30)
    ledger = Ledger(
        store, partition=0, leader="a", clock=ManualClock(), nonces=lambda: secrets.token_hex(8), limits=limits
    )
    await ledger.open(0)
    await ledger.append(facts(1))
    return ledger


async def _over(checkpoints: Checkpoints) -> None:
    async with asyncio.timeout(20):
        while checkpoints._writing is not None:
            await asyncio.sleep(0)


async def test_a_checkpoint_that_failed_is_tried_again_but_not_at_once(store: MemorySegmentStore) -> None:
    """Each writes the whole state: a store that refuses it must not get it with every batch."""
    checkpoints = Checkpoints(await _ledger(store, every_segments=1), _no_rival)
    now = asyncio.get_running_loop().time()
    assert checkpoints.due(now, relief=False)
    store.create_faults.append(Fault.REFUSED)

    checkpoints.begin(Snapshot(State()))
    await _over(checkpoints)

    assert not checkpoints.due(now, relief=False)
    assert not checkpoints.due(now, relief=True)
    assert checkpoints.due(now + _MUCH_LATER_S, relief=False)


async def test_a_full_store_gets_a_checkpoint_to_make_room_but_not_again_and_again(store: MemorySegmentStore) -> None:
    ledger = await _ledger(store, every_segments=1_000)
    checkpoints = Checkpoints(ledger, _no_rival)
    now = asyncio.get_running_loop().time()
    assert not checkpoints.due(now, relief=False)
    assert checkpoints.due(now, relief=True)
    checkpoints.begin(Snapshot(State()))
    await _over(checkpoints)
    assert not checkpoints.due(now + _MUCH_LATER_S, relief=True), "nothing was appended that it could let go of"

    await ledger.append(facts(2))

    assert not checkpoints.due(now, relief=True)
    assert checkpoints.due(now + _MUCH_LATER_S, relief=True)


async def test_while_one_is_written_no_other_is_due(store: MemorySegmentStore) -> None:
    ledger = await _ledger(store, every_segments=1_000)
    checkpoints = Checkpoints(ledger, _no_rival)
    now = asyncio.get_running_loop().time()

    checkpoints.begin(Snapshot(State()))

    assert not checkpoints.due(now, relief=True)
    await _over(checkpoints)


async def test_a_checkpoint_does_not_outlive_its_term(store: MemorySegmentStore) -> None:
    """Its writer is no leader any more: each chunk would be a write without the lease."""
    checkpoints = Checkpoints(await _ledger(store, every_segments=1), _no_rival)
    store.create_faults.append(Fault.HANG)
    checkpoints.begin(Snapshot(State()))
    while store.create_faults:
        await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await checkpoints.stop()

    assert checkpoints._writing is None
    assert [segment.kind for segment in store.created].count(SegmentKind.CHECKPOINT) == 1


async def test_nothing_is_written_down_for_a_checkpoint_that_was_given_up_half_read(store: MemorySegmentStore) -> None:
    checkpoints = Checkpoints(await _ledger(store, every_segments=1), _no_rival)
    state = State()
    for number in range(1, 3_000):
        state.apply(TaskNamed(number, f"uid-{number}", "shops", f"task-{number}", "every minute", 0))
    checkpoints.begin(Snapshot(state))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert state.watcher is not None, "it is read still"

    await checkpoints.stop()

    assert state.watcher is None


async def test_a_rival_that_a_checkpoint_meets_is_told_of(store: MemorySegmentStore) -> None:
    heard: list[Deposed] = []
    checkpoints = Checkpoints(await _ledger(store, every_segments=1), heard.append)
    await _ledger(MemorySegmentStore(store.segments), every_segments=1)

    checkpoints.begin(Snapshot(State()))
    await _over(checkpoints)

    assert len(heard) == 1
