"""Which instants of a task were made up for, as backfills overlap, fail and are forgotten."""

from __future__ import annotations

import pytest

from tickwheel_operator.engine.model.execution.covered import Spans, covered, covered_until, uncovered


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([(0, 10), (10, 20)], ((0, 20),)),
        ([(10, 20), (0, 10)], ((0, 20),)),
        ([(0, 10), (20, 30), (10, 20)], ((0, 30),)),
        ([(0, 10), (5, 7)], ((0, 10),)),
        ([(0, 10), (11, 20)], ((0, 10), (11, 20))),
    ],
)
def test_spans_that_touch_are_one_span(made: Spans, expected: Spans) -> None:
    """As backfills make them, step by step: apart they would soon be too many to keep."""
    spans: Spans = ()

    for low, high in made:
        spans = covered(spans, low, high)

    assert spans == expected


def test_of_too_many_spans_the_oldest_are_forgotten() -> None:
    spans: Spans = ()
    for number in range(1_007):
        spans = covered(spans, number * 10, number * 10 + 5)

    assert spans == tuple((number * 10, number * 10 + 5) for number in range(7, 1_007))

    spans = uncovered(spans, 10_002)  # one becomes two

    assert len(spans) == 1_000
    assert spans[0] == (80, 85)


def test_spans_that_were_made_up_for_are_bounded_and_the_oldest_are_forgotten() -> None:
    spans = covered((), 0, 10_000)
    for instant in range(0, 5_000, 2):
        spans = uncovered(spans, instant)
    assert len(spans) == 1_000
    assert covered_until(spans, 4_001) == 4_002
    assert covered_until(spans, 5_000) == 10_000
    assert [covered_until(spans, instant) for instant in (4_998, 1)] == [4_998, 1]
