"""How far ahead runs are leased, and how long reports gather, as appends go."""

from __future__ import annotations

from tickwheel_operator.runtime.pace import LONGEST_LEAD_MS, Pace


def after(*appends_s: float) -> Pace:
    pace = Pace(early=True)
    for append_s in appends_s:
        pace.observe(append_s)
    return pace


def test_one_append_that_was_slow_does_not_set_the_lead() -> None:
    steady = after(*[0.005] * 16)
    assert after(0.1, *[0.005] * 15).lead_ms == steady.lead_ms
    assert after(0.1, 0.1, *[0.005] * 14).lead_ms > 2 * 100


def test_the_lead_is_bounded() -> None:
    assert after(*[2.0] * 16).lead_ms == LONGEST_LEAD_MS


def test_a_change_of_less_than_a_fifth_is_none() -> None:
    pace = after(*[0.05] * 16)
    before = pace.lead_ms
    assert not any(pace.observe(0.055) for _ in range(16))
    assert pace.lead_ms == before
    assert any(pace.observe(0.07) for _ in range(16))


def test_where_nothing_is_leased_early_no_append_sets_a_lead() -> None:
    pace = Pace(early=False)
    assert not any(pace.observe(0.1) for _ in range(64))
    assert pace.lead_ms == 0
