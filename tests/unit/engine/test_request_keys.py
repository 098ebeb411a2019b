"""One idempotency key is one request: the same again shows its run, another one is refused with what differs."""

from __future__ import annotations

import pytest
from tests.unit.engine.driver import Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.request_keys import content_of
from tickwheel_operator.engine.model.snapshot import dump, load
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.spec import RetryPolicy

BY_HAND = task_spec(trigger=None)


def refused(effect: m.Effect) -> str:
    assert isinstance(effect, m.CommandRefused), effect
    assert effect.reason is m.RefusalReason.KEY_REUSED
    return effect.detail


def ended(driver: Driver) -> Driver:
    """Its one run has succeeded."""
    [delivery] = deliveries(driver.pull())
    driver.report(succeeded=[delivery.token])
    return driver


@pytest.mark.parametrize("end", [False, True])
def test_other_parameters_under_a_known_key_are_refused_and_the_same_are_the_same_run(end: bool) -> None:
    driver = Driver.leading(BY_HAND)
    first = driver.submit("k", parameters=b'{"a":1,"b":[1,2]}')
    assert isinstance(first, m.Submitted) and first.runs[0].created
    if end:
        ended(driver)
    for leader in (driver, driver.successor(BY_HAND)):
        again = leader.submit("k", parameters=b'{ "b":[1.0,2], "a":1}')
        assert isinstance(again, m.Submitted) and not again.runs[0].created
        detail = refused(leader.submit("k", parameters=b'{"a":2,"c":1}'))
        assert "'k'" in detail
        assert "parameters.a: has another value; parameters.b: is missing; parameters.c: is new" in detail
        assert "parameters.a: is missing; parameters.b: is missing" in refused(leader.submit("k"))


def test_a_checkpoint_keeps_what_a_key_was_used_for() -> None:
    driver = Driver.leading(BY_HAND)
    driver.submit("k", parameters=b'{"a":1}')
    ended(driver)
    restored = State()
    load(restored, dump(driver.engine.state))
    assert restored.keys == driver.engine.state.keys
    assert [known.content for known in restored.keys.values() if not hasattr(known, "id")] == [content_of(b'{"a":1}')]


def test_a_backfill_of_another_span_under_a_known_key_is_refused() -> None:
    driver = Driver.leading(task_spec(suspend=True))
    driver.at(10_000)
    driver.backfill(2_000, 4_000, key="k")
    assert isinstance(driver.backfill(2_000, 4_000, key="k"), m.Submitted)
    assert "backfill: was from 20" in refused(driver.backfill(2_000, 5_000, key="k"))
    assert "backfill: was from 20" in refused(driver.submit("k"))


def test_one_request_that_uses_a_key_for_two_things_makes_nothing() -> None:
    driver = Driver.leading(BY_HAND)
    runs = [m.Submission(key="k", scheduled_ms=1, parameters=p) for p in (b'{"a":1}', b'{"a":2}')]
    [effect] = driver.do(m.Submit(request=1, namespace="shops", name="hello", runs=runs))
    assert "is used twice in this request" in refused(effect)
    assert driver.open_runs() == []


def test_what_is_kept_of_a_key_is_bounded() -> None:
    many = b"{" + b",".join(b'"parameter-%d":%d' % (n, n) for n in range(1_000)) + b"}"
    assert len(content_of(many)) < 600
    assert content_of(many) != content_of(many.replace(b":7,", b":8,"))
    driver = Driver.leading(BY_HAND)
    driver.submit("k", parameters=many)
    assert "parameters: they differ" in refused(driver.submit("k", parameters=many.replace(b":7,", b":8,")))
    assert content_of(b"no JSON") and content_of(b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}")


def test_an_attempt_whose_failure_is_permanent_is_not_retried() -> None:
    driver = Driver.leading(task_spec(trigger=None, retry=RetryPolicy(limit=5)))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())
    driver.report(failed=[m.FailedAttempt(token=delivery.token, error_type="ParameterError", permanent=True)])
    assert driver.open_runs() == []
    [shown] = driver.engine.state.by_uid["uid-hello"].history_failed
    assert (shown.attempts, shown.error_type) == (1, "ParameterError")
