"""How long a dispatch that failed waits for its next delivery."""

from __future__ import annotations

from tickwheel_operator.engine.model.identity import unit_interval
from tickwheel_operator.engine.spec import Backoff

__all__ = ["backoff_ms"]

_MOST_DOUBLINGS = 64


def backoff_ms(backoff: Backoff, attempts: int, run_id: str) -> int:
    """The pause after this many attempts, in milliseconds. Its jitter follows from the run and the attempt, so that
    two leaders come to the same."""
    delay = min(backoff.initial_ms * backoff.factor ** min(attempts - 1, _MOST_DOUBLINGS), backoff.max_ms)
    if backoff.jitter:
        delay *= 1 + backoff.jitter * unit_interval(run_id, attempts)
    return int(delay)
