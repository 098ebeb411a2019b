"""Facts as the data of segments, none of them larger than a segment may be.

Only `ledger.log` uses it. Order is kept, and every prefix of the segments is a prefix of the facts' meaning, since a
leader may die between two of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tickwheel_operator.ledger.codec import encode_facts
from tickwheel_operator.ledger.facts import (
    BackfillEnded,
    CancelAsked,
    Cancelled,
    Fact,
    Failed,
    Fired,
    Leased,
    Requested,
    Returned,
    Skipped,
    Succeeded,
    SucceededWith,
    TaskNamed,
    Undelivered,
)
from tickwheel_operator.ledger.protocol import StoreRefused

__all__ = ["encoded"]


def encoded(facts: Sequence[Fact], *, max_bytes: int) -> Iterator[bytes]:
    """The data of one segment, or of several. Raises `StoreRefused` for a single fact that is too large."""
    body = encode_facts(facts)
    if len(body) <= max_bytes:
        yield body
        return
    middle = _boundary(facts)
    parts = (facts[:middle], facts[middle:]) if middle else _halves(facts[0])
    if not parts:
        raise StoreRefused(
            f"a fact of kind {type(facts[0]).__name__} has {len(body)} bytes compressed, but a segment of the ledger "
            f"holds at most {max_bytes}; bound results, parameters and messages before they become facts"
        )
    for part in parts:
        yield from encoded(part, max_bytes=max_bytes)


_ENDS = (Succeeded, SucceededWith, Failed, Cancelled, Undelivered, BackfillEnded)
_FOLLOWING = (TaskNamed, Skipped, Requested, CancelAsked)


def _boundary(facts: Sequence[Fact]) -> int:
    """Where to divide, near the middle; 0: nowhere. Never between the end of a run and what follows from it, which
    stands right behind it (another task's run, or why there is none): a leader that dies between them would leave that
    undone for ever."""
    middle, bound = len(facts) // 2, False
    best = 0
    for place, fact in enumerate(facts):
        bound = isinstance(fact, _ENDS) or (bound and isinstance(fact, _FOLLOWING))
        free = not (bound and isinstance(fact, _FOLLOWING))
        if place and free and (not best or abs(place - middle) < abs(best - middle)):
            best = place
    return best or middle


def _halves(fact: Fact) -> tuple[list[Fact], list[Fact]] | None:
    """Two facts that mean the same as one, for those that are columns."""
    match fact:
        case Fired(tasks=tasks) if len(tasks) > 1:
            half = len(tasks) // 2
            return (
                [Fired(fact.scheduled_ms, fact.first_run, tasks[:half])],
                [Fired(fact.scheduled_ms, fact.first_run + half, tasks[half:])],
            )
        case Leased(dispatches=dispatches) if len(dispatches) > 1:
            half = len(dispatches) // 2
            return (
                [Leased(fact.worker, fact.first_token, dispatches[:half])],
                [Leased(fact.worker, fact.first_token + half, dispatches[half:])],
            )
        case Succeeded(tokens=tokens) if len(tokens) > 1:
            half = len(tokens) // 2
            return [Succeeded(tokens[:half])], [Succeeded(tokens[half:])]
        case Returned(tokens=tokens) if len(tokens) > 1:
            half = len(tokens) // 2
            return [Returned(tokens[:half])], [Returned(tokens[half:])]
    return None
