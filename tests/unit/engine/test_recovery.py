"""A ledger that is lost, or older than the statuses of the tasks: what was settled stays settled."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Guarantee, Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger, OnceTrigger
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import SkipReason

MINUTE = 60_000
ALL = Misfire(policy=MisfirePolicy.FIRE_ALL)
MINUTELY = task_spec(trigger=FixedRateTrigger(MINUTE, T0), misfire=ALL)


def record(**fields: Any) -> m.StatusRecord:
    return m.StatusRecord(**{"generation": 1, "settled_ms": T0 + 5 * MINUTE, **fields})


def new_ledger(spec: Any, said: m.StatusRecord | None, *, now_ms: int) -> Driver:
    """A leader with an empty ledger, and an object that knows of earlier runs."""
    driver = Driver(now_ms=now_ms)
    driver.do(m.TaskApplied(spec=spec, record=said))
    driver.do(m.CatalogSynced())
    return driver


def scheduled(driver: Driver) -> list[int]:
    return [(run.scheduled_ms - T0) // MINUTE for run in driver.open_runs()]


def test_a_once_that_ended_does_not_run_again_with_an_empty_ledger() -> None:
    once = task_spec(trigger=OnceTrigger(T0 + MINUTE))
    said = record(settled_ms=T0 + MINUTE, last_scheduled_ms=T0 + MINUTE, succeeded=1)
    driver = new_ledger(once, said, now_ms=T0 + 60 * MINUTE)
    driver.at(61 * MINUTE)
    assert driver.open_runs() == []
    assert driver.engine.state.by_uid["uid-hello"].succeeded == 1


def test_an_empty_ledger_goes_on_from_what_the_status_says_is_settled() -> None:
    driver = new_ledger(MINUTELY, record(), now_ms=T0 + 8 * MINUTE)
    driver.at(8 * MINUTE + 1)
    assert scheduled(driver) == [6, 7, 8]


def test_counters_and_skips_go_on_and_a_second_takeover_recovers_nothing() -> None:
    said = record(succeeded=4, failed=2, cancelled=1, skips=((SkipReason.MISFIRED, 3, T0 + 2 * MINUTE),))
    driver = new_ledger(MINUTELY, said, now_ms=T0 + 5 * MINUTE)
    second = Driver(now_ms=driver.now_ms)
    second.engine.replay(driver.facts)
    second.do(m.TaskApplied(spec=MINUTELY, record=said))
    second.do(m.CatalogSynced())
    for leader in (driver, second):
        task = leader.engine.state.by_uid["uid-hello"]
        assert (task.succeeded, task.failed, task.cancelled, task.skipped) == (4, 2, 1, 3)
        assert task.skips == {SkipReason.MISFIRED: (3, T0 + 2 * MINUTE)}
    assert (driver.engine.scheduler.recovery.count, second.engine.scheduler.recovery.count) == (1, 0)


def test_a_ledger_that_was_restored_from_a_backup_does_not_go_behind_the_status() -> None:
    before = Driver.leading(MINUTELY)
    before.at(2 * MINUTE)
    restored = Driver(now_ms=T0 + 8 * MINUTE)
    restored.engine.replay(before.facts)
    open_before = len(before.open_runs())
    restored.do(m.TaskApplied(spec=MINUTELY, record=record(last_scheduled_ms=T0 + 5 * MINUTE)))
    restored.do(m.CatalogSynced())
    restored.at(8 * MINUTE + 1)
    assert scheduled(restored)[open_before:] == [6, 7, 8]


@pytest.mark.parametrize(("guarantee", "again"), [(Guarantee.AT_LEAST_ONCE, True), (Guarantee.AT_MOST_ONCE, False)])
def test_a_run_that_was_open_when_the_ledger_was_lost_runs_again_unless_at_most_once(
    guarantee: Guarantee, again: bool
) -> None:
    once = task_spec(trigger=OnceTrigger(T0 + MINUTE), guarantee=guarantee)
    said = record(settled_ms=T0 + MINUTE, last_scheduled_ms=T0 + MINUTE, unfinished=True)
    driver = new_ledger(once, said, now_ms=T0 + 60 * MINUTE)
    driver.at(61 * MINUTE)
    assert len(driver.open_runs()) == again


def test_a_task_that_was_edited_after_the_status_was_written_counts_from_now() -> None:
    edited = task_spec(trigger=FixedRateTrigger(MINUTE, T0), misfire=ALL, generation=2)
    driver = new_ledger(edited, record(), now_ms=T0 + 8 * MINUTE)
    driver.at(8 * MINUTE + 1)
    assert scheduled(driver) == []
    skipped = [fact for fact in driver.facts if isinstance(fact, f.Skipped)]
    assert [(fact.count, fact.reason) for fact in skipped] == [(3, SkipReason.EDITED)]


def test_a_task_without_a_record_has_no_facts() -> None:
    driver = new_ledger(MINUTELY, None, now_ms=T0)
    assert driver.facts == []


def test_fencing_tokens_keep_growing_under_the_next_ledger() -> None:
    driver = new_ledger(MINUTELY, record(), now_ms=T0 + 8 * MINUTE)
    driver.at(8 * MINUTE + 1)
    tokens = [delivery.token for delivery in deliveries(driver.pull())]
    assert min(tokens) >= (T0 + 8 * MINUTE) * 1_000
    later = driver.successor(MINUTELY)
    later.submit("more")
    assert deliveries(later.pull(received=max(tokens)))[-1].token > max(tokens)


def test_a_status_that_knows_of_more_runs_and_of_fewer_skips_takes_none_back() -> None:
    """It was written before the last skip, or by an older build."""
    before = Driver.leading(task_spec(trigger=FixedRateTrigger(MINUTE, T0), misfire=Misfire(policy=MisfirePolicy.SKIP)))
    before.at(3 * MINUTE + 30_000)
    task = before.engine.state.by_uid["uid-hello"]
    assert task.skips == {SkipReason.MISFIRED: (3, T0 + 3 * MINUTE)}
    after = Driver(now_ms=before.now_ms)
    after.engine.replay(before.facts)
    skips = ((SkipReason.MISFIRED, 1, T0 + MINUTE),)
    after.do(m.TaskApplied(spec=MINUTELY, record=record(succeeded=4, settled_ms=T0, skips=skips)))
    after.do(m.CatalogSynced())
    task = after.engine.state.by_uid["uid-hello"]
    assert (task.succeeded, task.skipped, task.skips) == (4, 3, {SkipReason.MISFIRED: (3, T0 + 3 * MINUTE)})
