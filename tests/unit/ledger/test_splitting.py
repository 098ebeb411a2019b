"""A batch of facts is divided where nothing is torn apart."""

from __future__ import annotations

import random
import secrets

import pytest

from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.codec import decode_facts
from tickwheel_operator.ledger.facts import Origin
from tickwheel_operator.ledger.splitting import encoded


def _following(number: int) -> f.Requested:
    return f.Requested(number, 2, 5, 5, secrets.token_hex(40), Origin.COMPLETION)


def test_what_follows_from_an_end_is_in_the_same_segment() -> None:
    facts: list[f.Fact] = [f.Clock(5)]
    for number in range(200):
        facts.append(f.Succeeded([number]))
        if number % 3 == 0:
            facts.append(f.TaskNamed(number, secrets.token_hex(16), "ns", "follower", "after", 5))
        if number % 5 == 0:
            facts.append(f.Skipped(3, 5, 1, f.SkipReason.OVERLAP))
        facts += [_following(number), f.CancelAsked(number), _following(number + 1_000)]
    parts = [decode_facts(data, where="test") for data in encoded(facts, max_bytes=2_000)]
    assert len(parts) > 5
    assert [fact for part in parts for fact in part] == facts
    for part in parts[1:]:
        assert isinstance(part[0], f.Succeeded)


def test_what_is_too_large_for_a_segment_is_divided_near_its_middle_where_nothing_else_is_free() -> None:
    facts: list[f.Fact] = [f.Succeeded([1, 2]), *(_following(number) for number in range(200))]
    parts = [decode_facts(data, where="test") for data in encoded(facts, max_bytes=2_000)]
    assert [fact for part in parts for fact in part] == facts


_MANY = random.Random(1).sample(range(10**9), 1_999)


def _one_by_one(fact: f.Fact) -> list[tuple[int, ...]]:
    """What a fact that is columns says, row by row."""
    match fact:
        case f.Fired(scheduled_ms, first, tasks):
            return [(scheduled_ms, number, task) for number, task in enumerate(tasks, start=first)]
        case f.Leased(worker, first, dispatches):
            return [(worker, token, dispatch) for token, dispatch in enumerate(dispatches, start=first)]
        case f.Succeeded(tokens) | f.Returned(tokens):
            return [(token,) for token in tokens]
    raise AssertionError(fact)


@pytest.mark.parametrize(
    "fact",
    [f.Fired(5, 70, _MANY), f.Leased(3, 70, _MANY), f.Succeeded(_MANY), f.Returned(_MANY)],
    ids=lambda fact: type(fact).__name__,
)
def test_the_parts_of_a_fact_say_what_it_says(fact: f.Fact) -> None:
    """No token and no number twice, none left out."""
    parts = [decode_facts(data, where="test") for data in encoded([fact], max_bytes=1_000)]

    assert len(parts) > 3
    assert {type(part) for [part] in parts} == {type(fact)}
    assert [row for [part] in parts for row in _one_by_one(part)] == _one_by_one(fact)
