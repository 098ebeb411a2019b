"""What every kind of execution keeps, and what each makes of the end of a part."""

from __future__ import annotations

import pytest
from tests.simulation.whole import differences

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.execution import restored, row_of
from tickwheel_operator.engine.model.execution.backfill import BACKFILLED, Backfill
from tickwheel_operator.engine.model.execution.execution import Execution
from tickwheel_operator.engine.model.execution.single import SINGLE
from tickwheel_operator.engine.model.runs import End, Run, TaskState
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin


def a_backfill() -> Backfill:
    """Half done, no two of its numbers alike."""
    backfill = Backfill(1_000, 9_000, 4, 8)
    backfill.until_ms, backfill.open, backfill.succeeded, backfill.failed = 5_000, 3, 2, 1
    return backfill


MEMBERS = [
    (SINGLE, Origin.SCHEDULE),
    (SINGLE, Origin.REQUEST),
    (BACKFILLED, Origin.BACKFILL),
    (a_backfill(), Origin.SPAN),
]
SUCCESS, FAILURE = End(RunState.SUCCEEDED, b"7"), End(RunState.FAILED, b"", "Boom", "it broke", "line 1")


@pytest.mark.parametrize(("execution", "origin"), MEMBERS)
def test_dispatches_are_of_their_run_and_ready_when_it_is(execution: Execution, origin: Origin) -> None:
    run = Run(7, TaskState(1, "u", "shops", "t"), 1_000, 2_000, execution, 3_000)

    assert all(dispatch.run is run and dispatch.ready_ms == 3_000 for dispatch in run.dispatches)
    assert run.ready_ms == (3_000 if run.dispatches else -1)
    assert (execution.counts is None) is bool(run.dispatches), "what has none of its own counts runs"


@pytest.mark.parametrize(("execution", "origin"), MEMBERS)
def test_a_checkpoint_gives_back_the_execution(execution: Execution, origin: Origin) -> None:
    again = restored(origin, row_of(execution))

    assert type(again) is type(execution)
    assert differences(again, execution) == []


@pytest.mark.parametrize("execution", [SINGLE, BACKFILLED])
@pytest.mark.parametrize("end", [SUCCESS, FAILURE])
def test_a_run_with_one_dispatch_ends_as_that_does(execution: Execution, end: End) -> None:
    assert execution.ended(end) == end


@pytest.mark.parametrize(
    ("end", "counts"), [(SUCCESS, (8, 3, 1)), (FAILURE, (8, 2, 2)), (End(RunState.CANCELLED), (8, 2, 2))]
)
def test_a_backfill_counts_the_ends_of_its_runs_and_goes_on(end: End, counts: tuple[int, int, int]) -> None:
    backfill = a_backfill()

    assert backfill.ended(end) is None
    assert backfill.counts == counts
    assert backfill.open == 2


def test_a_fact_about_the_dispatch_of_a_run_that_has_none_does_not_fit() -> None:
    state = State()
    for fact in (
        f.Clock(9_000),
        f.TaskNamed(1, "u", "shops", "t", "every second", 0),
        f.WorkerNamed(1, "shops", "default", "w-0", "first"),
        f.BackfillStarted(1, 1, 1_000, 9_000, 2, 8, "march"),
    ):
        state.apply(fact)

    with pytest.raises(KeyError):
        state.apply(f.Leased(1, 1, [1]))
    with pytest.raises(KeyError):
        state.apply(f.Undelivered(1, 0))


@pytest.mark.parametrize("fact", [f.Backfilled(1, 2_000, 2, [2_000]), f.BackfillEnded(1)])
def test_a_fact_about_a_backfill_does_not_fit_another_run(fact: f.Fact) -> None:
    state = State()
    for before in (f.Clock(9_000), f.TaskNamed(1, "u", "shops", "t", "every second", 0), f.Fired(9_000, 1, [1])):
        state.apply(before)

    with pytest.raises(KeyError):
        state.apply(fact)
