"""A batch of facts is divided where nothing is torn apart."""

from __future__ import annotations

import secrets

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
