"""Tasks that run after another task has."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.sources import ByHand, Completion, Outcome
from tickwheel_operator.engine.spec import EngineConfig, RetryPolicy, TaskSpec
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.ledger import facts as f


def _pair(outcome: Outcome = Outcome.SUCCEEDED, **changes: Any) -> tuple[TaskSpec, TaskSpec]:
    follower = task_spec("next", source=Completion("hello", outcome), **changes)
    return task_spec(trigger=None, retry=RetryPolicy(limit=0)), follower


@pytest.mark.parametrize(
    ("outcome", "fires"),
    [(Outcome.SUCCEEDED, (True, False)), (Outcome.FAILED, (False, True)), (Outcome.ANY, (True, True))],
)
def test_a_completion_fires_for_the_outcome_that_it_names(outcome: Outcome, fires: tuple[bool, bool]) -> None:
    driver = Driver.leading(*_pair(outcome))
    for key, fired in zip(("good", "bad"), fires, strict=True):
        driver.submit(key)
        [run] = deliveries(driver.pull())
        if key == "good":
            driver.report(succeeded=[run.token])
        else:
            driver.report(failed=[m.FailedAttempt(token=run.token, error_type="ValueError")])
        followers = driver.open_runs("next")
        assert bool(followers) is fired
        for follower in followers:
            assert follower.key == run.run_id
            [following] = deliveries(driver.pull(received=run.token))
            driver.report(succeeded=[following.token])


def test_each_end_makes_one_run_and_never_two_over_leaders() -> None:
    specs = _pair()
    driver = Driver.leading(*specs)
    driver.submit("k")
    [run] = deliveries(driver.pull())
    driver.report(succeeded=[run.token])
    new = driver.successor(*specs)
    new.report(succeeded=[run.token])
    assert len(new.open_runs("next")) == 1


def test_a_suspended_follower_and_one_outside_of_its_window_count_what_they_let_pass() -> None:
    upstream, suspended = _pair(suspend=True)
    closed = task_spec("late", source=Completion("hello", filter=Filter(not_after_ms=T0 - 1)))
    driver = Driver.leading(upstream, suspended, closed)
    driver.submit("k")
    [run] = deliveries(driver.pull())
    driver.report(succeeded=[run.token])
    reasons = sorted(skip.reason.name for skip in driver.of(f.Skipped))
    assert reasons == ["CALENDAR", "SUSPENDED"]


def test_a_follower_counts_the_ends_that_it_missed_while_it_was_invalid() -> None:
    upstream, follower = _pair()
    driver = Driver.leading(upstream, follower)
    token = 0
    for key, invalid in (("a", True), ("b", False)):
        driver.do(m.TaskRemoved(uid=follower.uid, forget=False) if invalid else m.TaskApplied(spec=follower))
        driver.submit(key)
        [run] = deliveries(driver.pull(received=token))
        token = run.token
        driver.report(succeeded=[token])
    assert [(skip.count, skip.reason) for skip in driver.of(f.Skipped)] == [(1, f.SkipReason.STALLED)]
    assert len(driver.open_runs("next")) == 1, "once it is mended it follows again, and once"
    driver.do(m.TaskRemoved(uid=follower.uid, forget=False))
    driver.do(m.TaskRemoved(uid=follower.uid))
    driver.submit("c")
    [run] = deliveries(driver.pull(received=token))
    driver.report(succeeded=[run.token])
    driver.forget()
    assert "uid-next" not in driver.engine.state.by_uid


def test_a_chain_of_completions_runs_to_its_end() -> None:
    names = ("hello", "b", "c")
    specs = [task_spec(n, source=ByHand() if i == 0 else Completion(names[i - 1])) for i, n in enumerate(names)]
    driver = Driver.leading(*specs)
    driver.submit("k")
    ran, token = [], 0
    while got := deliveries(driver.pull(received=token)):
        token = got[-1].token
        ran += [d.task.name for d in got]
        driver.report(succeeded=[d.token for d in got])
    assert ran == ["hello", "b", "c"]


def test_the_end_of_a_run_whose_task_became_invalid_or_was_deleted_meanwhile_is_followed_too() -> None:
    upstream, follower = _pair(Outcome.ANY)
    driver = Driver.leading(upstream, follower)
    driver.submit("k")
    [run] = deliveries(driver.pull())

    invalid = Driver(now_ms=driver.now_ms)
    invalid.engine.replay(driver.facts)
    invalid.do(m.TaskApplied(spec=follower))
    invalid.do(m.TaskRemoved(uid=upstream.uid, forget=False))
    invalid.do(m.CatalogSynced())
    invalid.report(succeeded=[run.token])
    assert len(invalid.open_runs("next")) == 1

    deleted = driver.successor(follower)
    deleted.do(m.TaskRemoved(uid=upstream.uid))
    assert len(deleted.open_runs("next")) == 1


def test_a_follower_whose_pool_is_full_counts_the_end_and_makes_no_run() -> None:
    driver = Driver.leading(*_pair(), config=EngineConfig(max_backlog=1))
    driver.submit("first")
    [first] = deliveries(driver.pull(free=1))
    driver.submit("waits")
    driver.report(succeeded=[first.token])
    assert driver.open_runs("next") == []
    assert [(skip.count, skip.reason) for skip in driver.of(f.Skipped)] == [(1, f.SkipReason.BACKLOG)]
    [second] = deliveries(driver.pull(free=1, received=first.token))
    driver.report(succeeded=[second.token])
    assert len(driver.open_runs("next")) == 1, "there is room again"


@pytest.mark.parametrize("first", ["invalid", "follower"])
def test_a_follower_hears_of_an_open_run_whose_task_became_invalid_before_or_after_it_came(first: str) -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())
    follower = task_spec("next", source=Completion("hello", Outcome.SUCCEEDED))
    commands = [m.TaskRemoved(uid="uid-hello", forget=False), m.TaskApplied(spec=follower)]
    for command in commands if first == "invalid" else reversed(commands):
        driver.do(command)
    driver.report(succeeded=[delivery.token])
    assert len(driver.open_runs("next")) == 1
