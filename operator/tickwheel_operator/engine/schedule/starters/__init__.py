"""What starts the runs of tasks: a starter for each kind of source (`engine.sources`).

`starter` is the seam, each other module fills it for one source. A new source gets a module here and a line in
`Starters`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.starters.clock import ClockStarter
from tickwheel_operator.engine.schedule.starters.completion import CompletionStarter
from tickwheel_operator.engine.schedule.starters.fixed_delay import Delay, DelayStarter
from tickwheel_operator.engine.schedule.starters.starter import Starter
from tickwheel_operator.engine.sources import ByClock, ByHand, Completion, FixedDelay, Source
from tickwheel_operator.engine.wheel import TimingWheel

if TYPE_CHECKING:
    from tickwheel_operator.engine.schedule.scheduler import Scheduler

__all__ = ["Delay", "Starter", "Starters"]


class Starters:
    """All of them."""

    def __init__(
        self, journal: Journal, state: State, scheduler: Scheduler, wheel: TimingWheel, delays: TimingWheel
    ) -> None:
        """`wheel` runs by the wall clock, `delays` by the boot clock."""
        self.clock = ClockStarter(journal, state, scheduler, wheel)
        self.delays = DelayStarter(journal, scheduler, delays)
        self.completions = CompletionStarter(journal, state, scheduler)
        self._by_source: dict[type[Source], Starter] = {
            ByClock: self.clock,
            FixedDelay: self.delays,
            Completion: self.completions,
            ByHand: Starter(),
        }

    def of(self, source: Source) -> Starter:
        """The one that starts what has this source."""
        return self._by_source[type(source)]

    def ended(self, run: Run, state: RunState) -> None:
        """A run of a watched task has ended."""
        self.delays.ended(run, state)
        self.completions.ended(run, state)
