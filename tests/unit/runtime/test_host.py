"""What a host does beside appending: it looks how long appends take, shows people what is durable, and cleans up.

On virtual time, so that many appends pass within no time of anybody's.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import secrets
from collections.abc import Callable, Coroutine

from tests.contract.memory_store import MemorySegmentStore
from tests.simulation.loop import SimLoop

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.read.views import Views
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Segment
from tickwheel_operator.runtime.partition import CommitConfig, PartitionHost

_POOL = m.PoolApplied(spec=PoolSpec(namespace="default", name="p"))
_TASK = m.TaskApplied(
    spec=TaskSpec(uid="u", namespace="default", name="t", generation=1, created_ms=0, pool="p", handler="h")
)
_requests = itertools.count()


class _Clock:
    def now_ms(self) -> int:
        return 1_700_000_000_000 + self.boot_ms()

    def boot_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)


class _Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


class _Store(MemorySegmentStore):
    """One that takes its time."""

    takes_s = 0.001

    async def create(self, segment: Segment) -> None:
        await asyncio.sleep(self.takes_s)
        await super().create(segment)


class _Sink:
    def __init__(self) -> None:
        self.shown: list[Views] = []

    def wanted(self) -> int:
        return 100

    def show(self, views: Views) -> None:
        self.shown.append(views)


def _submit() -> m.Submit:
    number = next(_requests)
    runs = [m.Submission(key=f"k{number}", scheduled_ms=1)]
    return m.Submit(request=number, namespace="default", name="t", runs=runs)


def _lead(
    story: Callable[[PartitionHost, _Store], Coroutine[None, None, None]], sink: _Sink | None = None
) -> PartitionHost:
    """Lead for as long as the story lasts, on virtual time."""

    async def term() -> PartitionHost:
        store = _Store()
        ledger = Ledger(store, partition=0, leader="a", clock=_Clock(), nonces=lambda: secrets.token_hex(8))
        host = PartitionHost(ledger, _Term(), _Clock(), commit=CommitConfig(gather_ms=1_000), sink=sink)
        await host.take_over(lambda: [_POOL, _TASK])
        leading = asyncio.create_task(host.run())
        await story(host, store)
        host.stop()
        await leading
        await ledger.close()
        return host

    loop = SimLoop()
    try:
        return loop.run_until_complete(asyncio.wait_for(term(), 600))
    finally:
        loop.close()


def test_the_engine_leases_as_far_ahead_as_appends_take() -> None:
    async def story(host: PartitionHost, store: _Store) -> None:
        first_ms = host.lead_ms
        assert host.engine.waiting.lead_ms == first_ms
        store.takes_s = 0.08
        while host.lead_ms == first_ms:
            await host.call(_submit())
        assert host.engine.waiting.lead_ms == host.engine.scheduler.lead_ms == host.lead_ms > first_ms

    _lead(story)


def test_views_are_taken_now_and_then_however_often_something_changes() -> None:
    sink = _Sink()

    async def story(host: PartitionHost, _: _Store) -> None:
        for _ in range(200):
            await host.call(_submit())
            await asyncio.sleep(0.005)

    host = _lead(story, sink)

    assert 3 <= len(sink.shown) <= 20, "in a second or two"
    assert host.engine.state.by_uid["u"].runs


def test_what_the_collector_left_alone_for_a_term_is_collected_when_it_has_ended() -> None:
    async def story(_: PartitionHost, __: _Store) -> None:
        assert gc.get_freeze_count() > 0

    try:
        _lead(story)
        assert gc.get_freeze_count() == 0
    finally:
        gc.unfreeze()


def test_a_full_store_takes_new_runs_again_when_a_tenth_of_it_is_free() -> None:
    async def story(host: PartitionHost, _: _Store) -> None:
        limit, stats = host.ledger.limits.max_bytes, host.ledger.stats
        answers = []
        for retained in (limit - 1, limit, limit - 1, limit * 91 // 100, limit * 89 // 100):
            stats.retained_bytes = retained
            host.post(m.Tick())
            await asyncio.sleep(1)
            answers.append(type(await host.call(_submit())))
        assert answers == [m.Submitted, m.CommandRefused, m.CommandRefused, m.CommandRefused, m.Submitted]

    _lead(story)


def test_whoever_waits_for_an_answer_does_not_wait_for_reports_that_gather() -> None:
    async def story(host: PartitionHost, _: _Store) -> None:
        seen = m.WorkerSeen(key=m.WorkerKey("default", "p", "w"), instance="i", handlers=("h",), slots=1)
        reports = [asyncio.create_task(host.call(m.Report(request=f"report {n}", worker=seen))) for n in range(2)]
        began = asyncio.get_running_loop().time()
        answer = asyncio.create_task(host.call(_submit()))
        reports.append(asyncio.create_task(host.call(m.Report(request="later", worker=seen))))
        await answer
        assert asyncio.get_running_loop().time() - began < 0.1
        await asyncio.gather(*reports)

    _lead(story)
