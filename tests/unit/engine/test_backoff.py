"""How long a run that failed waits for its next attempt."""

from __future__ import annotations

from tickwheel_operator.engine.dispatch.retry import backoff_ms
from tickwheel_operator.engine.spec import Backoff


def test_the_pause_grows_from_the_first_attempt_on_up_to_its_bound() -> None:
    backoff = Backoff(initial_ms=100, factor=3.0, max_ms=2_000, jitter=0)
    assert [backoff_ms(backoff, attempt, "run") for attempt in (1, 2, 3, 4, 5)] == [100, 300, 900, 2_000, 2_000]


def test_the_ten_thousandth_attempt_waits_as_long_as_the_bound_says() -> None:
    backoff = Backoff(initial_ms=100, factor=10.0, max_ms=60_000, jitter=0)
    assert backoff_ms(backoff, 10_000, "run") == 60_000


def test_jitter_spreads_runs_and_attempts_and_is_the_same_for_two_leaders() -> None:
    backoff = Backoff(initial_ms=1_000, factor=1.0, jitter=0.5)
    pauses = {(run, attempt): backoff_ms(backoff, attempt, f"run-{run}") for run in range(20) for attempt in (1, 2, 3)}
    assert all(1_000 <= pause <= 1_500 for pause in pauses.values())
    assert len(set(pauses.values())) > 40
    assert max(pauses.values()) - min(pauses.values()) > 300
    assert pauses == {(run, attempt): backoff_ms(backoff, attempt, f"run-{run}") for run, attempt in pauses}
