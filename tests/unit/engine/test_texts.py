"""What is kept of the words in which a handler says why it failed."""

from __future__ import annotations

from tests.unit.engine.driver import Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Backoff, EngineConfig, RetryPolicy
from tickwheel_operator.ledger import facts as f


def _failed(limit: int) -> list[f.Failed]:
    """All attempts fail with long words."""
    retry = RetryPolicy(limit=limit, backoff=Backoff(initial_ms=100, jitter=0))
    driver = Driver.leading(task_spec(trigger=None, retry=retry), config=EngineConfig(max_error_chars=1_000))
    driver.submit("k")
    for attempt in range(limit + 1):
        [delivery] = deliveries(driver.pull(received=attempt))
        words = m.FailedAttempt(
            token=delivery.token, error_type="E" * 300, message="m" * 5_000, traceback="a" * 4_000 + "z" * 1_000
        )
        driver.report(failed=[words])
        driver.at((attempt + 1) * 1_000)
    return driver.of(f.Failed)


def test_of_the_last_failure_as_much_is_kept_as_the_setting_says() -> None:
    [last] = _failed(0)
    assert (last.retry_ms, last.error_type, last.message) == (0, "E" * 200, "m" * 1_000)
    assert last.traceback == "z" * 1_000, "the end, which names the place"


def test_of_a_failure_that_is_tried_again_only_the_beginning_of_the_message_is_kept() -> None:
    first, last = _failed(1)
    assert first.retry_ms
    assert (first.error_type, first.message, first.traceback) == ("E" * 200, "m" * 500, "")
    assert (last.retry_ms, len(last.message), len(last.traceback)) == (0, 1_000, 1_000)
