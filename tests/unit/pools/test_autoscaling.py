"""How many workers a pool has over time. The engine is real; time is set by the test."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.api import WorkerPool, parse
from tickwheel_operator.engine.read.views import PoolView
from tickwheel_operator.engine.triggers import OnceTrigger
from tickwheel_operator.pools.autoscaling import Autoscaler, AutoscalingConfig, PoolUnknown, Window
from tickwheel_operator.pools.demand import Need

KEY = ("shops", "pool")
DELAY_S, WARM_UP_S = 60, 30


def a_pool(uid: str = "uid-1", **scaling: Any) -> WorkerPool:
    wanted = {
        "maxReplicas": 10, "targetBacklogPerSlot": 1, "warmUp": f"{WARM_UP_S}s", "scaleDownDelay": f"{DELAY_S}s",
        **scaling,
    }  # fmt: skip
    pool = parse(
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": "pool", "namespace": "shops", "uid": uid, "generation": 1},
            "spec": {
                "slots": 4,
                "template": {"spec": {"containers": [{"name": "worker", "image": "shop:1"}]}},
                "autoscaling": wanted,
            },
        }
    )
    assert isinstance(pool, WorkerPool)
    return pool


class Leader:
    """An autoscaler of one pool over a driven engine. It is its own clock."""

    def __init__(self, driver: Driver, pool: WorkerPool | None = None, present: int | None = None) -> None:
        self.driver = driver
        self.pool: WorkerPool | None = pool or a_pool()
        self.exists = True
        self.present = present
        self.reachable = True
        self.changes = 0
        self.told: list[tuple[int, int]] = []
        self.views: list[PoolView] = []
        self.autoscaler = Autoscaler(
            self,
            pools=lambda: [KEY] if self.exists else [],
            pool=lambda namespace, name: self.pool if self.exists else None,
            present=self._present,
            changed=self._changed,
            scaled=lambda pool, before, decided: self.told.append((before, decided.workers)),
            seen=lambda views: self.views.extend(views),
            config=AutoscalingConfig(interval_s=0.05, asleep_s=0.01),
        )
        self.autoscaler.lead(driver.engine)

    def now_ms(self) -> int:
        return self.driver.now_ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return self.driver.now_ms - T0

    async def _present(self, namespace: str, name: str) -> int | None:
        if not self.reachable:
            raise PoolUnknown("the API server cannot be reached")
        return self.present

    def _changed(self, namespace: str, name: str) -> None:
        self.changes += 1

    @property
    def desired(self) -> int | None:
        return self.autoscaler.desired_replicas(*KEY)

    async def at(self, second: float) -> int | None:
        """Let time pass until the second, and look."""
        self.driver.at(round(second * 1000))
        await self.autoscaler.look()
        return self.desired


def manual(count: int = 0) -> Driver:
    """An engine with one task by hand, so many of whose runs wait."""
    driver = Driver.leading(task_spec(trigger=None))
    for number in range(count):
        driver.submit(f"run-{number}")
    return driver


def work_off(driver: Driver) -> None:
    while found := deliveries(driver.pull(free=100)):
        driver.report(succeeded=[delivery.token for delivery in found])


# --- over time -------------------------------------------------------------------------------------------------------


async def test_a_backlog_makes_workers_at_once_and_they_go_when_the_delay_is_over() -> None:
    driver = manual(9)
    leader = Leader(driver)
    assert leader.desired is None, "nobody has looked yet"
    assert await leader.at(0) == 3
    work_off(driver)
    assert await leader.at(2) == 3
    assert await leader.at(DELAY_S) == 3
    assert await leader.at(DELAY_S + 2.1) == 0
    assert leader.told == [(0, 3), (3, 0)]
    assert leader.changes == 2


async def test_the_reason_is_that_of_the_need_that_decides() -> None:
    driver = manual(9)
    leader = Leader(driver)
    await leader.at(0)
    work_off(driver)
    await leader.at(10)
    assert leader.autoscaler.reason(*KEY) == "backlog 9 at 1 per slot: 9 slots, 3 workers of 4"
    await leader.at(DELAY_S + 5)
    assert leader.autoscaler.reason(*KEY) == "nothing runs, waits or is due"


async def test_another_reason_for_as_many_workers_is_passed_on_and_the_same_is_not() -> None:
    driver = manual(9)
    leader = Leader(driver)
    assert await leader.at(0) == 3
    assert await leader.at(1) == 3
    assert leader.changes == 1
    driver.submit("one-more")
    assert await leader.at(2) == 3
    assert leader.autoscaler.reason(*KEY) == "backlog 10 at 1 per slot: 10 slots, 3 workers of 4"
    assert leader.changes == 2
    assert leader.told == [(0, 3)]


async def test_workers_are_asked_for_before_a_known_instant_and_not_earlier_than_they_take_to_warm_up() -> None:
    driver = Driver.leading(*(task_spec(f"t{i}", trigger=OnceTrigger(T0 + 100_000)) for i in range(8)))
    leader = Leader(driver)
    assert await leader.at(0) == 0
    assert await leader.at(100 - WARM_UP_S - 1) == 0
    assert await leader.at(100 - WARM_UP_S) == 2
    assert await leader.at(101) == 2, "the runs of the instant wait"
    work_off(driver)
    assert await leader.at(100 + DELAY_S) == 2
    assert await leader.at(101 + DELAY_S + 5) == 0


async def test_a_burst_between_two_lulls_keeps_its_workers_when_the_next_is_known() -> None:
    instants = [T0 + 100_000, T0 + 140_000]
    tasks = [task_spec(f"t{i}-{at}", trigger=OnceTrigger(at)) for at in instants for i in range(8)]
    driver = Driver.leading(*tasks)
    leader = Leader(driver)
    numbers = []
    for second in range(0, 260, 2):
        numbers.append(await leader.at(second))
        work_off(driver)
    assert [number for place, number in enumerate(numbers) if number != numbers[place - 1] or not place] == [0, 2, 0]


async def test_running_work_keeps_its_workers_beyond_the_delay() -> None:
    driver = manual(6)
    leader = Leader(driver)
    found = deliveries(driver.pull(free=10))
    assert await leader.at(0) == 2
    assert await leader.at(DELAY_S + 30) is not None
    driver.report(renew=[delivery.token for delivery in found])
    driver.pull(free=0)
    assert await leader.at(DELAY_S + 31) == 2


async def test_while_no_new_runs_are_made_none_is_expected() -> None:
    driver = Driver.leading(task_spec(trigger=OnceTrigger(T0 + 10_000)))
    driver.engine.scheduler.held = "the ledger is full"
    assert await Leader(driver).at(0) == 0


# --- the spec as it is now -------------------------------------------------------------------------------------------


async def test_bounds_that_change_hold_at_once() -> None:
    leader = Leader(manual(40))
    assert await leader.at(0) == 10
    leader.pool = a_pool(maxReplicas=4)
    assert leader.desired == 4
    leader.pool = a_pool(minReplicas=12, maxReplicas=20)
    assert leader.desired == 12


async def test_a_pool_whose_manifest_is_invalid_for_a_while_keeps_what_was_decided() -> None:
    leader = Leader(manual(9), present=1)
    await leader.at(0)
    leader.pool, pool = None, leader.pool
    assert await leader.at(DELAY_S * 3) is None
    leader.pool = pool
    assert leader.desired == 3


async def test_a_pool_that_is_no_longer_autoscaled_or_is_made_anew_starts_afresh() -> None:
    driver = manual(9)
    leader = Leader(driver)
    await leader.at(0)
    work_off(driver)
    leader.pool = a_pool(uid="uid-2")
    assert leader.desired is None
    assert await leader.at(1) == 0
    leader.exists = False
    assert await leader.at(2) is None


# --- a new leader ----------------------------------------------------------------------------------------------------


async def test_a_new_leader_keeps_the_workers_that_there_are_until_the_delay_is_over() -> None:
    leader = Leader(manual(), present=7)
    assert await leader.at(0) == 7
    assert leader.told == []
    assert await leader.at(DELAY_S) == 7
    assert await leader.at(DELAY_S + 1) == 0
    assert leader.told == [(7, 0)]


async def test_without_a_delay_it_keeps_them_until_busy_ones_have_called() -> None:
    leader = Leader(manual(), a_pool(scaleDownDelay="0s"), present=7)
    assert await leader.at(0) == 7
    assert await leader.at(14) == 7
    assert await leader.at(16) == 0


async def test_a_new_leader_that_cannot_find_out_how_many_there_are_leaves_them() -> None:
    leader = Leader(manual(9), present=7)
    leader.reachable = False
    assert await leader.at(0) is None
    leader.reachable = True
    assert await leader.at(2) == 7


async def test_after_its_term_a_leader_decides_nothing() -> None:
    leader = Leader(manual(9))
    await leader.at(0)
    leader.autoscaler.follow()
    assert await leader.at(2) is None


# --- the loop --------------------------------------------------------------------------------------------------------


async def test_work_for_a_pool_without_workers_is_seen_before_the_next_look() -> None:
    driver = manual()
    leader = Leader(driver)
    leader.autoscaler._config = AutoscalingConfig(interval_s=3_600, asleep_s=0.01)
    loop = asyncio.create_task(leader.autoscaler.run())
    async with asyncio.timeout(60):
        while leader.desired is None:
            await asyncio.sleep(0.01)
        assert leader.desired == 0
        driver.submit("first")
        while leader.desired != 1:
            await asyncio.sleep(0.01)
    loop.cancel()


async def test_the_figures_of_all_pools_are_passed_on_at_each_look() -> None:
    leader = Leader(manual(9))
    await leader.at(0)
    assert [(view.namespace, view.name, view.backlog) for view in leader.views] == [(*KEY, 9)]


# --- what holds always -----------------------------------------------------------------------------------------------

steps = st.lists(st.tuples(st.integers(1, 30_000), st.integers(0, 12)), min_size=1, max_size=60)


@given(steps, st.integers(0, 60_000))
def test_a_number_never_falls_below_a_need_of_the_last_delay(steps: list[tuple[int, int]], delay_ms: int) -> None:
    window, now, past = Window(), 0, []
    for pause, workers in steps:
        now += pause
        past.append((now, workers))
        window.add(now, Need(workers, ""))
        largest = window.largest(now, delay_ms)
        assert largest is not None
        assert largest.workers == max(need for at, need in past if at + delay_ms >= now)


@settings(max_examples=40, deadline=None)
@given(
    bursts=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 60)), max_size=5),
    submissions=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=5),
    least=st.integers(0, 3),
)
async def test_any_course_keeps_the_bounds_the_delay_and_warms_up_for_what_is_known(
    bursts: list[tuple[int, int]], submissions: list[tuple[int, int]], least: int
) -> None:
    tasks = [
        task_spec(f"t{place}-{i}", trigger=OnceTrigger(T0 + second * 1000))
        for place, (second, count) in enumerate(bursts)
        for i in range(count)
    ]
    driver = Driver.leading(task_spec("hello", trigger=None), *tasks)
    leader = Leader(driver, a_pool(minReplicas=least))
    numbers: dict[int, int] = {}
    for second in range(0, 420, 2):
        driver.at(second * 1000)
        for place, (at, count) in enumerate(submissions):
            if second <= at < second + 2:
                for number in range(count):
                    driver.submit(f"{place}-{number}")
        desired = await leader.at(second)
        assert desired is not None
        assert least <= desired <= 10
        numbers[second] = desired
        work_off(driver)
    for second, count in bursts:
        needed = min(10, -(-count // 4))
        ahead = [at for at in numbers if second - WARM_UP_S <= at <= second]
        assert all(numbers[at] >= needed for at in ahead)
    falls = [at for at in numbers if at and numbers[at] < numbers[at - 2]]
    for fall in falls:
        rises = [at for at in numbers if fall - DELAY_S < at < fall and numbers[at] > numbers.get(at - 2, 0)]
        assert not rises, "no worker goes that was asked for within the delay"
