"""Where decisions become facts: the one gate between the parts of the engine and the durable state."""

from __future__ import annotations

from collections.abc import Callable

from tickwheel_operator.engine.model.state import State
from tickwheel_operator.ledger.facts import Clock, Fact

__all__ = ["Journal"]


class Journal:
    """The state, and the facts decided since they were last taken.

    A fact is folded the moment it is decided, so that the next decision sees it. It is not durable yet: whatever
    depends on it is an effect, and the host holds those back.
    """

    __slots__ = ("_recorded_ms", "_state", "boot_ms", "facts", "hear", "now_ms", "wall_ms")

    def __init__(self, state: State) -> None:
        self._state = state
        self._recorded_ms = -1
        self.facts: list[Fact] = []
        self.hear: Callable[[], None] = lambda: None
        """Called when a fact has ended runs that somebody in the engine watches (`State.news`), before the next."""
        self.now_ms = 0
        """The instant, by the wall clock; it never goes back. Facts are on it, and what was asked to start later."""
        self.wall_ms = 0
        """What the wall clock really says: schedules are on it."""
        self.boot_ms = 0
        """The same moment by a clock that never jumps: leases, silence, backoffs and all other durations are on it, so
        that they go on while a wall clock that was set back catches up."""

    def emit(self, fact: Fact) -> None:
        """Decide `fact` at the current instant."""
        if self.now_ms != self._recorded_ms:
            clock = Clock(self.now_ms)
            self._state.apply(clock)
            self.facts.append(clock)
            self._recorded_ms = self.now_ms
        # Folded first: a fact that does not fit raises here, and is never written for every later leader to fail on.
        self._state.apply(fact)
        self.facts.append(fact)
        if self._state.news:
            self.hear()

    def take(self) -> list[Fact]:
        """The facts since the last call. The next batch states its instant anew, so that it stands on its own."""
        facts = self.facts
        if facts:
            self.facts = []
            self._recorded_ms = -1
        return facts
