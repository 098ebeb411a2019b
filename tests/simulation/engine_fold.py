"""What the facts say, in an account that is not the engine's own.

Runs, tokens, workers and counts, as `fold` finds them in the facts; of each run and attempt the instants between which
it may begin or end, by the boot clock. `engine_checks.py` and `engine_record.py` ask whether all of it was right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.identity import jitter_ms, keyed_run_id, scheduled_run_id
from tickwheel_operator.engine.spec import EngineConfig, TaskSpec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["LONGEST_LEAD_MS", "Attempt", "Broken", "Fold", "Run", "Worker", "is_meant"]

LONGEST_LEAD_MS = 2_000


class Broken(AssertionError):
    """The engine broke a promise."""


class Run:
    def __init__(self, number: int, task: int, scheduled_ms: int, ready_ms: int, origin: Origin) -> None:
        self.number, self.task, self.scheduled_ms, self.ready_ms, self.origin = (
            number, task, scheduled_ms, ready_ms, origin,
        )  # fmt: skip
        self.latest_ms = ready_ms
        """When its wait for an instant is over at the latest, by the wall clock."""
        self.key, self.parameters = "", b""
        self.token, self.worker, self.deliveries = 0, 0, 0
        self.attempts = 0
        """Of its deliveries, those that a worker got and did not give back."""
        self.cancelling = False
        self.backfill = 0
        self.to_ms = 0
        """Of a backfill: the end of its span."""
        self.open_children = 0
        self.due_boot_ms = 0
        """When its wait for an instant is over, at the latest."""
        self.soonest_boot_ms = 0
        """And at the soonest."""
        self.waits_boot_ms = 0
        """Since when it may have waited for a worker, at the soonest."""
        self.placed = False
        """It counts among those that may be open at a time: a worker had it since its task was last applied."""
        self.undecided = False
        """Nobody may have worked out yet when its wait is over: it may wait for other runs, or for its task."""
        self.delayed = False
        self.made_ms = 0


class Attempt:
    def __init__(self, run: Run, worker: int, boot_ms: int, offset_ms: int) -> None:
        self.run, self.worker, self.offset_ms = run, worker, offset_ms
        """The offset is the wall clock's from the boot clock, when it was leased."""
        self.soonest_boot_ms = self.due_boot_ms = run.soonest_boot_ms
        """The handler must not begin before the first; nor the next attempt before the second, if this one is lost."""
        self.least_boot_ms = boot_ms
        """Its lease does not end before."""
        self.most_boot_ms = boot_ms
        """Nor after this."""
        self.begins_boot_ms = self.begins_by_boot_ms = boot_ms
        """When its handler begins, at the soonest and at the latest: what was leased ahead waits for its instant."""
        self.put_off = False
        """This leader had not heard of its task: what should have ended it did not, and its lease does."""


class Worker:
    """A process, as far as the leader has heard of it."""

    def __init__(self, seen: m.WorkerSeen) -> None:
        self.seen = seen
        self.heard_boot_ms = 0
        self.pull: Hashable = None
        self.last_pull = 0
        self.certain = True
        """The leader surely remembers its last pull: it was not silent since."""
        self.until_boot_ms = 0
        self.credit = 0


def is_meant(gone: m.WorkerGone, instance: str, started_ms: int) -> bool:
    if gone.instance:
        return gone.instance == instance
    return not (gone.before_ms and started_ms) or started_ms < gone.before_ms


