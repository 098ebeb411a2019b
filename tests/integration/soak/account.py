"""The account at the end: what the ledger says, what the workers wrote down, and the instants that time demands.

Three sources that know nothing of each other: the facts of every segment that ever stood in the ledger, folded here
anew and not by the engine; the lines of the workers' own files; and instants that are computed by other code. `audit`
holds them together and returns every broken invariant as a sentence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from tests.integration.soak.tail import TailSegment

from tickwheel_operator.ledger import codec
from tickwheel_operator.ledger import facts as f

__all__ = ["Audit", "Book", "Record", "audit", "executions_without_a_lease", "order_faults", "read_records"]


@dataclass
class Run:
    task: str
    scheduled_ms: int
    tokens: list[int] = field(default_factory=list)
    state: str = "open"
    ended_by: int = 0
    """The token of the attempt that succeeded."""


@dataclass
class Task:
    uid: str
    name: str
    runs: dict[int, int] = field(default_factory=Counter)
    """How many runs each instant has."""
    skipped: int = 0


class Book:
    """What the ledger says happened: its facts, folded."""

    def __init__(self, segments: Iterable[TailSegment] = ()) -> None:
        self.tasks: dict[int, Task] = {}
        self.runs: dict[int, Run] = {}
        self.attempts: dict[int, int] = {}
        """Every token ever leased, and its run."""
        self.epochs: list[tuple[int, int, str]] = []
        """Epoch, the wall clock of its leader when it took over, and who."""
        self.fires: list[tuple[int, int]] = []
        """When instants were fired (wall clock of the leader that did) and in which epoch, in the ledger's order."""
        self.failed_attempts: Counter[str] = Counter()
        self.segments = 0
        self.checkpoints = 0
        self.last_sequence = 0
        self._epoch = 0
        self._now_ms = 0
        self.read(segments)

    def read(self, segments: Iterable[TailSegment]) -> None:
        """Fold what comes after the last segment that was read."""
        for segment in segments:
            if segment.sequence <= self.last_sequence:
                continue
            self.last_sequence, self._epoch = segment.sequence, segment.epoch
            self.segments += 1
            where = f"segment {segment.sequence}"
            match segment.kind:
                case "Epoch":
                    record = codec.decode_epoch(segment.data, where=where)
                    self.epochs.append((segment.epoch, record.at_ms, record.leader))
                case "Checkpoint":
                    self.checkpoints += 1
                case _:
                    for fact in codec.decode_facts(segment.data, where=where):
                        self._fold(fact)

    @property
    def open_runs(self) -> list[Run]:
        return [run for run in self.runs.values() if run.state == "open"]

    def _fold(self, fact: f.Fact) -> None:
        match fact:
            case f.Clock(at_ms):
                self._now_ms = at_ms
            case f.TaskNamed():
                self.tasks[fact.task] = Task(fact.uid, fact.name)
            case f.Fired():
                self.fires.append((self._now_ms, self._epoch))
                for number, task in enumerate(fact.tasks, fact.first_run):
                    assert number not in self.runs, f"run {number} was made twice"
                    self.runs[number] = Run(self.tasks[task].uid, fact.scheduled_ms)
                    self.tasks[task].runs[fact.scheduled_ms] += 1
            case f.Submitted() | f.Requested():
                self.runs[fact.run] = Run(self.tasks[fact.task].uid, fact.scheduled_ms)
            case f.BackfillStarted():
                self.runs[fact.run] = Run(self.tasks[fact.task].uid, fact.from_ms)
            case f.Backfilled():
                whole = self.runs[fact.backfill]
                for number, instant in enumerate(fact.instants, fact.first_run):
                    self.runs[number] = Run(whole.task, instant)
            case f.BackfillEnded():
                self._end(fact.backfill, "succeeded", 0)
            case f.Skipped():
                self.tasks[fact.task].skipped += fact.count
            case f.Leased():
                for token, run in enumerate(fact.dispatches, fact.first_token):
                    assert token not in self.attempts, f"token {token} was leased twice"
                    self.attempts[token] = run
                    self.runs[run].tokens.append(token)
            case f.Succeeded():
                for token in fact.tokens:
                    self._end(self.attempts[token], "succeeded", token)
            case f.SucceededWith():
                self._end(self.attempts[fact.token], "succeeded", fact.token)
            case f.Failed():
                self.failed_attempts[fact.reason.name] += 1
                if not fact.retry_ms:
                    self._end(self.attempts[fact.token], "failed", fact.token)
            case f.Undelivered():
                if not fact.retry_ms:
                    self._end(fact.dispatch, "failed", 0)
            case f.Cancelled():
                self._end(fact.run, "cancelled", 0)

    def _end(self, number: int, state: str, token: int) -> None:
        run = self.runs[number]
        assert run.state == "open", f"run {number} was {run.state} and became {state}"
        run.state, run.ended_by = state, token


class Record(msgspec.Struct, frozen=True):
    """One line of a worker's file."""

    what: str
    run: str
    scheduled_ms: int
    attempt: int
    token: int
    wall_ms: int
    monotonic_s: float


def read_records(folder: Path) -> list[Record]:
    """All whole lines of all worker processes: the last one may be half written, also by one that was killed."""
    return [
        msgspec.convert(json.loads(line), Record)
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]


