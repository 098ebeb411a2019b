"""Tasks that run after another task of the namespace has: a run for each end of a run.

It needs no timer: the run that follows is decided with the end that it follows, and is in the same segment of the
ledger, so that no leader can die between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.groups import Entry
from tickwheel_operator.engine.schedule.starters.starter import Starter
from tickwheel_operator.engine.sources import Completion, Outcome
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from tickwheel_operator.engine.schedule.scheduler import Scheduler

__all__ = ["CompletionStarter"]

_OUTCOMES = {RunState.SUCCEEDED: Outcome.SUCCEEDED, RunState.FAILED: Outcome.FAILED}


class CompletionStarter(Starter):
    """Of `Completion`."""

    def __init__(self, journal: Journal, state: State, scheduler: Scheduler) -> None:
        self._journal = journal
        self._state = state
        self._scheduler = scheduler
        self._followers: dict[tuple[str, str], dict[str, Entry]] = {}
        """By the namespace and name of the task that is followed."""
        self._follows: dict[str, tuple[str, str]] = {}

    def hear(self, entry: Entry) -> None:
        spec = entry.spec
        if spec.source.follows is None:
            return
        key = (spec.namespace, spec.source.follows)
        self._followers.setdefault(key, {})[spec.uid] = entry
        self._follows[spec.uid] = key
        self._watch(key)

    def join(self, entry: Entry) -> None:
        self.hear(entry)

    def leave(self, entry: Entry) -> None:
        spec = entry.spec
        key = self._follows.pop(spec.uid, None)
        if key is None:
            return
        followers = self._followers[key]
        del followers[spec.uid]
        if not followers:
            del self._followers[key]
            self._watch(key)

    def is_followed(self, namespace: str, name: str) -> bool:
        """Whether a task waits for the ends of this one's runs."""
        return (namespace, name) in self._followers

    def ended(self, run: Run, state: RunState) -> None:
        if run.execution.retroactive:
            return  # what is made up for is no news
        task = run.task
        for follower in list(self._followers.get((task.namespace, task.name), {}).values()):
            source = follower.spec.source
            if isinstance(source, Completion) and source.outcome in (Outcome.ANY, _OUTCOMES.get(state)):
                self._follow(follower, run)

    def _follow(self, entry: Entry, ended: Run) -> None:
        now = self._journal.now_ms
        task = self._scheduler.name(entry)
        reason = self._objection(entry)
        if reason is not None:
            self._scheduler.skip(task, now, 1, reason)
            return
        number = self._state.next_run
        self._journal.emit(f.Requested(number, task.number, now, now, ended.id, Origin.COMPLETION))
        self._scheduler.created(self._state.runs[number])

    def _objection(self, entry: Entry) -> f.SkipReason | None:
        """Why the end of the other's run makes none of this task now."""
        spec = entry.spec
        if entry.paused:
            return f.SkipReason.STALLED
        if spec.suspend:
            return f.SkipReason.SUSPENDED
        admitted = spec.source.filter
        if admitted is not None and not admitted.admits(self._journal.now_ms):
            return f.SkipReason.CALENDAR
        return self._scheduler.no_room(spec)

    def _watch(self, key: tuple[str, str]) -> None:
        followed = self._scheduler.names.get(*key)
        if followed is not None:
            self._scheduler.watch(followed)
        elif (task := self._scheduler.kept(*key)) is not None:
            task.watched = self.is_followed(*key)
