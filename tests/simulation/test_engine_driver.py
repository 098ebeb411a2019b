"""Random calls of the engine: each seed a story, whole states compared after every append.

`TICKWHEEL_DRIVER_SEEDS=5000` runs more of them, `TICKWHEEL_DRIVER_FROM=100000` others. `TICKWHEEL_DRIVER_SEED=123` runs
one. One that fails shows the last of its history.
"""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from tests.simulation.engine_driver import EngineStory, small_bounds
from tests.simulation.engine_fold import Broken

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.places import TRANSITIONS, Place
from tickwheel_operator.engine.model.runs import Dispatch
from tickwheel_operator.engine.schedule.overdue import Overdue
from tickwheel_operator.ledger import facts as f

SEEDS = int(os.environ.get("TICKWHEEL_DRIVER_SEEDS", "80"))
FROM = int(os.environ.get("TICKWHEEL_DRIVER_FROM", "0"))
BLOCKS = 4
STEPS = 150


@pytest.fixture(autouse=True)
def bounds_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    small_bounds(monkeypatch)
    monkeypatch.setattr(Dispatch, "place", _checked_place(Dispatch.place))


def _checked_place(slot: Any) -> property:
    """A dispatch's place, which changes only as the table allows."""

    def move(dispatch: Dispatch, place: Place) -> None:
        try:
            before: Place | None = slot.__get__(dispatch)
        except AttributeError:  # it is being made
            before = None
        if before is not None and place not in TRANSITIONS[before]:
            raise Broken(f"run {dispatch.number} comes from {before.name} to {place.name}")
        slot.__set__(dispatch, place)

    return property(slot.__get__, move)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_engine_keeps_its_promises_whatever_it_is_asked(block: int) -> None:
    one = os.environ.get("TICKWHEEL_DRIVER_SEED")
    seeds = range(FROM + block, FROM + SEEDS, BLOCKS) if one is None else [int(one)] if block == 0 else []
    for seed in seeds:
        story = EngineStory(seed)
        try:
            story.run(STEPS)
        except Exception as error:
            error.add_note("\n".join(story.history[-60:]))
            error.add_note(f"again: TICKWHEEL_DRIVER_SEED={seed} pytest tests/simulation/test_engine_driver.py")
            raise


def test_the_stories_have_every_command_and_every_fact() -> None:
    stories = [EngineStory(seed) for seed in range(30)]
    for story in stories:
        story.run(STEPS)
    told = "\n".join(line for story in stories for line in story.history)

    for kind in (*m.Command.__args__, *f.Fact.__args__):
        assert re.search(rf"^ *-?\d+ +\d+ {kind.__name__}\(", told, re.MULTILINE), kind.__name__
    for text in (
        "LOST",
        "TIMEOUT",
        "ERROR",
        "did not stop it",
        "replaced by the run",
        "its delay was over",
    ):
        assert text in told, text
    assert max(story.takeovers for story in stories) > 2
    assert sum(story.checkpoints for story in stories) > 10


def test_an_engine_that_gives_the_oldest_overdue_instants_the_room_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Overdue, "_room", lambda self, spec, wanted: (wanted, f.SkipReason.OVERLAP))
    with pytest.raises(Broken, match="an older instant has its place"):
        _search()


def _search() -> None:
    for seed in range(500):
        EngineStory(seed).run(STEPS)