class Fold:
    """Of one story, over all its leaders."""

    def __init__(self, config: EngineConfig, sweep_ms: int) -> None:
        self.config, self._sweep_ms = config, sweep_ms
        self.specs: dict[str, TaskSpec] = {}
        """Of the tasks that are valid now, by uid."""
        self.paused: dict[str, TaskSpec] = {}
        self.unknown: set[str] = set()
        """Uids that were invalid when the leader took over, and since."""
        self.unheard: set[str] = set()
        """Uids of which this leader has not heard yet: nothing is decided about their attempts."""
        self.silences: dict[str, set[int]] = {}
        self.clear()

    def clear(self) -> None:
        """Nothing is folded."""
        self.uids: dict[int, str] = {}
        self.runs: dict[int, Run] = {}
        self.ids: set[str] = set()
        self.ended: dict[str, m.RunState] = {}
        self.ended_as: set[tuple[str, int, str]] = set()
        """As `shown_as` says."""
        self.keys: dict[str, int] = {}
        self.attempts: dict[int, Attempt] = {}
        self.last_token = 0
        self.workers: dict[int, tuple[m.WorkerKey, str]] = {}
        self.remembered: set[int] = set()
        """Those of them that no checkpoint has let go of."""
        self.started: dict[int, int] = {}
        """When each of them began."""
        self.displaced: Worker | None = None
        """Who had the place of the process that pulls now."""
        self.outlived = False
        """Whether a process that surely came after the one that pulls now has its place, or holds attempts there."""
        self.counts: dict[int, list[int]] = {}
        """By task: succeeded, failed, cancelled, skipped."""
        self.skips: dict[int, Counter[f.SkipReason]] = {}
        self.settled: dict[int, int] = {}
        """By task: up to when its instants were fired or skipped."""
        self.rests: dict[int, int] = {}
        """By task: when the last run of its schedule has ended, or was skipped, by the boot clock; where nobody has
        looked at the wall clock since."""
        self.clock_ms = 0
        self.made_up: dict[tuple[int, int], str] = {}
        self.live: dict[m.WorkerKey, Worker] = {}
        self.answered: set[Hashable] = set()
        self.broken_off: set[Hashable] = set()
        self.outrun: set[Hashable] = set()
        self.pulls: dict[Hashable, m.WorkerKey] = {}
        self.now_ms = self.wall_ms = self.boot_ms = 0
        self.lead_ms = 0
        self.leads = True
        self.known: set[str] = set()
        """Uids that were valid at some time while this leader watched."""
        self.synced, self.held = False, False
        self._command: m.Command | None = None
        """What is handled now."""
        self._to_tell: list[tuple[Hashable, int]] = []
        """Requests of open pulls, and the tokens that their workers must stop."""
        self._told: set[tuple[Hashable, int]] = set()
        """What of it an answer says."""

    def broken(self, what: str) -> None:
        raise Broken(what)

    def _runs_of(self, uid: str) -> list[Run]:
        return [run for run in self.runs.values() if self.uids[run.task] == uid]

    def _is_unlimited(self, run: Run) -> bool:
        spec = self.specs.get(self.uids[run.task])
        return spec is not None and spec.overlap.max_concurrent is None

    def _spec(self, run: Run) -> TaskSpec | None:
        uid = self.uids.get(run.task, "")
        return self.specs.get(uid) or self.paused.get(uid)

    def _is_before(self, seen: m.WorkerSeen, instance: str, started_ms: int) -> bool:
        """Whether the process that speaks surely began before the other one of its place."""
        numbers = {process: number for number, process in self.workers.items() if number in self.remembered}
        mine, its = numbers.get((seen.key, seen.instance), 0), numbers.get((seen.key, instance), 0)
        return mine < its if mine and its else 0 < seen.started_ms < started_ms

    # --- facts ---

    def fold(self, fact: f.Fact) -> None:
        """Keep it in mind, whether it is right or not."""
        now = self.clock_ms
        match fact:
            case f.Clock(at_ms=at_ms):
                if self.leads and at_ms != self.now_ms:
                    self.broken(f"{fact}: it is {self.now_ms}")
                self.clock_ms = at_ms
            case f.TaskNamed(task=task, uid=uid):
                if task in self.counts:
                    self.broken(f"{fact}: the number is taken")
                self.uids[task], self.counts[task], self.skips[task] = uid, [0, 0, 0, 0], Counter()
                self.settled[task] = fact.watermark_ms
            case f.TaskForgotten(task=task):
                if any(run.task == task for run in self.runs.values()):
                    self.broken(f"{fact}: it has open runs")
                del self.uids[task]
            case f.Fired(scheduled_ms=scheduled_ms, first_run=number, tasks=tasks):
                for task in tasks:
                    self.settled[task] = max(self.settled[task], scheduled_ms)
                    self._make(Run(number, task, scheduled_ms, max(scheduled_ms, now), Origin.SCHEDULE))
                    number += 1
            case f.Submitted() | f.Requested():
                origin = fact.origin if isinstance(fact, f.Requested) else Origin.REQUEST
                ready_ms = fact.ready_ms if isinstance(fact, f.Requested) else now
                run = Run(fact.run, fact.task, fact.scheduled_ms, ready_ms, origin)
                run.key, run.parameters = fact.key, fact.parameters
                run.delayed = origin is Origin.REQUEST and ready_ms > self.now_ms
                self._make(run)
            case f.BackfillStarted():
                run = Run(fact.run, fact.task, fact.from_ms, now, Origin.SPAN)
                run.key, run.to_ms = fact.key, fact.to_ms
                self._make(run)
            case f.Backfilled(backfill=backfill, first_run=first, instants=instants):
                whole = self.runs[backfill]
                for number, instant in enumerate(instants, start=first):
                    run = Run(number, whole.task, instant, now, Origin.BACKFILL)
                    run.backfill, run.key = backfill, whole.key
                    whole.open_children += 1
                    self.made_up[whole.task, instant] = "open"
                    self._make(run)
            case f.Skipped(task=task, count=count, reason=reason):
                self.skips[task][reason] += count
                self.counts[task][3] += count
                self.settled[task] = max(self.settled[task], fact.until_ms)
                self.rests[task] = self.boot_ms
            case f.Recovered(task=task):
                self.settled[task] = max(self.settled[task], fact.settled_ms)
                for reason, count, _ in fact.skips:
                    self.skips[task][reason] = max(self.skips[task][reason], count)
                known = zip(self.counts[task], (fact.succeeded, fact.failed, fact.cancelled), strict=False)
                self.counts[task] = [*(max(pair) for pair in known), self.skips[task].total()]
            case f.Armed(task=task):
                self.settled[task] = fact.watermark_ms
                for place in [place for place, state in self.made_up.items() if place[0] == task and state != "open"]:
                    del self.made_up[place]
            case f.WorkerNamed():
                self.workers[fact.worker] = (m.WorkerKey(fact.namespace, fact.pool, fact.name), fact.instance)
                self.started[fact.worker] = fact.started_ms
                self.remembered.add(fact.worker)
            case f.Leased(worker=worker, first_token=token, dispatches=dispatches):
                for number in dispatches:
                    run = self.runs[number]
                    ahead = max(0, run.due_boot_ms - self.boot_ms)
                    run.token, run.worker, run.deliveries = token, worker, run.deliveries + 1
                    run.attempts += 1
                    run.placed = True
                    attempt = self.attempts[token] = Attempt(run, worker, self.boot_ms, self.wall_ms - self.boot_ms)
                    attempt.begins_boot_ms = max(self.boot_ms, attempt.soonest_boot_ms)
                    attempt.begins_by_boot_ms = self.boot_ms + ahead
                    attempt.least_boot_ms = attempt.begins_boot_ms + self.config.lease_ms
                    attempt.most_boot_ms = attempt.begins_by_boot_ms + self.config.lease_ms
                    self.last_token = max(self.last_token, token)
                    token += 1
            case f.Succeeded(tokens=tokens):
                for token in tokens:
                    self._end(self.attempts[token].run, m.RunState.SUCCEEDED)
            case f.SucceededWith(token=token):
                self._end(self.attempts[token].run, m.RunState.SUCCEEDED)
            case f.Failed(token=token, retry_ms=retry_ms):
                run = self.attempts[token].run
                self._again(run, retry_ms, self._backoff_ms(run, fact))
                if not retry_ms:
                    self._end(run, m.RunState.FAILED)
            case f.Returned(tokens=tokens):
                for token in tokens:
                    run = self.attempts[token].run
                    run.deliveries -= 1
                    run.attempts -= 1
                    self._again(run, max(now, run.ready_ms))
            case f.Cancelled(run=number, message=message):
                if "the task was deleted" in message:
                    self._must_tell(self.runs[number])
                self._end(self.runs[number], m.RunState.CANCELLED)
            case f.Undelivered(dispatch=number, retry_ms=retry_ms):
                run = self.runs[number]
                run.deliveries += 1
                self._again(run, retry_ms)
                if not retry_ms:
                    self._end(run, m.RunState.FAILED)
            case f.BackfillEnded(backfill=number):
                failed = any(
                    state == "missed" and task == self.runs[number].task for (task, _), state in self.made_up.items()
                )
                self._end(self.runs[number], m.RunState.FAILED if failed else m.RunState.SUCCEEDED)
            case f.CancelAsked(run=number):
                self.runs[number].cancelling = True
                self._must_tell(self.runs[number])
            case _:
                self.broken(f"an unknown fact: {fact}")

    def _backoff_ms(self, run: Run, fact: f.Failed) -> int:
        """What it waits for at least, after a failure of its own."""
        spec = self._spec(run)
        if spec is None or fact.reason is f.FailureReason.LOST or "did not stop it" in fact.message:
            return 0
        backoff = spec.retry.backoff
        return int(min(backoff.initial_ms * backoff.factor ** (run.deliveries - 1), backoff.max_ms))

    def _settle_wait(self, run: Run) -> None:
        """What waited for other runs, or for its task, may work out the rest of its wait by the clocks of now."""
        if run.undecided:
            run.latest_ms = max(run.latest_ms, self._jittered(run))
            run.soonest_boot_ms = min(run.soonest_boot_ms, self.boot_ms + max(0, run.ready_ms - self.now_ms))
            run.due_boot_ms = max(run.due_boot_ms, self.boot_ms + max(0, run.latest_ms - self.now_ms))

    def _must_tell(self, run: Run) -> None:
        """Its worker must stop, and hears of it at once if it waits."""
        if not self.leads or not run.token:
            return
        key, instance = self.workers[run.worker]
        if self._loses(key):
            return
        live = self.live.get(key)
        waits = live is not None and live.seen.instance == instance and live.pull is not None
        if waits and live is not None and not any(request == live.pull for request, _ in self._to_tell):
            self._to_tell.append((live.pull, run.token))

    def _loses(self, key: m.WorkerKey) -> bool:
        """Whether the command says that the worker is gone: its pull is answered before anything ends."""
        match self._command:
            case m.WorkerGone(key=gone):
                return gone == key
            case m.Report(worker=seen, leaving=True):
                return seen.key == key
            case _:
                return False

    def _make(self, run: Run) -> None:
        if run.number in self.runs:
            self.broken(f"run {run.number} is made twice")
        self.runs[run.number] = run
        run.made_ms = self.clock_ms
        if run.origin in (Origin.REQUEST, Origin.SPAN):
            run_id = keyed_run_id(self.uids[run.task], run.key)
            if run_id in self.ids:
                self.broken(f"{run_id} is made twice")
            self.ids.add(run_id)
            self.keys[run_id] = run.number
        elif run.origin is Origin.SCHEDULE:
            run_id = f"{self.uids[run.task]}.{run.scheduled_ms}"
            if run_id in self.ids:
                self.broken(f"{run_id} is made twice")
            self.ids.add(run_id)
        self._waits_until(run, run.ready_ms)

    def _waits_until(self, run: Run, ready_ms: int) -> None:
        """It may be leased from this instant on, as the clocks stand now."""
        run.ready_ms = ready_ms
        run.undecided = not self._is_unlimited(run)
        run.latest_ms = self._jittered(run)
        run.soonest_boot_ms = self.boot_ms + max(0, ready_ms - self.now_ms)
        run.due_boot_ms = self.boot_ms + max(0, run.latest_ms - self.now_ms)
        run.waits_boot_ms = run.soonest_boot_ms

    def _jittered(self, run: Run) -> int:
        """When it starts at the latest, as its task is now."""
        spec = self._spec(run)
        if spec is None or not spec.jitter_ms or run.origin not in (Origin.SCHEDULE, Origin.COMPLETION):
            return run.ready_ms
        missed = run.made_ms - run.scheduled_ms > self.config.misfire_threshold_ms
        since_ms, most_ms = run.made_ms if missed else run.scheduled_ms, spec.jitter_ms
        if spec.trigger is not None and (following := spec.trigger.next_after(since_ms)) is not None:
            most_ms = min(most_ms, following - since_ms - 1)
        return max(run.ready_ms, since_ms + jitter_ms(spec.uid, since_ms, most_ms))

    def _again(self, run: Run, ready_ms: int, backoff_ms: int = 0) -> None:
        """It waits again, after an attempt for this long at least."""
        attempt = self.attempts.pop(run.token, None)
        run.token = 0
        self._waits_until(run, ready_ms)
        if attempt is not None:
            # What was left of its wait was fixed by the boot clock when it was leased, whatever the wall clock does.
            latest = max(attempt.due_boot_ms, self.boot_ms + backoff_ms)
            run.soonest_boot_ms = max(min(run.soonest_boot_ms, latest), attempt.soonest_boot_ms)
            run.due_boot_ms = max(run.due_boot_ms, run.soonest_boot_ms)
        if not ready_ms:
            run.waits_boot_ms = self.boot_ms

    def shown_as(self, run: Run) -> tuple[str, int, str]:
        """What people see of it: its id (if its schedule made it, or somebody asked for it), its attempts, and the
        worker that had the last of them."""
        uid, run_id = self.uids[run.task], ""
        if run.origin is Origin.SCHEDULE:
            run_id = scheduled_run_id(uid, run.scheduled_ms)
        elif run.origin is Origin.REQUEST:
            run_id = keyed_run_id(uid, run.key)
        return run_id, run.attempts, self.workers[run.worker][0].name if run.worker else ""

    def _end(self, run: Run, state: m.RunState) -> None:
        self.ended_as.add(self.shown_as(run))
        del self.runs[run.number]
        self.attempts.pop(run.token, None)
        if run.origin is Origin.SCHEDULE:
            self.rests[run.task] = self.boot_ms
        if run.origin is not Origin.SPAN:
            place = (m.RunState.SUCCEEDED, m.RunState.FAILED, m.RunState.CANCELLED).index(state)
            self.counts[run.task][place] += 1
        if run.backfill:
            self.made_up[run.task, run.scheduled_ms] = "ok" if state is m.RunState.SUCCEEDED else "missed"
            if run.backfill in self.runs:
                self.runs[run.backfill].open_children -= 1
        if run.origin in (Origin.REQUEST, Origin.SPAN):
            run_id = keyed_run_id(self.uids[run.task], run.key)
            self.ended[run_id] = state
            self.keys.pop(run_id, None)
            if self.config.max_keys < 100:
                self.ids.discard(run_id)  # its key may be forgotten at once
