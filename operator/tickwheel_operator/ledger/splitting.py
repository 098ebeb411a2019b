"""Facts as the data of segments, none of them larger than a segment may be.

Only `ledger.log` uses it. Order is kept, and every prefix of the segments is a prefix of the facts' meaning, since a
leader may die between two of them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import assert_never

from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.codec import encode_facts
from tickwheel_operator.ledger.facts import Fact
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


class _Role(enum.Enum):
    """What a fact is beside the end of a run."""

    END = "end"
    FOLLOWS = "follows"
    """It may be what follows from the end before it."""
    APART = "apart"


_ROLES: dict[type[Fact], _Role] = {
    f.Clock: _Role.APART,
    f.TaskNamed: _Role.FOLLOWS,
    f.TaskForgotten: _Role.APART,
    f.Armed: _Role.APART,
    f.Fired: _Role.APART,
    f.Submitted: _Role.APART,
    f.Skipped: _Role.FOLLOWS,
    f.WorkerNamed: _Role.APART,
    f.Leased: _Role.APART,
    f.Succeeded: _Role.END,
    f.SucceededWith: _Role.END,
    f.Failed: _Role.END,
    f.Returned: _Role.APART,
    f.Cancelled: _Role.END,
    f.Undelivered: _Role.END,
    f.Requested: _Role.FOLLOWS,
    f.BackfillStarted: _Role.APART,
    f.Backfilled: _Role.APART,
    f.BackfillEnded: _Role.END,
    f.CancelAsked: _Role.FOLLOWS,
    f.Recovered: _Role.APART,
}


def _boundary(facts: Sequence[Fact]) -> int:
    """Where to divide, near the middle; 0: nowhere. Never between the end of a run and what follows from it, which
    stands right behind it (another task's run, or why there is none): a leader that dies between them would leave that
    undone for ever."""
    middle, bound = len(facts) // 2, False
    best = 0
    for place, fact in enumerate(facts):
        role = _ROLES[type(fact)]
        bound = role is _Role.END or (bound and role is _Role.FOLLOWS)
        free = not (bound and role is _Role.FOLLOWS)
        if place and free and (not best or abs(place - middle) < abs(best - middle)):
            best = place
    return best or middle


def _halves(fact: Fact) -> tuple[list[Fact], list[Fact]] | None:
    """Two facts that mean the same as one, for those that are columns."""
    match fact:
        case f.Fired(tasks=tasks) if len(tasks) > 1:
            half = len(tasks) // 2
            return (
                [f.Fired(fact.scheduled_ms, fact.first_run, tasks[:half])],
                [f.Fired(fact.scheduled_ms, fact.first_run + half, tasks[half:])],
            )
        case f.Leased(dispatches=dispatches) if len(dispatches) > 1:
            half = len(dispatches) // 2
            return (
                [f.Leased(fact.worker, fact.first_token, dispatches[:half])],
                [f.Leased(fact.worker, fact.first_token + half, dispatches[half:])],
            )
        case f.Succeeded(tokens=tokens) if len(tokens) > 1:
            half = len(tokens) // 2
            return [f.Succeeded(tokens[:half])], [f.Succeeded(tokens[half:])]
        case f.Returned(tokens=tokens) if len(tokens) > 1:
            half = len(tokens) // 2
            return [f.Returned(tokens[:half])], [f.Returned(tokens[half:])]
        case (
            f.Fired() | f.Leased() | f.Succeeded() | f.Returned()  # of one
            | f.Clock() | f.TaskNamed() | f.TaskForgotten() | f.Armed() | f.Submitted() | f.Skipped() | f.WorkerNamed()
            | f.SucceededWith() | f.Failed() | f.Cancelled() | f.Undelivered() | f.Requested() | f.CancelAsked()
            | f.BackfillStarted() | f.Backfilled() | f.BackfillEnded() | f.Recovered()
        ):  # fmt: skip
            return None
        case _:
            assert_never(fact)
