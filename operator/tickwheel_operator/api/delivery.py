"""`spec.delivery` and `spec.retry`: what is promised when a worker is lost or a handler fails.

Invariant: `Retry.effective_backoff` is total: whatever is set, it says how long to wait.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from tickwheel_operator.api.schema import ListOf, Model, Number, Rule, Whole, at_most_one
from tickwheel_operator.api.text import Choice, Duration, ErrorType, Percent, PositiveDuration

__all__ = ["Backoff", "Delivery", "Exponential", "Fixed", "Guarantee", "Levels", "Retry"]

Levels: TypeAlias = Annotated[tuple[Duration, ...], ListOf(least=1, most=100)]
ErrorTypes: TypeAlias = Annotated[tuple[ErrorType, ...], ListOf(most=50, unique=True)]


class Guarantee(Choice):
    """What happens to an attempt whose worker is lost."""

    AT_MOST_ONCE = "AtMostOnce"
    AT_LEAST_ONCE = "AtLeastOnce"
    EXACTLY_ONCE = "ExactlyOnce"


class Delivery(Model):
    """What is promised when a worker is lost, and how long things may take."""

    guarantee: Guarantee = Guarantee.AT_LEAST_ONCE
    """AtLeastOnce: an attempt whose worker is lost is delivered again. AtMostOnce: it never is. ExactlyOnce: it is
    after the handler's `check` said that the effect did not happen."""
    dispatch_timeout: PositiveDuration | None = None
    """No worker took it for so long: a failed delivery. Default: it waits."""
    timeout: PositiveDuration | None = None
    """How long an attempt may run; then it is cancelled and counts as failed. Default: no limit."""
    grace_period: Duration = Duration("10s")
    """How long a handler has after a cancel before its worker kills it."""


class Exponential(Model):
    """Each delay is a multiple of the one before."""

    initial: PositiveDuration = PositiveDuration("1s")
    """The first delay."""
    factor: Annotated[Number, Field(ge=1, le=100)] = 2.0
    """Each further delay is so many times the last one, 1 to 100."""
    max: PositiveDuration = PositiveDuration("5m")
    """No delay is longer."""
    jitter: Percent = Percent("20%")
    """Each delay is longer by up to this share of itself, so that failures do not return together."""


class Fixed(Model):
    """All delays are the same."""

    delay: Duration = Duration("5s")
    """The delay before each further delivery."""


class Backoff(Model):
    """How long to wait before the next delivery. No member is the schema's default, since a stored default could
    not be replaced by another member with `kubectl apply`."""

    rules = (at_most_one("exponential", "fixed", "levels"),)

    exponential: Exponential | None = None
    """Each delay is a multiple of the one before. The default, with its defaults."""
    fixed: Fixed | None = None
    """All delays are the same: `{delay: 5s}`."""
    levels: Levels | None = None
    """The delays one by one: `[1s, 5s, 10s, 30s, 1m, 10m]`; the last one repeats."""


class Retry(Model):
    """What follows a failed attempt."""

    rules = (
        Rule(
            "!has(self.only) || size(self.only) == 0 || !has(self.never) || size(self.never) == 0",
            "only and never exclude each other: name the error types that are retried, or those that are not",
            lambda retry: not retry.only or not retry.never,
        ),
    )

    limit: Annotated[Whole, Field(ge=0, le=1_000)] = 3
    """Deliveries after the first, 0 to 1000; 0: the first failure is final. Out of them, the run is a dead letter."""
    backoff: Backoff | None = None
    """How long to wait before the next delivery. Default: exponential from 1s to 5m."""
    only: ErrorTypes = ()
    """Error types that are retried; all others fail at once. Default: all are."""
    never: ErrorTypes = ()
    """Error types that are never retried: `[ValueError]`."""

    @property
    def effective_backoff(self) -> Exponential | Fixed | tuple[Duration, ...]:
        """The member that is set, or the default."""
        backoff = self.backoff or Backoff()
        return backoff.fixed or backoff.levels or backoff.exponential or Exponential()
