"""The mutants fit the code as it is, and a sample of them is found. `mutate.py` tries them all."""

from __future__ import annotations

import pytest
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.mutate import driver_finds

_SEEDS = range(40)
_SAMPLE = (
    "any_end_of_a_pod_is_that_of_its_worker", "pull_of_a_lost_worker_not_answered", "sent_again_what_was_received",
    "renewed_lease_by_the_wall_clock", "broken_pull_kept_open", "token_named_twice_ends_the_engine",
    "overdue_attempt_renewed_for_ever", "one_delivery_too_few", "stale_pull_taken", "wait_by_the_wall_clock",
    "ended_run_keeps_its_place", "checkpoint_without_cancels", "checkpoint_without_parameters",
    "checkpoint_without_last_ends", "checkpoint_without_spans",
    "workers_that_hold_work_forgotten", "second_half_of_a_split_lease_repeats_tokens",
)  # fmt: skip
"""What a review found that nobody found, and some more: all within the first seeds of the driver."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_as_it_is(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not, the code has changed: give the mutant its new text, or drop it if it makes no sense now."""
    mutant.apply(monkeypatch)


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("name", _SAMPLE)
def test_the_driver_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    next(mutant for mutant in MUTANTS if mutant.name == name).apply(monkeypatch)

    assert driver_finds(_SEEDS)
