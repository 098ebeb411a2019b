"""Term after term: who stands for election, what ends a term, and what it leaves behind."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterable

import pytest
from tests.contract.clock import ManualClock
from tests.contract.ledger import facts
from tests.contract.memory_store import Fault, MemorySegmentStore
from tests.simulation.loop import SimLoop

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import LedgerCorrupt
from tickwheel_operator.runtime.leadership import Leadership, LeadershipConfig
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

_CLOCK = ManualClock()
_SPEC = TaskSpec(uid="u-1", namespace="default", name="t", generation=1, created_ms=0, pool="p", handler="h")
_FOR_EVER_MS = 10**9


class _Term:
    epoch_floor = 0

    def __init__(self) -> None:
        self.taken_away: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.released = False

    def is_fresh(self) -> bool:
        return True

    async def lost(self) -> str:
        return await asyncio.shield(self.taken_away)

    async def release(self) -> None:
        self.released = True


class _Replica:
    """A leadership with all that it is given, in one object."""

    def __init__(self, *, release_ms: int = _FOR_EVER_MS, retry_ms: int = 1) -> None:
        self.store = MemorySegmentStore()
        self.synced = asyncio.Event()
        self.terms: list[_Term] = []
        self.hosts: asyncio.Queue[PartitionHost] = asyncio.Queue()
        config = LeadershipConfig(retry_ms=retry_ms, release_ms=release_ms)
        self.leadership = Leadership(
            self, self.ledger, self, _CLOCK, config, missing=self.missing, on_lead=self.hosts.put_nowait
        )

    def ledger(self) -> Ledger:
        return Ledger(
            self.store, partition=0, leader="a", clock=_CLOCK, nonces=lambda: secrets.token_hex(8),
            limits=LedgerLimits(checkpoint_every_segments=1),
        )  # fmt: skip

    async def acquire(self) -> _Term:
        await asyncio.sleep(0)
        self.terms.append(_Term())
        return self.terms[-1]

    async def wait_synced(self) -> None:
        await self.synced.wait()

    async def missing(self, uids: Collection[str]) -> Collection[str]:
        return ()

    def snapshot(self) -> Iterable[m.Command]:
        return [m.PoolApplied(spec=PoolSpec(namespace="default", name="p")), m.TaskApplied(spec=_SPEC)]


async def test_who_does_not_know_all_objects_does_not_stand_for_election() -> None:
    replica = _Replica()
    running = asyncio.create_task(replica.leadership.run())
    for _ in range(50):
        await asyncio.sleep(0)
    assert replica.terms == []

    replica.synced.set()

    async with asyncio.timeout(20):
        await replica.hosts.get()
        replica.leadership.stop()
        await running
    assert len(replica.terms) == 1


async def test_a_leader_that_is_stopped_finishes_at_once_and_releases_its_lease() -> None:
    replica = _Replica()
    replica.synced.set()
    running = asyncio.create_task(replica.leadership.run())

    async with asyncio.timeout(20):
        host = await replica.hosts.get()
        submission = m.Submission(key="k", scheduled_ms=0)
        answer = asyncio.create_task(host.call(m.Submit(request=1, namespace="default", name="t", runs=[submission])))
        await asyncio.sleep(0)
        replica.leadership.stop()
        await running

        assert isinstance(await answer, m.Submitted)
    assert replica.leadership.host is None
    assert [term.released for term in replica.terms] == [True]


async def test_a_leader_whose_lease_is_lost_says_so_and_stands_again(caplog: pytest.LogCaptureFixture) -> None:
    replica = _Replica()
    replica.synced.set()
    running = asyncio.create_task(replica.leadership.run())

    async with asyncio.timeout(20):
        first = await replica.hosts.get()
        replica.terms[0].taken_away.set_result("b holds it")
        second = await replica.hosts.get()
        replica.leadership.stop()
        await running

    assert "the lease was lost: b holds it" in caplog.text
    assert not first.leading
    assert second.epoch > first.epoch
    assert [term.released for term in replica.terms] == [True, True]


async def test_nobody_leads_on_a_corrupt_ledger(caplog: pytest.LogCaptureFixture) -> None:
    """Tried again, it would be as corrupt, and each try would hide it behind a term that ended."""
    replica = _Replica()
    replica.synced.set()
    before = replica.ledger()
    await before.open(0)
    for number in range(3):
        await before.append(facts(number))
    del replica.store.segments[0, 3]

    with pytest.raises(LedgerCorrupt):
        async with asyncio.timeout(20):
            await replica.leadership.run()

    assert [term.released for term in replica.terms] == [True]


async def test_a_term_that_is_over_deletes_nothing_more() -> None:
    replica = _Replica()
    replica.synced.set()
    replica.store.delete_faults.append(Fault.HANG)
    running = asyncio.create_task(replica.leadership.run())

    async with asyncio.timeout(20):
        host = await replica.hosts.get()
        submission = m.Submission(key="k", scheduled_ms=0)
        await host.call(m.Submit(request=1, namespace="default", name="t", runs=[submission]))
        while replica.store.delete_faults:
            await asyncio.sleep(0.001)
        assert _sweeps()
        replica.leadership.stop()
        await running

    assert not _sweeps()


def _sweeps() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("compaction")]


def test_a_term_that_has_lasted_is_followed_after_the_shortest_pause_again() -> None:
    """The pauses after terms that failed double; on virtual time, since they are seconds."""

    async def story() -> list[int]:
        replica = _Replica(retry_ms=1_000)
        replica.synced.set()
        running = asyncio.create_task(replica.leadership.run())
        time, pauses = asyncio.get_running_loop().time, []
        host = await replica.hosts.get()
        for number, lasts_s in enumerate((0, 0, 0, 100, 0)):
            await asyncio.sleep(lasts_s)
            replica.store.create_faults.append(Fault.REFUSED)
            runs = [m.Submission(key=f"k{number}", scheduled_ms=0)]
            with pytest.raises(TermEnded):
                await host.call(m.Submit(request=number, namespace="default", name="t", runs=runs))
            ended = time()
            host = await replica.hosts.get()
            pauses.append(round(time() - ended))
        replica.leadership.stop()
        await running
        return pauses

    loop = SimLoop()
    try:
        assert loop.run_until_complete(asyncio.wait_for(story(), 600)) == [1, 2, 4, 1, 2]
    finally:
        loop.close()
