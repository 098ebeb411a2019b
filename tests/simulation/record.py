"""What really happened, kept outside of all nodes, and the invariants of DESIGN 9.1 that hold at every moment.

Every durable segment, every acknowledgement, every release of effects and every start of a handler passes through here
the moment it happens; a broken invariant raises `Violated` at once, with the history that led to it. What can be told
only when the story is over is in `invariants.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, assert_never

from tests.simulation.rules import Rules
from tests.simulation.whole import WORKERS, differences

from tickwheel_operator.engine.messages import Reported, RunState, SubmittedRun
from tickwheel_operator.engine.model.identity import jitter_ms, uid_of
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.read.views import Views
from tickwheel_operator.engine.spec import EngineConfig, Guarantee, TaskSpec
from tickwheel_operator.ledger import codec, replay
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin
from tickwheel_operator.ledger.protocol import Segment, SegmentHeader, SegmentKind

if TYPE_CHECKING:
    from tests.simulation.world import SimClock

__all__ = ["EPOCH_MS", "Record", "Violated"]


EPOCH_MS = 1_700_000_000_000
"""When all stories begin."""


class Violated(AssertionError):
    """An invariant does not hold."""


class Attempt:
    """A lease that is durable, and what became of it."""

    def __init__(self, run_id: str, number: int, instance: str) -> None:
        self.run_id = run_id
        self.number = number
        """Of the run."""
        self.instance = instance
        """The worker process that it was given to."""
        self.started = False
        self.outcome: tuple[str, bytes] | None = None
        """How the handler ended, and its result."""
        self.ended = False
        """Its end is durable."""
        self.epoch = 0
        """Of the leader that gave it."""
        self.ready_ms = 0
        """The handler must not begin before."""
        self.jumps = 0
        """How often that leader's clock had jumped."""
        self.given_back = False
        """Its worker said that it did not begin it, and will not: the run was cancelled."""
        self.front = False
        self.group = ""
        """The runs with which it is counted; empty: none."""