def order_faults(segments: Sequence[TailSegment]) -> list[str]:
    """Whether the log has no gap, epochs grow, and nothing of an epoch stands above the `Epoch` segment of the next."""
    faults = []
    if segments and segments[0].sequence != 1:
        faults.append(f"the tail begins at sequence {segments[0].sequence}")
    for before, after in pairwise(segments):
        if after.sequence != before.sequence + 1:
            faults.append(f"sequences {before.sequence + 1} to {after.sequence - 1} are missing")
        if after.kind == "Epoch" and after.epoch <= before.epoch:
            faults.append(f"sequence {after.sequence} begins epoch {after.epoch} after epoch {before.epoch}")
        if after.kind != "Epoch" and after.epoch != before.epoch:
            faults.append(f"sequence {after.sequence} is of epoch {after.epoch}, but epoch {before.epoch} rules")
    return faults


@dataclass
class Audit:
    """The outcome."""

    faults: list[str]
    runs: int = 0
    attempts: int = 0
    executions: int = 0
    double_executions: int = 0
    """Runs whose handler began more than once: allowed at least once after a kill, and counted."""
    overlapping: int = 0
    """Of these, runs that were executed by two attempts at the same time."""


def audit(
    segments: Sequence[TailSegment],
    records: Sequence[Record],
    tasks: Iterable[dict[str, Any]],
    instants: Callable[[dict[str, Any], int], set[int]],
    suspended_ms: Mapping[str, int],
) -> Audit:
    """Hold the sources together. `tasks` are the ScheduledTask objects, all of them suspended by now; `suspended_ms`
    says of each, by name, when its suspension was about to be asked for: it may have gone on for a moment."""
    book = Book(segments)
    result = Audit(order_faults(segments), runs=len(book.runs), attempts=len(book.attempts))
    _check_instants(book, tasks, instants, suspended_ms, result.faults)
    _check_executions(book, records, result)
    return result


def _check_instants(
    book: Book,
    tasks: Iterable[dict[str, Any]],
    instants: Callable[[dict[str, Any], int], set[int]],
    suspended_ms: Mapping[str, int],
    faults: list[str],
) -> None:
    """Every scheduled instant has exactly one run, and there is no run beside them."""
    by_uid = {task.uid: task for task in book.tasks.values()}
    for wanted in tasks:
        name = wanted["metadata"]["name"]
        task = by_uid.pop(wanted["metadata"]["uid"], None)
        if task is None:
            faults.append(f"{name}: the ledger does not know it")
            continue
        if task.skipped:
            faults.append(f"{name}: {task.skipped} instants were skipped, though it fires all")
        fired = set(task.runs)
        expected = instants(wanted, max([suspended_ms[name], *fired]))
        if not expected:
            faults.append(f"{name}: no instant was due; the test shows nothing")
        _sample(faults, f"{name}: instants without a run", expected - fired)
        _sample(faults, f"{name}: runs at instants that are none", fired - expected)
        _sample(faults, f"{name}: instants with more than one run", {at for at, n in task.runs.items() if n > 1})
    _sample(faults, "tasks of the ledger that nobody made", set(by_uid))


def _check_executions(book: Book, records: Sequence[Record], result: Audit) -> None:
    """Every run ends, its success was really executed, and nothing was executed that the ledger did not lease."""
    faults = result.faults
    _sample(faults, "runs that did not end", {f"{run.task}.{run.scheduled_ms}" for run in book.open_runs})
    ended_badly = {f"{run.task}.{run.scheduled_ms} {run.state}" for run in book.runs.values()}
    _sample(
        faults, "runs that did not succeed", {text for text in ended_badly if text.endswith(("failed", "cancelled"))}
    )
    begun = Counter((record.run, record.token) for record in records if record.what == "begin")
    ended = {(record.run, record.token) for record in records if record.what == "end"}
    _sample(faults, "executions that the ledger did not lease", executions_without_a_lease(book, records))
    _sample(faults, "attempts that were executed twice", {key for key, n in begun.items() if n > 1})
    successes = {(_run_id(run), run.ended_by) for run in book.runs.values() if run.state == "succeeded"}
    _sample(faults, "successes that no worker wrote down", successes - ended)
    executed = Counter(run for run, _ in begun)
    _sample(faults, "runs that no worker executed", {_run_id(run) for run in book.runs.values()} - set(executed))
    result.executions = begun.total()
    result.double_executions = sum(n > 1 for n in executed.values())
    result.overlapping = _overlapping(records)


def executions_without_a_lease(book: Book, records: Sequence[Record]) -> set[tuple[str, int]]:
    """Run and token of attempts that a worker began and the ledger knows nothing of: an effect before its facts."""
    leased = {(_run_id(book.runs[run]), token) for token, run in book.attempts.items()}
    return {(record.run, record.token) for record in records} - leased


def _overlapping(records: Sequence[Record]) -> int:
    """Runs of which one attempt ended after the next had begun. One machine, one monotonic clock."""
    spans: dict[str, dict[int, list[float]]] = {}
    for record in records:
        spans.setdefault(record.run, {}).setdefault(record.token, []).append(record.monotonic_s)
    found = 0
    for attempts in spans.values():
        ordered = sorted(attempts.values())
        found += any(max(before) > min(after) for before, after in pairwise(ordered))
    return found


def _run_id(run: Run) -> str:
    return f"{run.task}.{run.scheduled_ms}"


def _sample(faults: list[str], what: str, found: Iterable[object]) -> None:
    items = sorted(map(str, found))
    if items:
        faults.append(f"{what}: {len(items)}, such as {', '.join(items[:3])}")
