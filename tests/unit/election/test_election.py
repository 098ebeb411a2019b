"""The election on virtual time: candidates that crash, freeze, are cut off, and hand over."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from tests.contract.lease_store import LeaseStoreContract, a_lease
from tests.contract.memory_lease import LeaseTable, MemoryLeaseStore
from tests.contract.memory_store import Fault
from tests.simulation.loop import Node, SimLoop

from tickwheel_operator.election.config import ElectionConfig
from tickwheel_operator.election.elector import Elector, Observed
from tickwheel_operator.election.identity import make_identity
from tickwheel_operator.election.lease import Lease


class LoopClock:
    """The clocks of one node: the simulation's time, wrongly set, and its own idea of the date."""

    def __init__(self, offset_ms: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._offset_ms = offset_ms

    def now_ms(self) -> int:
        return round(self._loop.time() * 1000) + 1_770_000_000_000 + self._offset_ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return round(self._loop.time() * 1000) + 77


_offsets = itertools.cycle([0, -3_600_000, 86_400_000])


def a_candidate(identity: str, table: LeaseTable, *, watches: bool = True, **config: int) -> Elector:
    store = MemoryLeaseStore(table, watches=watches)
    store.delay_s = 0.002
    elector = Elector(
        store,
        name="p0",
        identity=identity,
        endpoint_url=f"https://{identity}:8443",
        clock=LoopClock(next(_offsets)),
        config=ElectionConfig(**config),
        random=random.Random(identity),
    )
    elector.store = store  # type: ignore[attr-defined]
    return elector


def on_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test on a loop whose time passes at once."""

    def run() -> None:
        loop = SimLoop()
        try:
            loop.run_until_complete(test())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()

    run.__name__ = test.__name__
    return run


def now() -> float:
    return asyncio.get_running_loop().time()


class TestMemoryLeaseStore(LeaseStoreContract):
    @pytest.fixture
    def stores(self):
        table = LeaseTable()
        return lambda: MemoryLeaseStore(table)


@on_virtual_time
async def test_the_first_candidate_leads_at_once_and_creates_the_lease():
    table = LeaseTable()
    a = a_candidate("a", table)
    term = await a.acquire()
    assert now() < 0.1
    assert (term.epoch_floor, term.is_fresh()) == (0, True)
    assert a.observed == Observed("a", "https://a:8443", 0)
    assert table.leases["p0"].holder == "a"


@on_virtual_time
async def test_a_leader_that_renews_keeps_the_lease_and_its_followers_see_it():
    table = LeaseTable()
    term = await a_candidate("a", table).acquire()
    b = a_candidate("b", table)
    standing = asyncio.ensure_future(b.acquire())
    await asyncio.sleep(600)
    assert not standing.done()
    assert term.is_fresh()
    assert b.observed == Observed("a", "https://a:8443", 0)


@on_virtual_time
async def test_a_release_hands_over_in_about_a_second():
    table = LeaseTable()
    term = await a_candidate("a", table).acquire()
    b = asyncio.ensure_future(a_candidate("b", table).acquire())
    await asyncio.sleep(60.3)
    await term.release()
    assert not term.is_fresh()
    assert await term.lost() == "released"
    released = now()
    successor = await b
    assert now() - released < 1
    assert successor.epoch_floor == 1


@on_virtual_time
async def test_a_release_is_found_by_polling_where_watches_do_not_work():
    table = LeaseTable()
    term = await a_candidate("a", table).acquire()
    b = asyncio.ensure_future(a_candidate("b", table, watches=False).acquire())
    await asyncio.sleep(60)
    await term.release()
    released = now()
    await b
    assert now() - released < 4.5


@on_virtual_time
async def test_a_crashed_leader_is_replaced_when_its_lease_has_not_changed_for_its_duration():
    table = LeaseTable()
    node = Node("a")
    term = await asyncio.get_running_loop().create_task(a_candidate("a", table).acquire(), context=node.context())
    standing = asyncio.ensure_future(a_candidate("b", table).acquire())
    await asyncio.sleep(60)
    node.crash()
    crashed = now()
    successor = await standing
    assert 13 <= now() - crashed <= 15 + 4.5
    assert successor.epoch_floor == term.epoch_floor + 1


@on_virtual_time
async def test_a_leader_whose_process_is_known_to_have_ended_is_replaced_at_once():
    table = LeaseTable()
    node = Node("a")
    leader = a_candidate(make_identity("a-0", started_ms=5_200, nonce="1f"), table)
    await asyncio.get_running_loop().create_task(leader.acquire(), context=node.context())
    follower = a_candidate(make_identity("b-0", started_ms=5_300, nonce="2e"), table)
    standing = asyncio.ensure_future(follower.acquire())
    await asyncio.sleep(60)
    node.crash()
    ended = now()
    follower.replica_ended("a-0", 66_000)
    successor = await standing
    assert now() - ended < 0.5
    assert successor.epoch_floor == 1


@on_virtual_time
async def test_the_end_of_another_replica_or_of_an_earlier_process_of_the_pod_frees_no_lease():
    table = LeaseTable()
    first = await a_candidate(make_identity("a-0", started_ms=5_200, nonce="1f"), table).acquire()
    follower = a_candidate(make_identity("b-0", started_ms=5_300, nonce="2e"), table)
    standing = asyncio.ensure_future(follower.acquire())
    await asyncio.sleep(60)
    for other in ("c-0", "b-0", "a"):
        follower.replica_ended(other, 66_000)
    await asyncio.sleep(60)
    assert first.is_fresh()
    assert not standing.done()

    # The container restarts, the pod's next process leads, and then the end of the one before is told.
    await first.release()
    standing.cancel()
    await asyncio.sleep(1)
    second = await a_candidate(make_identity("a-0", started_ms=67_400, nonce="3d"), table).acquire()
    standing = asyncio.ensure_future(follower.acquire())
    await asyncio.sleep(60)
    for before_ms in (67_000, 67_400):
        follower.replica_ended("a-0", before_ms)
    await asyncio.sleep(60)
    assert second.is_fresh()
    assert not standing.done()


@on_virtual_time
async def test_a_candidate_that_comes_new_waits_a_whole_duration_whatever_the_lease_says_of_time():
    table = LeaseTable()
    table.put("p0", a_lease("dead", renewed_ms=0, acquired_ms=0))
    began = now()
    await a_candidate("b", table).acquire()
    assert 15 <= now() - began <= 15 + 4.5


@on_virtual_time
async def test_a_frozen_leader_is_not_fresh_before_anybody_else_leads():
    for seed in range(20):
        table = LeaseTable()
        node = Node("a")
        a = a_candidate(f"a{seed}", table)
        term = await asyncio.get_running_loop().create_task(a.acquire(), context=node.context())
        standing = asyncio.ensure_future(a_candidate(f"b{seed}", table).acquire())
        await asyncio.sleep(20 + seed * 0.37)
        node.freeze()
        while not standing.done():
            fresh = term.is_fresh()
            await asyncio.sleep(0.01)
            assert not (fresh and standing.done())
        node.thaw()
        assert not term.is_fresh()
        async with asyncio.timeout(3):
            assert f"is held by b{seed}" in await term.lost()
        await standing.result().release()


@on_virtual_time
async def test_a_leader_that_cannot_reach_the_store_is_not_fresh_after_the_renew_deadline_and_then_gives_up():
    table = LeaseTable()
    a = a_candidate("a", table)
    term = await a.acquire()
    await asyncio.sleep(60)
    a.store.down = True
    cut_off = now()
    while term.is_fresh():
        await asyncio.sleep(0.01)
    assert 8 <= now() - cut_off <= 10
    reason = await term.lost()
    assert 10 <= now() - cut_off <= 12.1
    assert "connection refused" in reason


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "passing"])
def test_a_renewal_that_fails_for_an_unknown_reason_is_tried_again_and_ends_the_term_in_time(lasting, caplog):
    @on_virtual_time
    async def run() -> None:
        a = a_candidate("a", LeaseTable())
        term = await a.acquire()
        await asyncio.sleep(60)

        async def broken(*_: object) -> Lease:
            raise ValueError("token file exists but empty")

        a.store.update, working = broken, a.store.update
        broke = now()
        if not lasting:
            await asyncio.sleep(7)
            a.store.update = working
            await asyncio.sleep(60)
            assert term.is_fresh()
            return
        async with asyncio.timeout(60):
            reason = await term.lost()
        assert now() - broke <= 12.1
        assert "token file exists but empty" in reason

    run()
    assert "renewing the lease failed" in caplog.text


@on_virtual_time
async def test_a_short_outage_costs_no_leadership():
    table = LeaseTable()
    a = a_candidate("a", table)
    term = await a.acquire()
    for _ in range(20):
        a.store.down = True
        await asyncio.sleep(7)
        a.store.down = False
        await asyncio.sleep(4.1)
        assert term.is_fresh()
    assert table.leases["p0"].transitions == 0


@on_virtual_time
async def test_a_renewal_whose_answer_was_lost_is_made_again():
    table = LeaseTable()
    a = a_candidate("a", table)
    term = await a.acquire()
    a.store.faults.extend([Fault.LOSE_ANSWER] * 3)
    await asyncio.sleep(60)
    assert term.is_fresh()


@on_virtual_time
async def test_an_acquisition_whose_answer_was_lost_counts():
    table = LeaseTable()
    a = a_candidate("a", table)
    a.store.faults.extend([Fault.NONE, Fault.LOSE_ANSWER])
    began = now()
    term = await a.acquire()
    assert now() - began < 5, "it knows its own record again"
    assert (term.epoch_floor, term.is_fresh()) == (0, True)


@on_virtual_time
async def test_freshness_counts_from_before_the_renewal_was_sent():
    table = LeaseTable()
    a = a_candidate("a", table)
    a.store.delay_s = 3.0
    term = await a.acquire()
    assert now() == pytest.approx(12)
    assert not term.is_fresh(), "the try that succeeded began 12 s ago"
    a.store.delay_s = 0.5
    await asyncio.sleep(3.1)
    assert term.fresh_until_ms == 14_000 + 10_000 + 77


@on_virtual_time
async def test_a_lease_that_a_person_gives_to_another_is_lost_at_the_next_renewal():
    table = LeaseTable()
    term = await a_candidate("a", table).acquire()
    table.put("p0", msgspec.structs.replace(table.leases["p0"], holder="somebody"))
    async with asyncio.timeout(2.1):
        assert await term.lost() == "lease p0 is held by somebody"
    assert not term.is_fresh()


@on_virtual_time
async def test_a_deleted_lease_is_lost_and_stands_again():
    table = LeaseTable()
    a = a_candidate("a", table)
    term = await a.acquire()
    table.put("p0", None)
    assert await term.lost() == "lease p0 was deleted"
    assert (await a.acquire()).is_fresh()


@on_virtual_time
async def test_edits_of_the_lease_object_are_no_sign_of_life():
    table = LeaseTable()
    table.put("p0", a_lease("dead"))

    async def edit() -> None:
        while True:
            await asyncio.sleep(1)
            table.put("p0", table.leases["p0"])

    editing = asyncio.ensure_future(edit())
    async with asyncio.timeout(20):
        await a_candidate("b", table).acquire()
    editing.cancel()


@on_virtual_time
async def test_of_many_candidates_one_leads_at_a_time_and_transitions_count_them():
    table = LeaseTable()
    leading = []
    floors = []

    async def candidate(number: int) -> None:
        elector = a_candidate(f"c{number}", table)
        while True:
            term = await elector.acquire()
            leading.append(number)
            assert len(leading) == 1
            floors.append(term.epoch_floor)
            await asyncio.sleep(5)
            leading.remove(number)
            await term.release()

    async with asyncio.timeout(300):
        tasks = [asyncio.ensure_future(candidate(n)) for n in range(5)]
        await asyncio.sleep(250)
        failed = [task.exception() for task in tasks if task.done()]
    assert not failed
    assert floors == list(range(len(floors)))
    assert len(floors) > 25


@on_virtual_time
async def test_a_candidate_that_is_cancelled_while_it_writes_leaves_no_lease_behind():
    table = LeaseTable()
    a = a_candidate("a", table)
    a.store.delay_s = 1.0
    standing = asyncio.ensure_future(a.acquire())
    await asyncio.sleep(3.5)
    assert table.leases["p0"].holder == "a", "the create has arrived, its answer has not"
    a.store.delay_s = 0.01
    standing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await standing
    assert table.leases["p0"].holder == ""


@on_virtual_time
async def test_a_release_without_a_store_does_not_hang():
    table = LeaseTable()
    a = a_candidate("a", table)
    term = await a.acquire()
    a.store.down = True
    async with asyncio.timeout(11):
        await term.release()
    assert not term.is_fresh()


@on_virtual_time
async def test_a_leader_that_has_lost_the_lease_releases_it_to_nobody():
    """It is its successor's: emptied, a third replica would take it from a leader that works."""
    table = LeaseTable()
    a, b = a_candidate("a", table), a_candidate("b", table)
    lost = await a.acquire()
    a.store.down = True
    held = await b.acquire()
    a.store.down = False

    await lost.release()

    assert table.leases["p0"].holder == "b"
    await asyncio.sleep(60)
    assert held.is_fresh()


@on_virtual_time
async def test_one_elector_has_one_term():
    a = a_candidate("a", LeaseTable())
    await a.acquire()
    with pytest.raises(RuntimeError, match="leads p0 already"):
        await a.acquire()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_duration_ms": 10_000},
        {"renew_deadline_ms": 2_400},
        {"retry_period_ms": 0},
        {"lease_duration_ms": 15_500},
    ],
)
def test_durations_that_make_no_sense_together_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        ElectionConfig(**wrong)


