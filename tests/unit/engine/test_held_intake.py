"""The store fills up: no new runs are made, none is lost."""

from __future__ import annotations

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.ledger import facts as f

FULL = m.IntakeHeld(reason="the ledger retains 256 MiB")
OPEN = m.IntakeHeld(reason="")


def test_submissions_are_refused_with_the_reason_and_open_runs_go_on() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("a")
    driver.do(FULL)

    refused = driver.submit("b")
    assert isinstance(refused, m.CommandRefused)
    assert (refused.reason, refused.detail) == (m.RefusalReason.BACKLOG_FULL, FULL.reason)
    [delivery] = deliveries(driver.pull())
    driver.report(succeeded=[delivery.token])
    assert driver.of(f.Succeeded) == [f.Succeeded([delivery.token])]

    driver.do(OPEN)
    assert isinstance(driver.submit("b"), m.Submitted)


def test_instants_wait_and_are_settled_by_the_misfire_policy_when_the_intake_opens() -> None:
    every = [
        task_spec("all", misfire=Misfire(policy=MisfirePolicy.FIRE_ALL)),
        task_spec("once"),
        task_spec("skip", misfire=Misfire(policy=MisfirePolicy.SKIP)),
    ]
    driver = Driver.leading(*every)
    driver.at(1_000)
    fired = len(driver.engine.state.runs)
    driver.do(FULL)
    for second in range(2, 60):
        driver.at(second * 1_000)
    assert len(driver.engine.state.runs) == fired == 3
    assert driver.of(f.Skipped) == [], "nothing is decided while it waits"

    driver.at(60_500, OPEN)

    state = driver.engine.state
    runs = {name: len(state.by_uid[f"uid-{name}"].runs) for name in ("all", "once", "skip")}
    assert runs == {"all": 60, "once": 1 + 2, "skip": 1 + 1}
    for name in ("all", "once", "skip"):
        task = state.by_uid[f"uid-{name}"]
        assert len(task.runs) + task.skipped == 60, "each instant made a run or is counted"
    driver.at(61_000)
    assert len(state.by_uid["uid-skip"].runs) == 3, "the schedule goes on"


def test_a_leader_that_begins_with_a_full_store_settles_nothing_before_it_opens() -> None:
    before = Driver.leading(task_spec())
    before.at(1_000)
    later = Driver(now_ms=T0 + 10_000)
    later.engine.replay(before.facts)
    later.do(FULL)
    later.do(m.TaskApplied(spec=task_spec()))
    later.do(m.CatalogSynced())
    later.at(20_000)
    assert not later.of(f.Fired)

    later.at(20_500, OPEN)

    task = later.engine.state.by_uid["uid-hello"]
    assert len(task.runs) + task.skipped == 20


@pytest.mark.parametrize("between", ["edited", "mended", "resumed"])
def test_an_overdue_task_makes_no_run_while_the_intake_is_held_whatever_becomes_of_it(between: str) -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.do(FULL)
    driver.at(5_500)
    if between == "mended":
        driver.do(m.TaskRemoved(uid="uid-hello", forget=False))
    elif between == "resumed":
        driver.do(m.TaskApplied(spec=task_spec(generation=2, suspend=True)))
    handler = "other" if between == "edited" else "greet"
    driver.do(m.TaskApplied(spec=task_spec(generation=3, handler=handler)))
    driver.at(5_600)
    assert len(driver.of(f.Fired)) == 1
    driver.do(OPEN)
    assert len(driver.of(f.Fired)) > 1


def test_a_fixed_delay_that_ends_while_the_intake_is_held_is_settled_when_it_opens() -> None:
    driver = Driver.leading(task_spec(source=FixedDelay(1_000)))
    driver.do(FULL)
    assert driver.at(1_000) == []
    assert driver.open_runs() == []
    driver.at(2_000, OPEN)
    assert [run.scheduled_ms for run in driver.open_runs()] == [T0 + 1_000]
