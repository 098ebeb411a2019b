"""How many workers a pool needs: from what runs, waits and is known to come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine.read.views import Due, due_runs
from tickwheel_operator.engine.triggers import CronTrigger, FixedRateTrigger, OnceTrigger
from tickwheel_operator.pools.demand import Bounds, Coming, Demand, coming, need

BOUNDS = Bounds(least=0, most=20, slots=16, backlog_per_slot=2)
KEY = ("shops", "pool")

coming_ones = st.builds(Coming, st.floats(0, 5_000, allow_nan=False), st.just(T0))
demands = st.builds(Demand, used=st.integers(0, 500), backlog=st.integers(0, 5_000), coming=coming_ones)
bounds = st.builds(
    lambda least, more, slots, per_slot: Bounds(least=least, most=least + more, slots=slots, backlog_per_slot=per_slot),
    st.integers(0, 20), st.integers(1, 50), st.integers(1, 100), st.integers(1, 20),
)  # fmt: skip
dues = st.lists(
    st.builds(
        Due, st.integers(T0, T0 + 30_000), st.integers(1, 50), st.integers(0, 60_000), st.sampled_from([0, 100, 5_000])
    ),
    max_size=20,
)


# --- the need --------------------------------------------------------------------------------------------------------


def test_a_slot_stands_for_as_many_waiting_dispatches_as_the_spec_aims_at() -> None:
    wanted = need(Demand(backlog=240), BOUNDS)
    assert wanted.workers == 8
    assert wanted.reason == "backlog 240 at 2 per slot: 120 slots, 8 workers of 16"


def test_running_work_keeps_its_slots_beside_the_backlog() -> None:
    wanted = need(Demand(used=33, backlog=1), BOUNDS)
    assert (wanted.workers, wanted.reason) == (
        3,
        "33 slots in use, backlog 1 at 2 per slot: 34 slots, 3 workers of 16",
    )


def test_one_waiting_dispatch_or_one_known_run_makes_a_worker() -> None:
    assert need(Demand(backlog=1), BOUNDS).workers == 1
    assert need(Demand(coming=Coming(0.001, T0)), BOUNDS).workers == 1
    idle = need(Demand(), BOUNDS)
    assert (idle.workers, idle.reason) == (0, "nothing runs, waits or is due")


def test_what_is_known_to_come_is_named_with_its_instant() -> None:
    wanted = need(Demand(used=3, coming=Coming(64, T0)), BOUNDS)
    assert wanted.workers == 2
    assert wanted.reason == "64 runs at once from 22:13:20 UTC on, at 2 per slot: 32 slots, 2 workers of 16"


def test_a_bound_that_decides_is_named() -> None:
    assert need(Demand(backlog=9_999), BOUNDS).reason.endswith("; maxReplicas is 20")
    assert need(Demand(), Bounds(least=2, most=3, slots=1, backlog_per_slot=1)).reason.endswith("; minReplicas is 2")


@given(demands, bounds)
def test_the_bounds_are_kept(demand: Demand, bounds: Bounds) -> None:
    assert bounds.least <= need(demand, bounds).workers <= bounds.most


@given(demands, bounds, st.integers(0, 1_000), st.integers(0, 1_000), st.floats(0, 1_000))
def test_more_to_do_never_needs_fewer_workers(
    demand: Demand, bounds: Bounds, used: int, backlog: int, at_once: float
) -> None:
    more = Demand(
        used=demand.used + used,
        backlog=demand.backlog + backlog,
        coming=Coming(demand.coming.at_once + at_once, T0),
    )
    assert need(more, bounds).workers >= need(demand, bounds).workers


@given(demands, bounds)
def test_the_slots_are_enough_unless_the_bound_forbids(demand: Demand, bounds: Bounds) -> None:
    workers = need(demand, bounds).workers
    slots = workers * bounds.slots
    if workers < bounds.most:
        assert slots >= demand.used
        assert (slots - demand.used) * bounds.backlog_per_slot >= demand.backlog
        assert slots * bounds.backlog_per_slot >= demand.coming.at_once - 1e-6


# --- what comes ------------------------------------------------------------------------------------------------------


def test_runs_that_overlap_need_a_slot_each_and_those_after_each_other_share_it() -> None:
    assert coming([Due(T0, 10, 1_000), Due(T0 + 500, 5, 1_000)]).at_once == 15
    assert coming([Due(T0, 10, 500), Due(T0 + 500, 5, 1_000)]).at_once == 10
    assert coming([Due(T0 + 5, 10, 0), Due(T0, 5, 0)]) == Coming(10, T0)


def test_what_repeats_has_its_mean_share_and_its_largest_group_whole() -> None:
    assert coming([Due(T0 + i, 1, 5, 1_000) for i in range(100)]).at_once < 2
    assert coming([Due(T0, 100, 250, 1_000), Due(T0 + 1, 1, 500, 1_000)]).at_once == 100.5
    # The same instants found in two portions are one group.
    assert coming([Due(T0, 60, 0, 1_000), Due(T0, 40, 0, 1_000)]).at_once == 100


@given(dues, dues)
def test_more_instants_never_come_to_less(some: list[Due], others: list[Due]) -> None:
    assert coming(some + others).at_once >= coming(some).at_once - 1e-6


@given(dues)
def test_a_group_that_fires_together_is_there_as_a_whole(some: list[Due]) -> None:
    assert coming(some).at_once >= max((due.tasks for due in some), default=0) - 1e-6


# --- what the engine knows -------------------------------------------------------------------------------------------


def found(driver: Driver, horizon_ms: int) -> list[Due]:
    horizons = {KEY: driver.now_ms + horizon_ms}
    return due_runs(driver.engine.scheduler.entries.values(), driver.now_ms, horizons).get(KEY, [])


def test_the_engine_gives_the_instants_until_the_horizon_and_no_others() -> None:
    specs = [task_spec(f"t{i}", trigger=OnceTrigger(T0 + 30_000)) for i in range(3)]
    driver = Driver.leading(*specs, task_spec("far", trigger=OnceTrigger(T0 + 90_000)))
    assert found(driver, 29_999) == []
    # They never ran: each counts until the horizon.
    assert found(driver, 30_000) == [Due(T0 + 30_000, 3, 1)]
    assert {due.at_ms for due in found(driver, 90_000)} == {T0 + 30_000, T0 + 90_000}


def test_suspended_manual_and_other_pools_tasks_fire_nothing_here() -> None:
    driver = Driver.leading(
        task_spec("manual", trigger=None),
        task_spec("suspended", suspend=True),
        task_spec("elsewhere", pool="other"),
    )
    assert found(driver, 60_000) == []


def test_a_trigger_that_repeats_is_one_figure_however_long_the_horizon() -> None:
    driver = Driver.leading(task_spec("rate", trigger=FixedRateTrigger(100, T0)))
    # Unknown duration: until its own next instant.
    assert found(driver, 3_600_000) == [Due(T0 + 100, 1, 100, 100)]
    driver = Driver.leading(task_spec("cron", trigger=CronTrigger("*/5 * * * * *")))
    assert [due.every_ms for due in found(driver, 12_000)] == [0, 0]
    assert [due.every_ms for due in found(driver, 60_000)] == [5_000]


def test_the_duration_of_runs_is_measured() -> None:
    driver = Driver.leading(task_spec("work", trigger=FixedRateTrigger(60_000, T0)))
    for turn, lasts_ms in enumerate((900, 1_000, 1_100, 1_200), start=1):
        driver.at(turn * 60_000)
        [delivery] = deliveries(driver.pull())
        driver.now_ms += lasts_ms
        driver.report(succeeded=[delivery.token])
    [due] = found(driver, 60_000)
    assert due.lasts_ms == 1_100, "the mean of the last three"
