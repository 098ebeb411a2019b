"""What really happened, kept outside of all nodes, and the invariants of DESIGN 9.1 over it.

Every durable segment, every acknowledgement and every start of a handler passes through here the moment it happens;
a broken invariant raises `Violated` at once, with the history that led to it.
"""

from __future__ import annotations

from collections.abc import Callable

from tickwheel_operator.engine import snapshot
from tickwheel_operator.engine.identity import keyed_run_id, scheduled_run_id
from tickwheel_operator.engine.state import State
from tickwheel_operator.engine.triggers import AnyTrigger
from tickwheel_operator.ledger import codec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.protocol import Segment, SegmentKind

__all__ = ["Record", "Violated"]


class Violated(AssertionError):
    """An invariant does not hold."""


class Record:
    """The truth."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.history: list[str] = []
        self.written: dict[int, str] = {}
        """Sequence to nonce, of every segment that was ever written, also of those deleted since."""
        self.epoch = 0
        self.base = 0
        """The first segment of the newest complete checkpoint."""
        self.facts: list[f.Fact] = []
        self.tokens: dict[int, str] = {}
        """Token to run id, of every lease that is durable."""
        self.ended: set[int] = set()
        """Tokens whose end is durable."""
        self.runs: dict[int, str] = {}
        self.run_ids: set[str] = set()
        self.starts: dict[str, list[int]] = {}
        """Run id to the tokens under which a handler began."""
        self._tasks: dict[int, f.TaskNamed] = {}
        self.at_most_once: set[str] = set()
        """Uids of tasks that promise it."""
        self.violation = ""
        self.closed = False
        """The story is over: what still moves does not count."""

    def say(self, actor: str, text: str) -> None:
        if self.closed:
            return
        self.history.append(f"{self._now_ms() % 1_000_000:>7} {actor:<8} {text}")

    def violated(self, what: str) -> None:
        if self.closed:
            return
        self.violation = self.violation or what
        self.say("RECORD", f"VIOLATED: {what}")
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
            self.say("LEDGER", f"segment {segment.sequence}: epoch {segment.epoch}")
        elif segment.kind is SegmentKind.FACTS:
            facts = codec.decode_facts(segment.data, where=str(segment.sequence))
            self.say("LEDGER", f"segment {segment.sequence}: {facts}")
            for fact in facts:
                self._fact(fact)
        else:
            self.say("LEDGER", f"segment {segment.sequence}: checkpoint {segment.chunk + 1}/{segment.chunks}")
            if segment.chunk == segment.chunks - 1:
                self.base = segment.sequence - segment.chunk

    def _fact(self, fact: f.Fact) -> None:
        self.facts.append(fact)
        match fact:
            case f.TaskNamed():
                self._tasks[fact.task] = fact
            case f.Fired():
                for number, task in enumerate(fact.tasks, start=fact.first_run):
                    self._run(number, scheduled_run_id(self._tasks[task].uid, fact.scheduled_ms))
            case f.Submitted():
                self._run(fact.run, keyed_run_id(self._tasks[fact.task].uid, fact.key))
            case f.Leased():
                for token, dispatch in enumerate(fact.dispatches, start=fact.first_token):
                    if token in self.tokens:
                        self.violated(f"token {token} was given twice")
                    self.tokens[token] = self.runs[dispatch]
            case f.Succeeded():
                for token in fact.tokens:
                    self._end(token)
            case f.SucceededWith() | f.Failed():
                self._end(fact.token)
            case _:
                pass

    def _run(self, number: int, run_id: str) -> None:
        if run_id in self.run_ids:
            self.violated(f"run {run_id} was made twice")
        self.run_ids.add(run_id)
        self.runs[number] = run_id

    def _end(self, token: int) -> None:
        if token in self.ended:
            self.violated(f"the attempt with token {token} ended twice")
        self.ended.add(token)

    # --- effects ---

    def released(self, actor: str, epoch: int) -> None:
        """A leader of `epoch` releases effects now."""
        if epoch < self.epoch:
            self.violated(f"{actor} releases effects of epoch {epoch}, but epoch {self.epoch} has begun")

    def delivered(self, token: int, run_id: str) -> None:
        """A lease reached a worker."""
        if self.tokens.get(token) != run_id:
            self.violated(f"the lease of {run_id} with token {token} was released before it was durable")

    def started(self, worker: str, token: int, run_id: str) -> None:
        """A handler begins."""
        tokens = self.starts.setdefault(run_id, [])
        if token in tokens:
            self.violated(f"{worker} starts the attempt with token {token} a second time")
        tokens.append(token)
        if len(tokens) > 1 and run_id.partition(".")[0] in self.at_most_once:
            self.violated(f"{run_id} promises at most once, and runs with tokens {tokens}")

    def acknowledged(self, token: int) -> None:
        """A worker was told that its report of the attempt is durable."""
        if token not in self.ended:
            self.violated(f"the report of token {token} was acknowledged, but is not in the ledger")

    def accepted(self, run_id: str) -> None:
        """A submitter was told that the run exists."""
        if run_id not in self.run_ids:
            self.violated(f"the submission of {run_id} was acknowledged, but is not in the ledger")

    # --- the end ---

    def folded(self) -> State:
        """The state as all facts that were ever durable make it."""
        state = State()
        for fact in self.facts:
            state.apply(fact)
        return state

    def check_end(self, restored: State, triggers: dict[str, AnyTrigger]) -> None:
        """After the quiet phase: nothing is open, nothing was lost, every instant is accounted for."""
        whole = self.folded()
        if snapshot.dump(whole) != snapshot.dump(restored):
            self.violated("checkpoint and tail give another state than all facts")
        if whole.runs:
            open_runs = ", ".join(f"{run.id} ({run.state})" for run in whole.runs.values())
            self.violated(f"runs never ended: {open_runs}")
        self._check_instants(triggers)

    def _check_instants(self, triggers: dict[str, AnyTrigger]) -> None:
        """Between two armings, each instant was fired once or is in a skip's count."""
        periods: dict[int, tuple[str, int]] = {}
        fired: dict[int, set[int]] = {}
        skipped: dict[int, int] = {}
        until: dict[int, int] = {}

        def close(task: int) -> None:
            schedule, start = periods.pop(task)
            trigger = triggers.get(schedule)
            expected = 0 if trigger is None else trigger.count_between(start, until[task], 10**9)
            found = len(fired[task]) + skipped[task]
            if expected != found:
                name = self._tasks[task].name
                self.violated(
                    f"{name}: {expected} instants of '{schedule}' in ({start}, {until[task]}], "
                    f"but {len(fired[task])} were fired and {skipped[task]} skipped"
                )

        for fact in self.facts:
            match fact:
                case f.TaskNamed() | f.Armed():
                    if fact.task in periods:
                        close(fact.task)
                    periods[fact.task] = (fact.schedule, fact.watermark_ms)
                    fired[fact.task], skipped[fact.task], until[fact.task] = set(), 0, fact.watermark_ms
                case f.Fired():
                    for task in fact.tasks:
                        fired[task].add(fact.scheduled_ms)
                        until[task] = max(until[task], fact.scheduled_ms)
                case f.Skipped():
                    skipped[fact.task] += fact.count
                    until[fact.task] = max(until[fact.task], fact.until_ms)
                case f.TaskForgotten():
                    close(fact.task)
                case _:
                    pass
        for task in list(periods):
            close(task)
