"""What holds of runs beside each other: overlaps, fixed delays, completions and backfills.

`Record` asks, with each fact and each start of a handler; what is broken it raises. Nothing here looks at what the
engine thinks of these: it counts anew, from the facts and the handlers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.execution.backfill import Backfill
from tickwheel_operator.engine.model.identity import uid_of
from tickwheel_operator.engine.model.parameters import merge
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from tests.simulation.record import Attempt, Record

__all__ = ["Rules"]


class Rules:
    """Part of the record."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.made_up: dict[str, dict[int, RunState | None]] = {}
        """Task uid to the instants that backfills made runs of, and how these ended."""
        self.spans: dict[int, list[str]] = {}
        """Backfill to the runs that are open for it."""
        self.spans_failed: dict[int, int] = {}
        """And how many of them did not succeed."""
        self.spans_asked: set[str] = set()
        """Ids of the runs that stand for backfills."""
        self.ends: list[tuple[str, str, RunState, bool]] = []
        """Run id, task name, outcome; and whether it may be followed."""
        self.wanted_ms: dict[int, int] = {}
        """Number of a run to the instant before which it must not start."""
        self.last_ends: dict[str, tuple[int, int, int]] = {}
        """Task uid to when its last scheduled run ended: epoch, jumps of that leader's clock, instant."""

    def ended(self, run_id: str, outcome: RunState) -> None:
        """The end of a run is durable."""
        record = self._record
        uid, _, rest = run_id.partition(".")
        made_up = self.made_up.get(uid, {})
        if rest[:1] == "b" and (instant := int(rest[1:].partition("-")[0])) in made_up:
            made_up[instant] = outcome
            for backfill, children in self.spans.items():
                if run_id in children:
                    children.remove(run_id)
                    missed = outcome is not RunState.SUCCEEDED
                    self.spans_failed[backfill] = self.spans_failed.get(backfill, 0) + missed
        if rest[:1].isdecimal():
            clock = record.clocks.get(record.epoch)
            self.last_ends[uid] = (record.epoch, clock.jumps if clock else 0, record.state.clock_ms)
        self.ends.append((run_id, record.specs[uid].name, outcome, rest[:1] != "b" and run_id not in self.spans_asked))

    def check_overlap(self, run: Run, attempt: Attempt) -> None:
        """Never more open attempts of a group than its limit: the largest that it had, since an edit stops nobody."""
        spec = self._record.specs[run.task.uid]
        limit = self._record.limits[spec.uid]
        if limit is None or run.origin is Origin.BACKFILL or spec.uid in self._record.invalid:
            return
        attempt.group = _group_of(spec, run.parameters)
        others = {
            o.run_id
            for o in self._record.attempts.values()
            if o.group == attempt.group and not o.ended and uid_of(o.run_id) not in self._record.invalid
        }
        others |= {attempt.run_id}
        if len(others) > limit:
            self._record.violated(
                f"{run.id} is leased, and then {sorted(others)} are open of {attempt.group}: limit {limit}"
            )

    def check_running(self, worker: str, attempt: Attempt) -> None:
        """A handler begins: never more of a group at once than its limit, but for those that were lost."""
        record = self._record
        if not attempt.group:
            return
        running = {
            other.run_id
            for other in record.attempts.values()
            if other.group == attempt.group
            and other.started
            and not other.ended
            and other.outcome is None
            and uid_of(other.run_id) not in record.invalid
        }
        limit = record.limits[uid_of(attempt.run_id)]
        if limit is not None and len(running) > limit:
            record.violated(f"{worker} starts {attempt.run_id}, and then the handlers of {sorted(running)} run at once")

    def check_fixed_delay(self, run: Run) -> None:
        spec = self._record.specs[run.task.uid]
        if not isinstance(spec.source, FixedDelay):
            return
        open_runs = [r.id for r in run.task.runs.values() if r.origin is Origin.SCHEDULE]
        if len(open_runs) > 1:
            self._record.violated(f"{spec.name} has a fixed delay, but two open runs: {open_runs}")
        epoch, jumps, ended_ms = self.last_ends.get(spec.uid, (0, 0, 0))
        clock = self._record.clocks.get(self._record.epoch)
        if clock is None or (epoch, jumps) != (self._record.epoch, 0) or clock.jumps:
            return  # A clock that was set back is held; the delay is measured by the other one then.
        if self._record.state.clock_ms < ended_ms + spec.source.delay_ms:
            self._record.violated(f"{run.id} follows the end at {ended_ms} too early")

    def backfilled(self, fact: f.Backfilled) -> None:
        state, whole = self._record.state, self._record.state.runs[fact.backfill]
        made = self.made_up.setdefault(whole.task.uid, {})
        children = self.spans.setdefault(fact.backfill, [])
        for number, instant in enumerate(fact.instants, start=fact.first_run):
            if made.get(instant, RunState.FAILED) in (None, RunState.SUCCEEDED):
                self._record.violated(f"{whole.task.name}: the instant {instant} is made up for twice")
            made[instant] = None
            self._record.made(number)
            children.append(state.runs[number].id)
        if isinstance(whole.execution, Backfill) and len(children) > whole.execution.max_parallel:
            self._record.violated(f"{whole.id} has {len(children)} open runs of {whole.execution.max_parallel}")

    def backfill_ended(self, run: Run) -> None:
        span, uid = run.execution, run.task.uid
        if not isinstance(span, Backfill):
            self._record.violated(f"{run.id} ends as a backfill and is none")
            return
        if self.spans.get(run.number):
            self._record.violated(f"{run.id} ends with open runs: {self.spans[run.number]}")
        if span.failed != self.spans_failed.get(run.number, 0):
            self._record.violated(f"{run.id} counts {span.failed} failures of {self.spans_failed.get(run.number, 0)}")
        self._record.end_run(run.id, RunState.FAILED if span.failed else RunState.SUCCEEDED)
        if uid not in self._record.steady:
            return
        trigger, made, at = self._record.specs[uid].trigger, self.made_up.get(uid, {}), span.from_ms - 1
        while trigger is not None and (instant := trigger.next_after(at)) is not None and instant < span.to_ms:
            if instant not in made:
                self._record.violated(f"{run.id} ended, but the instant {instant} of its span has no run")
            if made[instant] is not RunState.SUCCEEDED and not span.failed:
                self._record.violated(f"{run.id} succeeded, but the instant {instant} of its span: {made[instant]}")
            at = instant

    def armed(self, fact: f.Armed) -> None:
        """With another trigger the instants are others."""
        task = self._record.state.tasks[fact.task]
        if task.schedule != fact.schedule:
            made = self.made_up.get(task.uid, {})
            for instant in [instant for instant, outcome in made.items() if outcome is not None]:
                del made[instant]


def _group_of(spec: TaskSpec, parameters: bytes) -> str:
    """The runs that are counted together with one of this task that has these parameters."""
    if spec.overlap.key is None:
        return spec.uid
    value = json.loads(merge(spec.parameters, parameters) if parameters else spec.parameters)
    return f"{spec.overlap.key}={value['customer']}"