class Record:
    """The truth."""

    def __init__(self, now_ms: Callable[[], int], stop: Callable[[], None] = lambda: None) -> None:
        self._now_ms = now_ms
        self._stop = stop
        self._history: list[tuple[int, str, str, Sequence[f.Fact]]] = []
        self.written: dict[int, str] = {}
        """Sequence to nonce, of every segment that was ever written, also of those deleted since."""
        self.base = 0
        """The first segment that the newest complete checkpoint does not stand for."""
        self.epoch = 0
        self.facts: list[f.Fact] = []
        self.state = State()
        """Their fold."""
        self.at_epoch: dict[int, int] = {}
        """How many facts each leader must restore."""
        self.attempts: dict[int, Attempt] = {}
        self.run_ids: set[str] = set()
        self.outcomes: dict[str, RunState] = {}
        """Of the runs that ended."""
        self.starts: dict[str, list[int]] = {}
        """Run id to the tokens under which a handler began."""
        self.specs: dict[str, TaskSpec] = {}
        """The first spec of each task. No story changes its delivery."""
        self.limits: dict[str, int | None] = {}
        """Uid to the largest `maxConcurrent` that the task ever had: a leader may know an older spec. None: none."""
        self.jitters: dict[str, int] = {}
        """Uid to the smallest jitter that the task ever had."""
        self.limited: set[str] = set()
        """Uids of tasks that ever had a limit."""
        self.invalid: set[str] = set()
        """Uids of tasks whose object was invalid for a while: then nobody knows how they are delivered."""
        self.unpeaceful_ms = 0
        """Until then there may be two Leases: somebody has deleted one. A deposed leader that does not know it yet may
        answer what needs no new fact."""
        self.clocks: dict[int, SimClock] = {}
        """Of the leaders, by epoch."""
        self.clock_quality: dict[str, str] = {}
        """Of each worker process: whether its estimate of the leader's clock is `good`, and it says so."""
        self.alive: Callable[[str], bool] = lambda instance: True
        """Whether a worker process runs, and nothing was cut."""
        self.asked_to_stop: set[int] = set()
        """Numbers of runs."""
        self.healed = False
        """No fault for seconds: no attempt may be lost."""
        self.violation = ""
        self.rules = Rules(self)
        self.steady: set[str] = set()
        """Uids of tasks whose triggers nobody edits."""
        self.ended_with_task: set[str] = set()
        """Ids of runs that ended since their task was deleted."""
        self.closed = False
        """The story is over: what still moves does not count."""

    # --- the history ---

    def say(self, actor: str, text: str, facts: Sequence[f.Fact] = ()) -> None:
        if self.closed:
            return
        self._history.append((self._now_ms(), actor, text, facts))

    def told(self, last: int = 0) -> str:
        """The history for people, a line an event: when, who, what. Instants are milliseconds since the story began."""
        return "\n".join(
            f"{now_ms - EPOCH_MS:>6} {actor:<9} {text}{', '.join(map(_in_words, facts))}"
            for now_ms, actor, text, facts in self._history[-last:]
        )

    def violated(self, what: str) -> None:
        if self.closed:
            return
        if not self.violation:
            self.violation = what
            self.say("RECORD", f"VIOLATED: {what}")
            self._stop()
        raise Violated(what)

    # --- the ledger ---

    def segment_written(self, segment: Segment) -> None:
        """A segment is durable, from now on."""
        if self.closed:
            return
        nonce = self.written.get(segment.sequence)
        if nonce == segment.nonce:
            return  # a repeat of the request arrived after compaction had deleted it: a leftover below a checkpoint
        if nonce is not None and segment.kind is SegmentKind.EPOCH and segment.sequence < self.base:
            # The late first try of a candidate that found the name taken and went on above: a leftover, too.
            self.say("LEDGER", f"segment {segment.sequence}: an epoch that nobody believes in")
            return
        if nonce is not None:
            self.violated(f"segment {segment.sequence} was written before, and is written again with other content")
        self.written[segment.sequence] = segment.nonce
        if segment.epoch < self.epoch:
            self.violated(f"segment {segment.sequence} of epoch {segment.epoch} after epoch {self.epoch} began")
        if segment.kind is SegmentKind.EPOCH:
            if segment.epoch <= self.epoch:
                self.violated(f"epoch {segment.epoch} begins after epoch {self.epoch}")
            self.epoch = segment.epoch
            self.at_epoch[segment.epoch] = len(self.facts)
            self.say("LEDGER", f"segment {segment.sequence}: epoch {segment.epoch}")
        elif segment.kind is SegmentKind.FACTS:
            facts = codec.decode_facts(segment.data, where=str(segment.sequence))
            self.say("LEDGER", f"segment {segment.sequence}: ", facts)
            for fact in facts:
                self._fact(fact)
        else:
            self.say("LEDGER", f"segment {segment.sequence}: checkpoint {segment.chunk + 1}/{segment.chunks}")
            if segment.chunk == segment.chunks - 1:
                self.base = segment.generation

    def compacted(self, kept: Sequence[SegmentHeader]) -> None:
        """Segments were deleted."""
        for fault in replay.faults(kept):
            self.violated(f"after a compaction: {fault}")

    def _fact(self, fact: f.Fact) -> None:
        state = self.state
        self.facts.append(fact)
        match fact:
            case f.Cancelled() if fact.run in state.runs:
                self._cancelled(state.runs[fact.run], fact.message)
            case f.Undelivered() if not fact.retry_ms:
                self.end_run(state.runs[fact.dispatch].id, RunState.FAILED)
            case f.BackfillEnded() if fact.backfill in state.runs:
                self.rules.backfill_ended(state.runs[fact.backfill])
            case f.Leased():
                self._leasing(fact)
            case f.Armed() if fact.task in state.tasks:
                self.rules.armed(fact)
            case _:
                pass
        try:
            state.apply(fact)
        except KeyError as error:
            self.violated(f"{fact} does not fit what was before it: {error!r}")
        match fact:
            case f.Fired():
                for number in range(fact.first_run, fact.first_run + len(fact.tasks)):
                    self.made(number)
                    self.rules.wanted_ms[number] = fact.scheduled_ms
                    self.rules.check_fixed_delay(state.runs[number])
            case f.Submitted() | f.Requested() | f.BackfillStarted():
                self.made(fact.run)
                if isinstance(fact, f.BackfillStarted):
                    self.rules.spans_asked.add(state.runs[fact.run].id)
                elif isinstance(fact, f.Requested):
                    self.rules.wanted_ms[fact.run] = fact.ready_ms
            case f.Backfilled():
                self.rules.backfilled(fact)
            case f.CancelAsked():
                self.asked_to_stop.add(fact.run)
            case f.Succeeded():
                for token in fact.tokens:
                    self._succeeded(token, b"")
            case f.SucceededWith():
                self._succeeded(fact.token, fact.result)
            case f.Failed():
                self._failed(fact)
            case f.Returned():
                for token in fact.tokens:
                    if self._end(token).started:
                        self.violated(f"the attempt with token {token} was given back, but its handler had begun")
            case f.Cancelled() | f.Undelivered() | f.BackfillEnded() | f.Leased() | f.Armed():
                pass  # judged before it was folded
            case f.Clock() | f.TaskNamed() | f.TaskForgotten() | f.Skipped() | f.WorkerNamed() | f.Recovered():
                pass  # `invariants` counts what they settle
            case _:
                assert_never(fact)

    def made(self, number: int) -> None:
        run_id = self.state.runs[number].id
        if run_id in self.run_ids:
            self.violated(f"run {run_id} was made twice")
        self.run_ids.add(run_id)

    def end_run(self, run_id: str, outcome: RunState) -> None:
        if run_id in self.outcomes:
            self.violated(f"run {run_id} ended twice")
        self.outcomes[run_id] = outcome
        self.rules.ended(run_id, outcome)

    def applied(self, spec: TaskSpec) -> None:
        """A user creates or edits the task."""
        uid, limit = spec.uid, spec.overlap.max_concurrent
        if uid in self.specs:
            before, self.jitters[uid] = self.limits[uid], min(self.jitters[uid], spec.jitter_ms)
            self.limits[uid] = None if before is None or limit is None else max(before, limit)
        else:
            self.specs[uid], self.limits[uid], self.jitters[uid] = spec, limit, spec.jitter_ms
        if limit is not None:
            self.limited.add(uid)

    def _leasing(self, fact: f.Leased) -> None:
        """Just before an attempt is folded: what it was then that is leased, and to whom."""
        state, clock = self.state, self.clocks.get(self.epoch)
        instance = state.workers[fact.worker].instance
        for token, number in enumerate(fact.dispatches, start=fact.first_token):
            dispatch = state.dispatch_of(number)
            run = dispatch.run
            if token in self.attempts:
                self.violated(f"token {token} was given twice")
            if dispatch.token or fact.dispatches.count(number) > 1:
                self.violated(f"{run.id} is leased, but a worker holds it already")
            if run.cancelling is not None:
                self.violated(f"{run.id} is leased, but was asked to stop")
            attempt = self.attempts[token] = Attempt(run.id, number, instance)
            attempt.epoch, attempt.jumps = self.epoch, clock.jumps if clock else 0
            attempt.ready_ms = max(dispatch.ready_ms, self.rules.wanted_ms.get(number, 0))
            attempt.front = run.front
            jitter = self.jitters[run.task.uid]
            if jitter and not dispatch.attempts and run.origin in (Origin.SCHEDULE, Origin.COMPLETION):
                attempt.ready_ms = max(attempt.ready_ms, self._jittered(run, jitter))
            early = dispatch.ready_ms > state.clock_ms and clock is not None and not clock.jumps
            if early and self.clock_quality.get(instance, "good") in ("none", "vague", "wild"):
                self.violated(f"{run.id} is leased ahead of its instant to {instance}, which does not know the time")
            self.rules.check_overlap(run, attempt)

    def _jittered(self, run: Run, most_ms: int) -> int:
        """The soonest that a run starts whose task has at least this jitter: its instant and its share, or, made up for
        late, when it was made and that share. Where somebody edited the trigger, nobody here knows the next instant."""
        uid, since_ms = run.task.uid, run.scheduled_ms
        if run.created_ms - since_ms > EngineConfig().misfire_threshold_ms:
            since_ms = run.created_ms
        trigger = self.specs[uid].trigger
        if uid not in self.steady:
            return since_ms
        if trigger is not None and (following := trigger.next_after(since_ms)) is not None:
            most_ms = min(most_ms, following - since_ms - 1)
        return since_ms + jitter_ms(uid, since_ms, most_ms)

    def _cancelled(self, run: Run, message: str) -> None:
        token = next((dispatch.token for dispatch in run.dispatches), 0)
        self.end_run(run.id, RunState.CANCELLED)
        if "the task was deleted" in message:
            self.ended_with_task.add(run.id)
        if not token:
            return
        attempt = self._end(token)
        if "the task was deleted" in message:
            return
        if run.number not in self.asked_to_stop:
            self.violated(f"{run.id} was cancelled, but its worker was not asked to stop it")
        lost = any(why in message for why in ("was lost", "without a renewal", "did not stop it"))
        if attempt.started and attempt.outcome is None and not lost:
            self.violated(f"{run.id} ended as cancelled, but its handler still runs ({message})")
        attempt.given_back = not lost and not attempt.started
        if "without a renewal" in message or "was lost" in message:
            self._check_lost(attempt)

    def _check_lost(self, attempt: Attempt) -> None:
        if self.healed and self.alive(attempt.instance):
            self.violated(f"{attempt.run_id} was lost with {attempt.instance}, which lives, and nothing fails any more")

    def _end(self, token: int) -> Attempt:
        attempt = self.attempts[token]
        if attempt.ended:
            self.violated(f"the attempt with token {token} ended twice")
        attempt.ended = True
        return attempt

    def _succeeded(self, token: int, result: bytes) -> None:
        attempt = self._end(token)
        if attempt.outcome != ("ok", result):
            self.violated(f"token {token} succeeded with {result!r}, but its handler did {attempt.outcome}")
        self.end_run(attempt.run_id, RunState.SUCCEEDED)

    def _failed(self, fact: f.Failed) -> None:
        attempt = self._end(fact.token)
        if fact.reason is f.FailureReason.LOST:
            self._check_lost(attempt)
        if fact.reason is f.FailureReason.ERROR and attempt.outcome != ("error", b""):
            self.violated(f"token {fact.token} failed with an error, but its handler did {attempt.outcome}")
        if not fact.retry_ms:
            self.end_run(attempt.run_id, RunState.FAILED)
        uid = uid_of(attempt.run_id)
        run, spec = self.state.runs.get(attempt.number), self.specs[uid]
        if run is not None and (spec.guarantee is Guarantee.AT_MOST_ONCE or run.attempts > spec.retry.limit):
            self.violated(f"{attempt.run_id} is driven again, after {run.attempts} of {spec.retry.limit + 1} attempts")

    # --- effects ---

    def led(self, actor: str, epoch: int, state: State, undurable: Sequence[f.Fact]) -> None:
        """A leader has restored what was durable at its takeover, and decided `undurable` since."""
        self.say(actor, f"leads in epoch {epoch}")
        expected = State()
        for fact in (*self.facts[: self.at_epoch[epoch]], *undurable):
            expected.apply(fact)
        if found := differences(state, expected, but=WORKERS):
            self.violated(f"{actor} restored another state for epoch {epoch} than all facts before it make: {found}")

    def released(self, actor: str, epoch: int) -> None:
        """A leader of `epoch` releases effects now."""
        if epoch < self.epoch and self._now_ms() > self.unpeaceful_ms:
            self.violated(f"{actor} releases effects of epoch {epoch}, but epoch {self.epoch} has begun")

    def shown(self, actor: str, epoch: int, views: Views) -> None:
        """A leader shows people its tasks."""
        self.released(actor, epoch)
        for task in views.tasks:
            for run in task.runs:
                ended = self.outcomes.get(run.run_id)
                if run.run_id not in self.run_ids or (run.state.is_final and ended != run.state):
                    self.violated(f"{actor} shows {run.run_id} as {run.state}, which is not in the ledger")

    def delivered(self, instance: str, token: int, run_id: str) -> None:
        """A lease reached a worker."""
        attempt = self.attempts.get(token)
        if attempt is None or attempt.run_id != run_id:
            self.violated(f"the lease of {run_id} with token {token} was released before it was durable")
        elif attempt.instance != instance:
            self.violated(f"{instance} got the lease with token {token}, which is {attempt.instance}'s")

    def started(self, worker: str, token: int, run_id: str) -> None:
        """A handler begins."""
        attempt = self.attempts[token]
        if attempt.started:
            self.violated(f"{worker} starts the attempt with token {token} a second time")
        if attempt.given_back:
            self.violated(f"{worker} starts {run_id} with token {token}, which it gave back when it was cancelled")
        attempt.started = True
        clock = self.clocks.get(attempt.epoch)
        known = self.clock_quality.get(worker) == "good" and clock is not None and not clock.jumps and not attempt.jumps
        if known and clock is not None and clock.now_ms() < attempt.ready_ms - 15:
            self.violated(
                f"{worker} starts {run_id} at {clock.now_ms()} by its leader's clock: before {attempt.ready_ms}"
            )
        self.rules.check_running(worker, attempt)
        tokens = self.starts.setdefault(run_id, [])
        tokens.append(token)
        if len(tokens) > 1 and self.specs[uid_of(run_id)].guarantee is Guarantee.AT_MOST_ONCE:
            self.violated(f"{run_id} promises at most once, and runs with tokens {tokens}")

    def finished(self, token: int, outcome: str, result: bytes = b"") -> None:
        """A handler has ended."""
        self.attempts[token].outcome = (outcome, result)

    def stopped(self, token: int) -> None:
        """A handler of which nobody wants the outcome was stopped."""
        attempt = self.attempts[token]
        if attempt.outcome is None:
            attempt.outcome = ("stopped", b"")

    def acknowledged(self, tokens: Sequence[int], answer: Reported) -> None:
        """A worker was told that its report of these attempts is durable."""
        for token in tokens:
            if token not in answer.fenced and not self.attempts[token].ended:
                self.violated(f"the report of token {token} was acknowledged, but is not in the ledger")

    def accepted(self, run_id: str, answer: SubmittedRun) -> None:
        """A user was told that the run exists, and in which state it is."""
        if run_id != answer.run_id or run_id not in self.run_ids:
            self.violated(f"the submission of {run_id} was acknowledged, but is not in the ledger")
        if answer.state.is_final and self.outcomes.get(run_id) != answer.state:
            self.violated(f"a user was told that {run_id} is {answer.state}, which is not in the ledger")


def _in_words(fact: f.Fact) -> str:
    said = [f"{name}={_value(getattr(fact, name))}" for name in fact.__struct_fields__ if getattr(fact, name)]
    return f"{type(fact).__name__}({' '.join(said)})"


def _value(value: object) -> str:
    if isinstance(value, f.SkipReason | f.FailureReason):
        return value.name
    if isinstance(value, int) and value > EPOCH_MS // 2:
        return f"{value - EPOCH_MS:+d}"
    return str(value).replace(" ", "")
