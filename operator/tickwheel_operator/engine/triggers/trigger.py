"""What the engine asks of a trigger: the seam that every trigger in this folder fills."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

__all__ = ["Trigger"]


class Trigger(Protocol):
    """What the engine asks of a trigger.

    Every answer is a pure function of the trigger and the arguments, and raises nothing.
    """

    def next_after(self, instant_ms: int) -> int | None:
        """Return the first instant strictly after `instant_ms`, or `None` if there is none.

        `None` also stands for a search that gave up: `looked_until` tells.
        """

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        """Return the last instant at or before `instant_ms` but after `after_ms`, or `None`."""

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        """Return how many instants are after `after_ms`, up to and including `until_ms`; at most `limit`.

        Where the count gave up: how many there are at least. `counted_until` tells.
        """

    def key(self) -> Hashable:
        """Return a value that is equal for triggers with the same instants."""

    def normal(self) -> Trigger:
        """Return the trigger as the ledger keeps it: written in the one way that all with the same instants share.

        Of calendars only the names stay.
        """

    def describe(self) -> str:
        """Return one line for people."""
