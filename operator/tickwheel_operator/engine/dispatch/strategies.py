"""Which of the workers that may have a dispatch gets it. One module-level value each, shared by all pools.

A strategy is pure and keeps nothing: what it goes by stands in the dispatch and in the workers, so that a new leader
chooses as its predecessor would. `tests/unit/engine/test_strategies.py` holds all of them to what `Strategy` promises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tickwheel_operator.engine.dispatch.worker import LiveWorker
from tickwheel_operator.engine.model.runs import Dispatch

__all__ = ["ROUND_ROBIN", "Strategy"]


class Strategy(Protocol):
    """Chooses a worker for a dispatch."""

    def choose(self, dispatch: Dispatch, candidates: Iterable[LiveWorker]) -> LiveWorker | None:
        """One of the candidates; None only where there are none, so that no dispatch waits beside a worker that may
        have it. They are eligible, and come in the order of their turns: the one first that got work longest ago."""
        ...


class _RoundRobin:
    """Whose turn it is."""

    def choose(self, dispatch: Dispatch, candidates: Iterable[LiveWorker]) -> LiveWorker | None:
        return next(iter(candidates), None)


ROUND_ROBIN = _RoundRobin()
