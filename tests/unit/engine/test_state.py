"""The fold of facts that no order of commands is needed for: what one fact makes of the state, and what it leaves."""

from __future__ import annotations

import pytest

from tickwheel_operator.engine.model.state import State
from tickwheel_operator.ledger import facts as f


def a_state(*facts: f.Fact) -> State:
    """With one task, number 1."""
    state = State()
    for fact in (f.Clock(1_000), f.TaskNamed(1, "u", "shops", "t", "every minute", 0), *facts):
        state.apply(fact)
    return state


@pytest.mark.parametrize(
    "earlier",
    [
        f.Fired(2_000, 2, [1]),
        f.Skipped(1, 2_000, 1, f.SkipReason.DEADLINE),
        f.Recovered(1, 2_000, 2_000, 0, 0, 0, 0, []),
    ],
    ids=lambda fact: type(fact).__name__,
)
@pytest.mark.parametrize(
    "later",
    [f.Fired(5_000, 1, [1]), f.Skipped(1, 5_000, 1, f.SkipReason.DEADLINE)],
    ids=lambda fact: type(fact).__name__,
)
def test_what_is_settled_stays_settled_when_an_earlier_instant_is_told_of(later: f.Fact, earlier: f.Fact) -> None:
    """Instants up to the watermark do not run again: moved back, it would let them."""
    state = a_state(later)
    assert state.tasks[1].watermark_ms == 5_000

    state.apply(earlier)

    assert state.tasks[1].watermark_ms == 5_000


@pytest.mark.parametrize(
    "earlier",
    [
        f.Fired(2_000, 2, [1]),
        f.Requested(2, 1, 2_000, 2_000, "", f.Origin.COMPLETION),
        f.Recovered(1, 2_000, 2_000, 0, 0, 0, 0, []),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_the_last_instant_is_the_latest_one_in_whatever_order_they_are_told_of(earlier: f.Fact) -> None:
    state = a_state(f.Fired(5_000, 1, [1]))

    state.apply(earlier)

    assert state.tasks[1].last_scheduled_ms == 5_000


def test_the_runs_of_a_backfill_have_its_parameters_and_its_key() -> None:
    state = a_state(
        f.BackfillStarted(1, 1, 0, 10_000, 2, 3, "march", parameters=b'{"month":3}'),
        f.Backfilled(1, 5_000, 2, [2_000, 5_000]),
    )

    assert [(run.number, run.scheduled_ms) for run in list(state.runs.values())[1:]] == [(2, 2_000), (3, 5_000)]
    assert {(run.key, run.parameters, run.parent) for run in list(state.runs.values())[1:]} == {
        ("march", b'{"month":3}', 1)
    }


def test_as_many_keys_are_kept_as_may_be() -> None:
    state = State(max_keys=2)
    for fact in (
        f.Clock(1_000),
        f.TaskNamed(1, "u", "shops", "t", "every minute", 0),
        f.WorkerNamed(1, "s", "p", "w", "i"),
    ):
        state.apply(fact)
    for number in (1, 2, 3):
        state.apply(f.Submitted(number, 1, 1_000, f"k{number}", "", b""))
        state.apply(f.Leased(1, number, [number]))
        state.apply(f.Succeeded([number]))
        assert len(state.keys) == min(number, 2)
