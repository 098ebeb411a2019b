"""How a term ends: nothing is released without the lease, nothing decided is dropped, nobody waits for ever."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable

import pytest
from tests.contract.clock import ManualClock
from tests.contract.memory_store import MemorySegmentStore

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.sources import ByClock, ByHand
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Deposed, Segment
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

_CLOCK = ManualClock()
_NOW = _CLOCK.now_ms()
_POOL = m.PoolApplied(spec=PoolSpec(namespace="default", name="p"))
_requests = itertools.count()


class _Term:
    epoch_floor = 0

    def __init__(self) -> None:
        self.fresh = True

    def is_fresh(self) -> bool:
        return self.fresh


def _spec(name: str = "t", trigger: FixedRateTrigger | None = None) -> TaskSpec:
    return TaskSpec(
        uid=f"u-{name}", namespace="default", name=name, generation=1, created_ms=_NOW,
        source=ByHand() if trigger is None else ByClock(trigger), pool="p", handler="h",
    )  # fmt: skip


def _host(store: MemorySegmentStore, term: _Term, clock: ManualClock = _CLOCK) -> PartitionHost:
    ledger = Ledger(store, partition=0, leader="a", clock=clock, nonces=lambda: secrets.token_hex(8))
    return PartitionHost(ledger, term, clock)


def _submit(key: str) -> m.Submit:
    runs = [m.Submission(key=key, scheduled_ms=_NOW)]
    return m.Submit(request=next(_requests), namespace="default", name="t", runs=runs)


def _pull(worker: str, wait_ms: int = 20_000) -> m.Pull:
    key = m.WorkerKey("default", "p", worker)
    seen = m.WorkerSeen(key=key, instance="i", handlers=("h",), slots=1, clock_error_us=300)
    return m.Pull(request=next(_requests), worker=seen, free=1, until_ms=_NOW + wait_ms)


async def _ended(what: Awaitable[object]) -> object:
    async with asyncio.timeout(20):
        return await what


@pytest.fixture
def term() -> _Term:
    return _Term()


@pytest.fixture
def store() -> MemorySegmentStore:
    return MemorySegmentStore()


@pytest.fixture
async def host(store: MemorySegmentStore, term: _Term) -> PartitionHost:
    host = _host(store, term)
    await host.take_over(lambda: [_POOL, m.TaskApplied(spec=_spec())])
    return host


async def test_an_answer_that_comes_when_the_lease_is_not_fresh_is_not_released(
    host: PartitionHost, term: _Term
) -> None:
    """A rival may lead since: what is durable here may stand behind its fence."""
    leading = asyncio.create_task(host.run())
    term.fresh = False

    with pytest.raises(TermEnded):
        await _ended(host.call(_submit("k")))

    with pytest.raises(Deposed, match="no longer fresh"):
        await _ended(leading)


async def test_a_worker_whose_connection_has_ended_gets_no_work(host: PartitionHost) -> None:
    leading = asyncio.create_task(host.run())
    gone = asyncio.create_task(host.call(_pull("gone")))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)

    await _ended(host.call(_submit("k")))

    pulled = await _ended(host.call(_pull("w", wait_ms=0)))
    assert isinstance(pulled, m.Pulled)
    assert len(pulled.deliveries) == 1
    host.stop()
    await _ended(leading)


async def test_a_caller_that_gives_up_in_the_moment_of_its_answer_ends_no_term(
    host: PartitionHost, store: MemorySegmentStore
) -> None:
    leading = asyncio.create_task(host.run())
    gives_up = asyncio.create_task(host.call(_submit("gives up")))
    create = store.create

    async def create_then(segment: Segment) -> None:
        await create(segment)
        gives_up.cancel()

    store.create = create_then  # type: ignore[method-assign]
    await asyncio.gather(gives_up, return_exceptions=True)

    assert isinstance(await _ended(host.call(_submit("another"))), m.Submitted)
    assert gives_up.cancelled()
    host.stop()
    await _ended(leading)


async def test_whoever_waits_when_the_term_ends_is_told(host: PartitionHost) -> None:
    leading = asyncio.create_task(host.run())
    waits = asyncio.create_task(host.call(_pull("w")))
    await asyncio.sleep(0)

    host.stop()

    await _ended(leading)
    with pytest.raises(TermEnded):
        await _ended(waits)


async def test_a_host_that_stops_takes_nothing_more(host: PartitionHost, store: MemorySegmentStore) -> None:
    leading = asyncio.create_task(host.run())
    await asyncio.sleep(0)
    written = len(store.segments)

    host.stop()

    with pytest.raises(TermEnded):
        await _ended(host.call(_submit("late")))
    await _ended(leading)
    assert len(store.segments) == written


async def test_what_a_host_has_decided_when_it_stops_is_durable_and_answered(
    host: PartitionHost, store: MemorySegmentStore
) -> None:
    leading = asyncio.create_task(host.run())
    await asyncio.sleep(0)
    answer = asyncio.create_task(host.call(_submit("k")))
    await asyncio.sleep(0)

    host.stop()

    await _ended(leading)
    assert isinstance(await _ended(answer), m.Submitted)
    successor = _host(MemorySegmentStore(store.segments), _Term())
    await successor.take_over(lambda: [_POOL, m.TaskApplied(spec=_spec())])
    assert successor.replayed_runs == 1


async def test_a_leader_leases_ahead_of_the_first_instant_of_its_term(store: MemorySegmentStore, term: _Term) -> None:
    clock = ManualClock()
    host = _host(store, term, clock)
    task = _spec("often", FixedRateTrigger(1_000, _NOW))
    await host.take_over(lambda: [_POOL, m.TaskApplied(spec=task)])
    leading = asyncio.create_task(host.run())
    pull = asyncio.create_task(host.call(_pull("w")))
    await asyncio.sleep(0)

    clock.advance(1_000 - host.lead_ms)
    host.post(m.Tick())

    pulled = await _ended(pull)
    assert isinstance(pulled, m.Pulled)
    assert [delivery.not_before_ms for delivery in pulled.deliveries] == [_NOW + 1_000]
    host.stop()
    await _ended(leading)


class _SlowStore(MemorySegmentStore):
    """Each append takes two seconds."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._moved = clock

    async def create(self, segment: Segment) -> None:
        await super().create(segment)
        self._moved.advance(2_000)


async def test_a_host_that_stops_fires_nothing_more_though_each_append_outlasts_an_instant(term: _Term) -> None:
    clock = ManualClock()
    store = _SlowStore(clock)
    host = _host(store, term, clock)
    each_second = _spec("often", FixedRateTrigger(1_000, _NOW))
    await host.take_over(lambda: [_POOL, m.TaskApplied(spec=each_second)])
    leading = asyncio.create_task(host.run())
    while len(store.segments) < 5:
        await asyncio.sleep(0)
    before = len(store.segments)

    host.stop()

    await _ended(leading)
    assert len(store.segments) <= before + 2, "the append that was on its way, and what was decided meanwhile"
