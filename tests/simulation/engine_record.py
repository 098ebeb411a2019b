"""What the engine promises, checked against an account that is not its own.

`engine_driver.py` gives it each command with the facts and effects that came of it. It keeps its own short account of
runs, tokens, pulls and leases, and looks at nothing in the engine: so a fault of the fold cannot hide itself here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

import msgspec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.identity import jitter_ms, keyed_run_id
from tickwheel_operator.engine.parameters import merge
from tickwheel_operator.engine.spec import EngineConfig, FixedDelay, Guarantee, TaskSpec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["Account", "Broken"]

_STOP_PATIENCE_MS = 120_000
_NO_ROOM = (f.SkipReason.OVERLAP, f.SkipReason.QUEUE_FULL, f.SkipReason.BACKLOG)
_LONGEST_LEAD_MS = 2_000


class Broken(AssertionError):
    """The engine broke a promise."""


class _Run:
    def __init__(self, number: int, task: int, scheduled_ms: int, ready_ms: int, origin: Origin) -> None:
        self.number, self.task, self.scheduled_ms, self.ready_ms, self.origin = (
            number, task, scheduled_ms, ready_ms, origin,
        )  # fmt: skip
        self.key, self.parameters = "", b""
        self.token, self.worker, self.deliveries = 0, 0, 0
        self.cancelling = False
        self.backfill = 0
        self.open_children = 0
        self.due_boot_ms = 0
        """When its wait for an instant is over, at the latest."""
        self.soonest_boot_ms = 0
        """And at the soonest."""
        self.waits_boot_ms = 0
        """Since when it may have waited for a worker, at the soonest."""
        self.delayed = False
        self.made_ms = 0


class _Attempt:
    def __init__(self, run: _Run, worker: int, boot_ms: int) -> None:
        self.run, self.worker = run, worker
        self.soonest_boot_ms = run.soonest_boot_ms
        """The handler must not begin before."""
        self.least_boot_ms = boot_ms
        """Its lease does not end before."""
        self.most_boot_ms = boot_ms
        """Nor after this."""
        self.begun_boot_ms = boot_ms
        self.inherited = False
        """A leader before has leased it, perhaps ahead of its instant."""


class _Worker:
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


def _is_meant(gone: m.WorkerGone, instance: str, started_ms: int) -> bool:
    if gone.instance:
        return gone.instance == instance
    return not (gone.before_ms and started_ms) or started_ms < gone.before_ms


class Account:
    """Of one story, over all its leaders."""

    def __init__(self, config: EngineConfig, sweep_ms: int) -> None:
        self.config, self._sweep_ms = config, sweep_ms
        self.specs: dict[str, TaskSpec] = {}
        """Of the tasks that are valid now, by uid."""
        self.paused: dict[str, TaskSpec] = {}
        self.unknown: set[str] = set()
        """Uids that were invalid when the leader took over, and since."""
        self.limits: dict[str, int | None] = {}
        self.most_limits: dict[str, int | None] = {}
        """The largest limit that a task ever had; None: none."""
        self.doubtful: set[str] = set()
        """Uids that were invalid for a while, or changed whom they are counted with."""
        self.silences: dict[str, set[int]] = {}
        self.clear()

    def clear(self) -> None:
        """Nothing is folded."""
        self.uids: dict[int, str] = {}
        self.runs: dict[int, _Run] = {}
        self.ids: set[str] = set()
        self.ended: dict[str, m.RunState] = {}
        self.keys: dict[str, int] = {}
        self.attempts: dict[int, _Attempt] = {}
        self.last_token = 0
        self.workers: dict[int, tuple[m.WorkerKey, str]] = {}
        self.remembered: set[int] = set()
        """Those of them that no checkpoint has let go of."""
        self.started: dict[int, int] = {}
        """When each of them began."""
        self.displaced: _Worker | None = None
        """Who had the place of the process that pulls now."""
        self.outlived = False
        """Whether a process that surely came after the one that pulls now has its place, or holds attempts there."""
        self.counts: dict[int, list[int]] = {}
        """By task: succeeded, failed, cancelled, skipped."""
        self.skips: dict[int, Counter[f.SkipReason]] = {}
        self.clock_ms = 0
        self.made_up: dict[tuple[int, int], str] = {}
        self.live: dict[m.WorkerKey, _Worker] = {}
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

    def broken(self, what: str) -> None:
        raise Broken(what)

    # --- taking over ---

    def take_over(self, facts: Iterable[f.Fact], now_ms: int, boot_ms: int) -> None:
        """Another leader has folded these; it has heard of nobody yet."""
        self.clear()
        self.wall_ms = self.now_ms = now_ms
        self.boot_ms = boot_ms
        self.leads = False
        for fact in facts:
            self.fold(fact)
        self.leads = True
        replayed_ms = self.clock_ms
        until = boot_ms + self.config.lease_ms
        self.unknown = {uid for uid in self.uids.values() if uid in self.paused}
        for run in self.runs.values():
            self._waits_until(run, run.ready_ms)
            run.waits_boot_ms = boot_ms
            run.delayed = run.origin is Origin.REQUEST and not run.deliveries and run.ready_ms > replayed_ms
        for attempt in self.attempts.values():
            attempt.least_boot_ms, attempt.most_boot_ms = until, until + _LONGEST_LEAD_MS
            attempt.begun_boot_ms, attempt.inherited = boot_ms, True
            attempt.soonest_boot_ms = min(attempt.run.soonest_boot_ms, boot_ms + _LONGEST_LEAD_MS)

    # --- a command ---

    def gathered(self, effects: Iterable[m.Effect]) -> None:
        """Answers that waited for the next append."""
        self._told = set()
        for effect in effects:
            self._effect(effect)

    def handled(self, command: m.Command, output: m.Output, now_ms: int, boot_ms: int) -> None:
        """What came of a command."""
        self.wall_ms, self.now_ms = now_ms, max(self.now_ms, now_ms)
        self.boot_ms = max(self.boot_ms, boot_ms)
        self._command: m.Command = command
        before = {token: attempt.run.number for token, attempt in self.attempts.items()}
        holders = {token: self.workers[attempt.worker] for token, attempt in self.attempts.items()}
        self._to_tell: list[tuple[Hashable, int]] = []
        self._told: set[tuple[Hashable, int]] = set()
        self._hear(command)
        for fact in output.facts:
            self._check(fact, command)
            self.fold(fact)
        self._check_latest(output.facts)
        for effect in output.effects:
            self._effect(effect)
        if isinstance(command, m.PullEnded) and command.request in self.pulls:
            self.broken_off.add(command.request)
            self._pull_over(command.request)
        if isinstance(command, m.WorkerGone):
            live = self.live.get(command.key)
            if live is not None and _is_meant(command, live.seen.instance, live.seen.started_ms):
                del self.live[command.key]
        if isinstance(command, m.Pull):
            self._refused(command, output)
        if isinstance(command, m.Report):
            self._report(command, output, before, holders)
        elif isinstance(command, m.Submit):
            self._submit(command, output)
        elif isinstance(command, m.Pull):
            self._sent_again(command, output, holders)
        elif isinstance(command, m.WorkerGone):
            self._gone(command)
        for request, token in self._to_tell:
            if (request, token) not in self._told:
                self.broken(f"the pull {request!r} is open, and is not told to stop token {token}")
        self._overdue(command)

    def _hear(self, command: m.Command) -> None:
        match command:
            case m.TaskApplied(spec=spec):
                self._applied(spec)
            case m.TaskRemoved(uid=uid, forget=forget):
                spec = self.specs.pop(uid, None) or self.paused.pop(uid, None)
                self.doubtful.add(uid)
                if not forget and spec is not None:
                    self.paused[uid] = spec
            case m.PoolApplied(spec=spec):
                self.silences.setdefault(spec.name, set()).add(spec.silence_ms)
            case m.CatalogSynced():
                self.synced = True
            case m.IntakeHeld(reason=reason):
                self.held = bool(reason)
            case m.LeadSet(lead_ms=lead_ms):
                self.lead_ms = max(self.lead_ms, lead_ms)  # what is near stays near
            case _:
                pass

    def _applied(self, spec: TaskSpec) -> None:
        uid, limit = spec.uid, spec.overlap.max_concurrent
        before = self.most_limits.get(uid, limit)
        self.most_limits[uid] = None if limit is None or before is None else max(limit, before)
        self.paused.pop(uid, None)
        self.unknown.discard(uid)
        self.known.add(uid)
        self.specs[uid] = spec

    # --- facts ---

    def _check_latest(self, facts: Iterable[f.Fact]) -> None:
        """Of what is settled in one step, no older instant takes the place of a later one."""
        fired: set[int] = set()
        for fact in facts:
            match fact:
                case f.Fired(tasks=tasks):
                    fired.update(tasks)
                case f.Armed(task=task):
                    fired.discard(task)
                case f.Skipped(task=task, reason=reason) if task in fired and reason in _NO_ROOM:
                    self.broken(f"{fact}: an older instant has its place")
                case _:
                    pass

    def _spec(self, run: _Run) -> TaskSpec | None:
        uid = self.uids.get(run.task, "")
        return self.specs.get(uid) or self.paused.get(uid)

    def _check(self, fact: f.Fact, command: m.Command) -> None:
        match fact:
            case f.Leased():
                self._check_leased(fact)
            case f.Succeeded(tokens=tokens):
                named = set(command.succeeded) if isinstance(command, m.Report) else set()
                for token in tokens:
                    self._open(token, fact)
                    if token not in named:
                        self.broken(f"{fact}: nobody reported it")
            case f.SucceededWith(token=token, result=result):
                self._open(token, fact)
                if not isinstance(command, m.Report) or (token, result) not in command.results:
                    self.broken(f"{fact}: nobody reported it")
            case f.Returned(tokens=tokens):
                for token in tokens:
                    self._open(token, fact)
                    if not isinstance(command, m.Report) or token not in command.returned:
                        self.broken(f"{fact}: nobody gave it back")
            case f.Failed(token=token):
                self._check_failed(fact, self._open(token, fact), command)
            case f.Undelivered(dispatch=number):
                run = self.runs[number]
                spec = self._spec(run)
                if run.token or spec is None or spec.dispatch_timeout_ms is None:
                    self.broken(f"{fact}: it is leased, or has no dispatch timeout")
                elif self.boot_ms < run.waits_boot_ms + spec.dispatch_timeout_ms:
                    self.broken(f"{fact}: it has not waited {spec.dispatch_timeout_ms} ms")
                elif fact.retry_ms and run.deliveries + 1 > spec.retry.limit:
                    self.broken(f"{fact}: after {run.deliveries + 1} deliveries of {spec.retry.limit + 1}")
            case f.Cancelled(run=number, message=message):
                self._check_cancelled(self.runs[number], message, command)
            case f.CancelAsked(run=number) if self.runs[number].cancelling:
                self.broken(f"{fact}: it was asked to stop before")
            case f.Fired(tasks=tasks):
                for task in tasks:
                    self._check_fired(task, fact.scheduled_ms)
            case f.Backfilled(backfill=backfill, instants=instants):
                for instant in instants:
                    state = self.made_up.get((self.runs[backfill].task, instant))
                    if state in ("open", "ok"):
                        self.broken(f"{fact}: {instant} is made up for twice")
            case f.BackfillEnded(backfill=backfill):
                if self.runs[backfill].open_children:
                    self.broken(f"{fact}: it has open runs")
            case _:
                pass

    def _open(self, token: int, fact: f.Fact) -> _Attempt:
        attempt = self.attempts.get(token)
        if attempt is None:
            self.broken(f"{fact}: no attempt with token {token} is open")
        assert attempt is not None
        return attempt

    def _check_leased(self, fact: f.Leased) -> None:
        key, instance = self.workers[fact.worker]
        live = self.live.get(key)
        for number in fact.dispatches:
            run = self.runs.get(number)
            if run is None:
                self.broken(f"{fact}: run {number} has ended, or never was")
            assert run is not None
            spec = self._spec(run)
            if run.token:
                self.broken(f"{fact}: a worker holds run {number} already")
            if run.cancelling:
                self.broken(f"{fact}: run {number} was asked to stop")
            if run.origin is Origin.SPAN:
                self.broken(f"{fact}: run {number} stands for a backfill")
            if spec is None or self.uids[run.task] in self.unknown:
                self.broken(f"{fact}: nobody knows the task of run {number}")
            assert spec is not None
            if spec.handler not in self._handlers(live, instance) or spec.pool != key.pool:
                self.broken(f"{fact}: {key} has no handler {spec.handler} of pool {spec.pool}")
            if run.deliveries > spec.retry.limit:
                self.broken(f"{fact}: run {number} had {run.deliveries} deliveries of {spec.retry.limit + 1}")
            if self.boot_ms < run.soonest_boot_ms - max(self.lead_ms, 0):
                self.broken(f"{fact}: run {number} is leased {run.soonest_boot_ms - self.boot_ms} ms too early")
            early = self.boot_ms < run.soonest_boot_ms
            if early and live is not None and (live.seen.clock_error_us is None or live.seen.clock_error_us > 10_000):
                self.broken(f"{fact}: run {number} is leased ahead of its time to {key}, which does not know the time")
            self._check_limit(run, spec, fact)
        if live is None or live.pull is None:
            self.broken(f"{fact}: {key} has no open pull")
        assert live is not None
        live.credit -= len(fact.dispatches)
        # What was reserved at a pull goes to the one that replaces it in the same command.
        if live.credit < 0:
            self.broken(f"{fact}: {key} gets {-live.credit} more than it asked for")
        if fact.first_token <= self.last_token:
            self.broken(f"{fact}: token {self.last_token} was given before")

    def _handlers(self, live: _Worker | None, instance: str) -> tuple[str, ...]:
        if live is None or live.seen.instance != instance:
            self.broken(f"{instance} gets leases, but another process has its place, or none")
        assert live is not None
        return live.seen.handlers

    def _check_limit(self, run: _Run, spec: TaskSpec, fact: f.Leased) -> None:
        limit = self.most_limits[spec.uid]
        if limit is None or run.origin is Origin.BACKFILL or spec.uid in self.doubtful:
            return
        group = self._group(run, spec)
        others = set()
        for attempt in self.attempts.values():
            other = self._spec(attempt.run)
            if (
                other is not None
                and other.uid not in self.doubtful
                and self.most_limits[other.uid] is not None
                and attempt.run.origin is not Origin.BACKFILL
                and self._group(attempt.run, other) == group
            ):
                others.add(attempt.run.number)
        first = [n for n in fact.dispatches if n <= run.number and (s := self._spec(self.runs[n])) is not None
                 and self.runs[n].origin is not Origin.BACKFILL and self._group(self.runs[n], s) == group]  # fmt: skip
        if len(others | set(first)) > limit:
            self.broken(f"{fact}: then {sorted(others | set(first))} of {group} are open, of {limit}")

    def _group(self, run: _Run, spec: TaskSpec) -> object:
        if spec.overlap.key is None:
            return spec.uid
        value = msgspec.json.decode(merge(spec.parameters, run.parameters) if run.parameters else spec.parameters)
        return value[spec.overlap.key[1:]]

    def _check_failed(self, fact: f.Failed, attempt: _Attempt, command: m.Command) -> None:
        run, spec = attempt.run, self._spec(attempt.run)
        if fact.reason is f.FailureReason.LOST:
            self._check_lost(fact, attempt, command)
        elif "did not stop it" in fact.message:
            if spec is None or spec.timeout_ms is None:
                self.broken(f"{fact}: its task has no time-out")
            elif self.boot_ms <= attempt.begun_boot_ms + spec.timeout_ms + spec.grace_ms + _STOP_PATIENCE_MS:
                self.broken(f"{fact}: its worker has time left to stop it")
        else:
            reported = command.failed if isinstance(command, m.Report) else []
            if not any(one.token == fact.token for one in reported):
                self.broken(f"{fact}: nobody reported it")
            if (fact.reason is f.FailureReason.TIMEOUT) is not next(
                o.timeout for o in reported if o.token == fact.token
            ):
                self.broken(f"{fact}: reported otherwise")
        uid = self.uids[run.task]
        if run.cancelling:
            self.broken(f"{fact}: it was being cancelled")
        if spec is None or uid in self.unknown or uid in self.doubtful:
            return
        used, allowed = run.deliveries, spec.retry.limit + 1
        if fact.retry_ms and (used >= allowed or spec.guarantee is Guarantee.AT_MOST_ONCE):
            self.broken(f"{fact}: driven again after {used} of {allowed} deliveries ({spec.guarantee})")
        if not fact.retry_ms and used < allowed and spec.guarantee is Guarantee.AT_LEAST_ONCE:
            self.broken(f"{fact}: given up after {used} of {allowed} deliveries")
        if fact.reason is f.FailureReason.LOST and fact.retry_ms > max(self.now_ms, run.ready_ms):
            self.broken(f"{fact}: it waits {fact.retry_ms - self.now_ms} ms, though its worker was lost")
        if fact.retry_ms and fact.retry_ms < self.now_ms:
            self.broken(f"{fact}: the retry lies in the past of {self.now_ms}")
        backoff = spec.retry.backoff
        if fact.retry_ms and fact.reason is not f.FailureReason.LOST and "did not stop it" not in fact.message:
            delay = min(backoff.initial_ms * backoff.factor ** (used - 1), backoff.max_ms)
            if (
                not int(delay)
                <= fact.retry_ms - self.now_ms
                <= max(delay * (1 + backoff.jitter) + 1, run.ready_ms - self.now_ms)
            ):
                self.broken(f"{fact}: the backoff of delivery {used} is {fact.retry_ms - self.now_ms} ms, not {delay}")

    def _check_lost(self, what: object, attempt: _Attempt, command: m.Command) -> None:
        """Somebody said that the worker is gone, it was silent too long, or its lease is over."""
        key, instance = self.workers[attempt.worker]
        match command:
            case m.WorkerGone() if command.key == key:
                if _is_meant(command, instance, self.started[attempt.worker]):
                    return
            case m.Report(worker=seen) | m.Pull(worker=seen) if seen.key == key and seen.instance != instance:
                if not self._is_before(seen, instance, self.started[attempt.worker]):
                    return
            case m.Report(worker=seen, leaving=True) if seen.key == key:
                return
            case _:
                pass
        if attempt.least_boot_ms < self.boot_ms:
            return
        live = self.live.get(key)
        silence = max(min(self.silences.get(key.pool, {10_000}) | {10_000}), self.config.lease_ms // 2)
        if live is not None and live.pull is None and self.boot_ms - live.heard_boot_ms > silence:
            return
        self.broken(
            f"{what}: {instance} was heard, and its lease is valid for {attempt.least_boot_ms - self.boot_ms} ms more"
        )

    def _check_cancelled(self, run: _Run, message: str, command: m.Command) -> None:
        uid = self.uids[run.task]
        deleted = "the task was deleted" in message
        if deleted:
            if isinstance(command, m.TaskRemoved) and command.uid == uid and command.forget:
                return
            if isinstance(command, m.CatalogSynced) and uid not in self.specs and uid not in self.paused:
                return
            self.broken(f"run {run.number} ends since its task was deleted, which it was not")
        if run.token and not run.cancelling:
            self.broken(f"run {run.number} is cancelled, but its worker was not asked to stop it")
        if run.open_children:
            self.broken(f"the backfill {run.number} is cancelled, but has open runs")
        if not run.token:
            return
        attempt = self.attempts[run.token]
        if "was lost" in message or "without a renewal" in message:
            self._check_lost(f"the end of run {run.number}", attempt, command)
        elif isinstance(command, m.Report):
            token = run.token
            if not (
                any(o.token == token for o in command.failed) or token in command.returned or token in command.renew
            ):
                self.broken(f"run {run.number} is cancelled, but its worker has said nothing of token {token}")
        elif not isinstance(command, m.Pull) or command.received >= run.token:
            self.broken(f"run {run.number} is cancelled while a worker has it: {message}")

    def _check_fired(self, task: int, scheduled_ms: int) -> None:
        uid = self.uids[task]
        spec = self.specs.get(uid)
        if spec is None:
            self.broken(f"task {task} ({uid}) fires, but is not valid")
        assert spec is not None
        if spec.suspend:
            self.broken(f"{uid} fires, but is suspended")
        if self.held:
            self.broken(f"{uid} fires, but the intake is held")
        if scheduled_ms > self.now_ms + self.lead_ms + 1_000:
            self.broken(f"{uid} fires {scheduled_ms - self.now_ms} ms ahead")
        if isinstance(spec.after, FixedDelay):
            others = [r.number for r in self.runs.values() if r.task == task and r.origin is Origin.SCHEDULE]
            if others:
                self.broken(f"{uid} has a fixed delay and fires, but {others} are open")

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
            case f.TaskForgotten(task=task):
                if any(run.task == task for run in self.runs.values()):
                    self.broken(f"{fact}: it has open runs")
                del self.uids[task]
            case f.Fired(scheduled_ms=scheduled_ms, first_run=number, tasks=tasks):
                for task in tasks:
                    self._make(_Run(number, task, scheduled_ms, max(scheduled_ms, now), Origin.SCHEDULE))
                    number += 1
            case f.Submitted() | f.Requested():
                origin = fact.origin if isinstance(fact, f.Requested) else Origin.REQUEST
                ready_ms = fact.ready_ms if isinstance(fact, f.Requested) else now
                run = _Run(fact.run, fact.task, fact.scheduled_ms, ready_ms, origin)
                run.key, run.parameters = fact.key, fact.parameters
                run.delayed = origin is Origin.REQUEST and ready_ms > self.now_ms
                self._make(run)
            case f.BackfillStarted():
                run = _Run(fact.run, fact.task, fact.from_ms, now, Origin.SPAN)
                run.key = fact.key
                self._make(run)
            case f.Backfilled(backfill=backfill, first_run=first, instants=instants):
                whole = self.runs[backfill]
                for number, instant in enumerate(instants, start=first):
                    run = _Run(number, whole.task, instant, now, Origin.BACKFILL)
                    run.backfill, run.key = backfill, whole.key
                    whole.open_children += 1
                    self.made_up[whole.task, instant] = "open"
                    self._make(run)
            case f.Skipped(task=task, count=count, reason=reason):
                self.skips[task][reason] += count
                self.counts[task][3] += count
            case f.Recovered(task=task):
                for reason, count, _ in fact.skips:
                    self.skips[task][reason] = max(self.skips[task][reason], count)
                known = zip(self.counts[task], (fact.succeeded, fact.failed, fact.cancelled), strict=False)
                self.counts[task] = [*(max(pair) for pair in known), self.skips[task].total()]
            case f.Armed(task=task):
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
                    attempt = self.attempts[token] = _Attempt(run, worker, self.boot_ms)
                    attempt.least_boot_ms = max(self.boot_ms, attempt.soonest_boot_ms) + self.config.lease_ms
                    attempt.most_boot_ms = self.boot_ms + ahead + self.config.lease_ms
                    attempt.begun_boot_ms = self.boot_ms + ahead
                    self.last_token = max(self.last_token, token)
                    token += 1
            case f.Succeeded(tokens=tokens):
                for token in tokens:
                    self._end(self.attempts[token].run, m.RunState.SUCCEEDED)
            case f.SucceededWith(token=token):
                self._end(self.attempts[token].run, m.RunState.SUCCEEDED)
            case f.Failed(token=token, retry_ms=retry_ms):
                run = self.attempts[token].run
                self._again(run, retry_ms)
                if not retry_ms:
                    self._end(run, m.RunState.FAILED)
            case f.Returned(tokens=tokens):
                for token in tokens:
                    run = self.attempts[token].run
                    run.deliveries -= 1
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

    def _must_tell(self, run: _Run) -> None:
        """Its worker must stop, and hears of it at once if it waits."""
        if not self.leads or not run.token:
            return
        key, instance = self.workers[run.worker]
        live = self.live.get(key)
        waits = live is not None and live.seen.instance == instance and live.pull is not None
        if waits and live is not None and not any(request == live.pull for request, _ in self._to_tell):
            self._to_tell.append((live.pull, run.token))

    def _make(self, run: _Run) -> None:
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

    def _waits_until(self, run: _Run, ready_ms: int) -> None:
        """It may be leased from this instant on, as the clocks stand now."""
        run.ready_ms = ready_ms
        latest = ready_ms
        spec = self._spec(run)
        if spec is not None and spec.jitter_ms and run.origin in (Origin.SCHEDULE, Origin.COMPLETION):
            missed = run.made_ms - run.scheduled_ms > self.config.misfire_threshold_ms
            since_ms, most_ms = run.made_ms if missed else run.scheduled_ms, spec.jitter_ms
            if spec.trigger is not None and (following := spec.trigger.next_after(since_ms)) is not None:
                most_ms = min(most_ms, following - since_ms - 1)
            latest = max(ready_ms, since_ms + jitter_ms(spec.uid, since_ms, most_ms))
        run.soonest_boot_ms = self.boot_ms + max(0, ready_ms - self.now_ms)
        run.due_boot_ms = self.boot_ms + max(0, latest - self.now_ms)
        run.waits_boot_ms = run.soonest_boot_ms

    def _again(self, run: _Run, ready_ms: int) -> None:
        attempt = self.attempts.pop(run.token, None)
        run.token = 0
        self._waits_until(run, ready_ms)
        if attempt is not None:  # it may have been leased ahead of its instant
            latest = self.boot_ms + _LONGEST_LEAD_MS if attempt.inherited else run.soonest_boot_ms
            run.soonest_boot_ms = max(min(run.soonest_boot_ms, latest), attempt.soonest_boot_ms)
            run.due_boot_ms = max(run.due_boot_ms, run.soonest_boot_ms)
        if not ready_ms:
            run.waits_boot_ms = self.boot_ms

    def _end(self, run: _Run, state: m.RunState) -> None:
        del self.runs[run.number]
        self.attempts.pop(run.token, None)
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

    # --- effects ---

    def _effect(self, effect: m.Effect) -> None:
        if not isinstance(effect, m.Pulled):
            return
        request = effect.request
        if request in self.broken_off:
            self.broken(f"the pull {request!r} is answered, but broke off")
        if request in self.answered:
            self.broken(f"the pull {request!r} is answered twice")
        self.answered.add(request)
        self._told |= {(request, token) for token in effect.cancel}
        tokens = [delivery.token for delivery in effect.deliveries]
        if len(set(tokens)) < len(tokens):
            self.broken(f"the pull {request!r} is answered with a token twice: {tokens}")
        key = self.pulls.get(request)
        for delivery in effect.deliveries:
            attempt = self.attempts.get(delivery.token)
            if attempt is None:
                continue  # it ended in this very command
            if key is not None and self.workers[attempt.worker][0] != key:
                self.broken(f"{key} gets token {delivery.token}, which another worker holds")
            ahead = attempt.soonest_boot_ms - self.boot_ms
            if ahead > 2 and not delivery.not_before_ms >= self.wall_ms + ahead - 2:
                self.broken(f"token {delivery.token} starts in {ahead} ms, and is told {delivery.not_before_ms}")
            if delivery.attempt != attempt.run.deliveries:
                self.broken(f"token {delivery.token} is called delivery {delivery.attempt} of {attempt.run.deliveries}")
            spec = self._spec(attempt.run)
            if spec is not None:
                wanted = merge(spec.parameters, attempt.run.parameters) if attempt.run.parameters else spec.parameters
                if attempt.run.origin is not Origin.BACKFILL and delivery.parameters != wanted:
                    self.broken(f"token {delivery.token} comes with {delivery.parameters!r}, not {wanted!r}")
        self._check_patience(effect, key)
        self._pull_over(request)

    def _check_patience(self, effect: m.Pulled, key: m.WorkerKey | None) -> None:
        """Nothing comes before the time is up, unless there is something to say or the worker has moved on."""
        live = self.live.get(key) if key is not None else None
        if effect.deliveries or effect.cancel or live is None or live.pull != effect.request:
            return
        match self._command:
            case m.Pull(worker=seen) | m.Report(worker=seen) if seen.key == key:
                return
            case m.WorkerGone(key=gone) if gone == key:
                return
            case _:
                pass
        if self.boot_ms < live.until_boot_ms:
            self.broken(f"the pull {effect.request!r} is answered {live.until_boot_ms - self.boot_ms} ms too early")

    def _pull_over(self, request: Hashable) -> None:
        key = self.pulls.pop(request, None)
        live = self.live.get(key) if key is not None else None
        if live is not None and live.pull == request:
            live.pull = None
            live.heard_boot_ms = self.boot_ms

    def pulled(self, command: m.Pull, now_ms: int, boot_ms: int) -> None:
        """Just before a pull is handled."""
        before = self.live.get(command.worker.key)
        same = before is not None and before.seen.instance == command.worker.instance
        if same and before is not None and 0 < command.sequence <= before.last_pull:
            self.outrun.add(command.request)
            self.pulls[command.request] = command.worker.key  # a later one came first: it is answered at once
            return
        self.displaced, self.outlived = before, self._is_outlived(command.worker)
        live = self.heard(command.worker, max(boot_ms, self.boot_ms))
        live.last_pull, live.certain = command.sequence, True
        live.seen, live.pull = command.worker, command.request
        live.until_boot_ms = max(boot_ms, self.boot_ms) + max(0, command.until_ms - now_ms)
        live.credit = 0 if command.worker.draining else min(command.free, self.config.max_leases_per_pull)
        self.pulls[command.request] = command.worker.key

    def reported(self, seen: m.WorkerSeen, boot_ms: int, leaving: bool) -> None:
        """Just after a report was handled: last words of a process that was replaced are no sign of life."""
        if self._is_outlived(seen):
            return
        if leaving:
            self.live.pop(seen.key, None)
        else:
            self.heard(seen, max(boot_ms, self.boot_ms))

    def _refused(self, command: m.Pull, output: m.Output) -> None:
        """A late pull of a process that was replaced is refused, and nothing is as if it had come."""
        if not any(isinstance(e, m.CommandRefused) and e.request == command.request for e in output.effects):
            return
        if not self.outlived:
            self.broken(f"{command.worker.instance} is refused, and no later process is known")
        self.pulls.pop(command.request, None)
        if self.displaced is None:
            self.live.pop(command.worker.key, None)
        else:
            self.live[command.worker.key] = self.displaced

    def _is_outlived(self, seen: m.WorkerSeen) -> bool:
        live = self.live.get(seen.key)
        if live is not None:
            other = live.seen
            return other.instance != seen.instance and self._is_before(seen, other.instance, other.started_ms)
        return any(
            key == seen.key and instance != seen.instance and self._is_before(seen, instance, self.started[number])
            for number, (key, instance) in self.workers.items()
            if any(attempt.worker == number for attempt in self.attempts.values())
        )

    def _is_before(self, seen: m.WorkerSeen, instance: str, started_ms: int) -> bool:
        """Whether the process that speaks surely began before the other one of its place."""
        numbers = {process: number for number, process in self.workers.items() if number in self.remembered}
        mine, its = numbers.get((seen.key, seen.instance), 0), numbers.get((seen.key, instance), 0)
        return mine < its if mine and its else 0 < seen.started_ms < started_ms

    def heard(self, seen: m.WorkerSeen, boot_ms: int) -> _Worker:
        live = self.live.get(seen.key)
        if live is None or live.seen.instance != seen.instance:
            live = self.live[seen.key] = _Worker(seen)
        elif boot_ms - live.heard_boot_ms > 1_000:
            live.certain = False
        live.heard_boot_ms = boot_ms
        return live

    # --- answers ---

    def _report(
        self, command: m.Report, output: m.Output, before: dict[int, int], holders: dict[int, tuple[m.WorkerKey, str]]
    ) -> None:
        answer = next((e for e in output.effects if isinstance(e, m.Reported)), None)
        if answer is None:
            self.broken("a report is not answered")
        assert answer is not None
        ends = [*command.succeeded, *(t for t, _ in command.results), *(o.token for o in command.failed),
                *command.returned]  # fmt: skip
        fenced = set(answer.fenced)
        seen = (command.worker.key, command.worker.instance)
        lost = {fact.token for fact in output.facts if isinstance(fact, f.Failed)}
        for token in [*ends, *command.renew]:
            run = self.runs.get(before.get(token, 0))
            if token not in before and token not in fenced:
                self.broken(f"{seen} reports token {token}, which is not open, and is not fenced")
            if token in before and holders[token] != seen and token not in fenced:
                self.broken(f"{seen} reports token {token} of {holders[token]}, and is not fenced")
            open_still = token in before and token not in lost and token in self.attempts
            if token in fenced and open_still and self.workers[self.attempts[token].worker] == seen:
                self.broken(f"{seen} holds token {token}, and is fenced")
            if token in ends and token not in fenced and token in self.attempts:
                self.broken(f"{seen} was told that the end of token {token} is durable, and it is open")
            if token in command.renew and token in self.attempts and token not in fenced:
                attempt = self.attempts[token]
                attempt.least_boot_ms = max(self.boot_ms, attempt.soonest_boot_ms) + self.config.lease_ms
                attempt.most_boot_ms = max(self.boot_ms, attempt.begun_boot_ms) + self.config.lease_ms
                if run is not None and run.cancelling and token not in answer.cancel:
                    self.broken(f"{seen} renews token {token}, and is not told to stop it")
                spec = self._spec(attempt.run)
                limit = spec.timeout_ms if spec is not None and attempt.run.task in self.uids else None
                begun = attempt.begun_boot_ms + (_LONGEST_LEAD_MS if attempt.inherited else 0)
                over = begun + (limit or 0) + (spec.grace_ms if spec else 0) + _STOP_PATIENCE_MS
                if (
                    limit is not None
                    and self.uids[attempt.run.task] in self.specs
                    and self.boot_ms > over + self._sweep_ms
                ):
                    self.broken(f"token {token} is renewed {self.boot_ms - over} ms after its worker should stop it")

    def _sent_again(self, command: m.Pull, output: m.Output, holders: dict[int, tuple[m.WorkerKey, str]]) -> None:
        """What the worker has not received is sent again, and nothing else."""
        refused = any(isinstance(e, m.CommandRefused) and e.request == command.request for e in output.effects)
        if refused or command.request in self.outrun:
            return
        seen = (command.worker.key, command.worker.instance)
        wanted = {
            token
            for token, holder in holders.items()
            if holder == seen and token in self.attempts and token > command.received
            and not self.attempts[token].run.cancelling and self.uids[self.attempts[token].run.task] in self.known
        }  # fmt: skip
        got = [d.token for e in output.effects if isinstance(e, m.Pulled) and e.request == command.request
               for d in e.deliveries]  # fmt: skip
        if wanted - set(got):
            self.broken(f"{command.worker.instance} has not received {sorted(wanted)}, and is sent {got}")
        if again := {token for token in got if token in holders} - wanted:
            self.broken(f"{command.worker.instance} is sent {sorted(again)} again, and has received {command.received}")

    def _gone(self, command: m.WorkerGone) -> None:
        for token, attempt in self.attempts.items():
            key, instance = self.workers[attempt.worker]
            if key == command.key and _is_meant(command, instance, self.started[attempt.worker]):
                self.broken(f"token {token} is open with {instance}, whose pod is gone")

    def resent(self, tokens: Iterable[int]) -> None:
        """Leases that a pull got again: they last from now on."""
        for token in tokens:
            if (attempt := self.attempts.get(token)) is not None:
                attempt.most_boot_ms = max(
                    attempt.most_boot_ms, max(self.boot_ms, attempt.begun_boot_ms) + self.config.lease_ms
                )

    def _submit(self, command: m.Submit, output: m.Output) -> None:
        made = {fact.key for fact in output.facts if isinstance(fact, f.Submitted | f.Requested)
                and not (isinstance(fact, f.Requested) and fact.origin is not Origin.REQUEST)}  # fmt: skip
        answer = output.effects[-1] if output.effects else None
        for effect in output.effects:
            if isinstance(effect, m.Submitted | m.CommandRefused) and effect.request == command.request:
                answer = effect
        if isinstance(answer, m.CommandRefused):
            if made:
                self.broken(f"{command} was refused, and made {made}")
        elif isinstance(answer, m.Submitted):
            for wanted, run in zip(command.runs, answer.runs, strict=True):
                if run.created is not (wanted.key in made):
                    self.broken(f"the key {wanted.key}: created={run.created}, and made are {made}")
                known = run.run_id in self.keys or run.run_id in self.ended
                if not known:
                    self.broken(f"{run.run_id} was acknowledged, and is not there")
                if run.state.is_final and self.ended.get(run.run_id) != run.state:
                    self.broken(f"{run.run_id} is called {run.state}, and is {self.ended.get(run.run_id)}")
        else:
            self.broken(f"{command} has no answer")

    # --- what should have happened ---

    def _overdue(self, command: m.Command) -> None:
        if not self.synced:
            return
        for token, attempt in self.attempts.items():
            if (
                attempt.most_boot_ms + self._sweep_ms + 1 < self.boot_ms
                and self.uids[attempt.run.task] not in self.paused
            ):
                self.broken(f"token {token} is open {self.boot_ms - attempt.most_boot_ms} ms after its lease")
            key, instance = self.workers[attempt.worker]
            if (live := self.live.get(key)) is not None and live.seen.instance != instance:
                self.broken(f"token {token} is open with {instance}, whose place {live.seen.instance} has")
        for request, key in self.pulls.items():
            live = self.live.get(key)
            if live is None or live.pull != request:
                self.broken(f"the pull {request!r} of {key} was followed by another, and is open")
            elif live.until_boot_ms + self._sweep_ms + 1 < self.boot_ms:
                self.broken(f"the pull {request!r} is open {self.boot_ms - live.until_boot_ms} ms after its time")
        for live in self.live.values():
            if live.pull is None or live.credit <= 0 or live.seen.draining:
                continue
            for run in self.runs.values():
                if self._could_take(live, run):
                    self.broken(f"run {run.number} waits, and {live.seen.key.name} waits for work ({command})")

    def _could_take(self, live: _Worker, run: _Run) -> bool:
        uid = self.uids[run.task]
        spec = self.specs.get(uid)
        return (
            spec is not None
            and not run.token
            and run.origin not in (Origin.SPAN, Origin.BACKFILL)
            and spec.overlap.max_concurrent is None
            and self.most_limits[uid] is None
            and spec.pool == live.seen.key.pool
            and spec.handler in live.seen.handlers
            and run.due_boot_ms < self.boot_ms
        )