@on_virtual_time
async def test_a_leader_that_moves_to_another_address_is_seen_there():
    table = LeaseTable()
    table.put("p0", a_lease("other"))
    follower = a_candidate("b", table)
    standing = asyncio.ensure_future(follower.acquire())
    await asyncio.sleep(1)
    table.put("p0", msgspec.structs.replace(table.leases["p0"], endpoint="https://10.0.0.9:8443"))
    await asyncio.sleep(5)
    assert not standing.done()
    assert follower.observed.endpoint == "https://10.0.0.9:8443"


@on_virtual_time
async def test_a_release_is_heard_that_comes_while_a_try_is_on_its_way():
    table = LeaseTable()
    held = table.put("p0", a_lease("other"))
    assert held is not None
    follower = a_candidate("b", table)
    read = follower.store.get

    async def released_when_read(name):
        lease = await read(name)
        if table.leases["p0"] is held:
            table.put("p0", msgspec.structs.replace(held, holder=""))
            await asyncio.sleep(0.1)
        return lease

    follower.store.get = released_when_read
    await follower.acquire()
    assert now() < 1, "and not only with the next try"


@on_virtual_time
async def test_a_term_that_cannot_be_renewed_ends_at_the_deadline_and_not_with_the_next_try():
    a = a_candidate("a", LeaseTable(), lease_duration_ms=15_000, renew_deadline_ms=10_000, retry_period_ms=3_000)
    term = await a.acquire()
    a.store.down = True
    acquired = now()
    assert "connection refused" in await term.lost()
    assert 13 <= now() - acquired <= 13.1, "a retry period, and the deadline"


@on_virtual_time
async def test_a_release_has_as_long_as_a_renewal_where_the_store_is_slow():
    table = LeaseTable()
    a = a_candidate("a", table)
    term = await a.acquire()
    a.store.delay_s = 2
    await term.release()
    assert table.leases["p0"].holder == ""


@on_virtual_time
async def test_a_lease_that_is_deleted_is_taken_in_about_a_second():
    table = LeaseTable()
    table.put("p0", a_lease("other"))
    standing = asyncio.ensure_future(a_candidate("b", table).acquire())
    await asyncio.sleep(0.1)
    table.put("p0", None)
    await standing
    assert now() < 1
