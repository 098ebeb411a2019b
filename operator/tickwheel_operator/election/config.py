"""How patient leaders and followers are: set by the operator's configuration, the same for all replicas."""

from __future__ import annotations

import msgspec

__all__ = ["JITTER", "ElectionConfig"]

JITTER = 1.2
"""client-go's JitterFactor: a follower waits between one and 2.2 retry periods."""


class ElectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The three durations of client-go, with its defaults."""

    lease_duration_ms: int = 15_000
    """How long others leave a Lease alone that its holder does not renew, in whole seconds. A crashed leader is
    replaced after this. More than `renew_deadline_ms`."""
    renew_deadline_ms: int = 10_000
    """How long a leader that cannot renew still counts as fresh, and tries. More than 1.2 times `retry_period_ms`."""
    retry_period_ms: int = 2_000
    """Between two renewals of a leader, and the shortest time between two tries of a follower."""

    def __post_init__(self) -> None:
        if self.lease_duration_ms <= self.renew_deadline_ms:
            raise ValueError(
                f"lease duration ({self.lease_duration_ms} ms) must be more than the renew deadline "
                f"({self.renew_deadline_ms} ms), for example 15000 and 10000"
            )
        if self.renew_deadline_ms <= JITTER * self.retry_period_ms:
            raise ValueError(
                f"renew deadline ({self.renew_deadline_ms} ms) must be more than {JITTER} times the retry period "
                f"({self.retry_period_ms} ms), for example 10000 and 2000"
            )
        if self.retry_period_ms < 1:
            raise ValueError(f"retry period must be at least 1 ms, not {self.retry_period_ms}")
        if self.lease_duration_ms % 1000:
            raise ValueError(
                f"lease duration must be whole seconds, for example 15000 ms, not {self.lease_duration_ms}"
            )
