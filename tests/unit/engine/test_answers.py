"""What somebody is told who asks for a run, or for its end."""

from __future__ import annotations

from tests.unit.engine.driver import Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Overlap, OverlapPolicy


def test_a_leader_that_reads_the_catalog_refuses_runs_and_says_why() -> None:
    driver = Driver(task_spec(trigger=None))
    refused = driver.submit("k")
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.NOT_READY


def test_a_run_that_has_ended_says_how_when_it_is_cancelled() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    [delivery] = deliveries(driver.pull())
    driver.report(succeeded=[delivery.token])
    [answer] = driver.cancel(delivery.run_id)
    assert isinstance(answer, m.Submitted)
    assert answer.runs[0].state is m.RunState.SUCCEEDED


def test_a_run_with_a_delay_is_taken_though_one_that_forbids_others_is_open() -> None:
    """It is judged when its delay is over."""
    driver = Driver.leading(task_spec(trigger=None, overlap=Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1)))
    driver.submit("open")
    assert isinstance(driver.submit("now"), m.CommandRefused)
    assert isinstance(driver.submit("later", delay_ms=500), m.Submitted)


def test_a_task_whose_run_an_object_waits_for_is_viewed_first() -> None:
    driver = Driver.leading(task_spec("often"), task_spec("asked", trigger=None))
    driver.submit("k", "asked", object_name="mine")
    driver.at(1_000)
    driver.engine.views(10)
    asked, often = sorted(deliveries(driver.pull()), key=lambda delivery: delivery.task.name)
    driver.engine.views(10)

    driver.report(succeeded=[often.token])
    driver.report(succeeded=[asked.token])

    assert [view.name for view in driver.engine.views(1).tasks] == ["asked"]
