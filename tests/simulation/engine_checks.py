"""Whether each fact was right: asked just before it is folded."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from tests.simulation.engine_fold import Attempt, Fold, Run, Worker, is_meant

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.parameters import merge
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import Guarantee, TaskSpec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["STOP_PATIENCE_MS", "FactChecks"]

STOP_PATIENCE_MS = 120_000
_NO_ROOM = (f.SkipReason.OVERLAP, f.SkipReason.QUEUE_FULL, f.SkipReason.BACKLOG)


class FactChecks(Fold):
    """The account, with what it asks of facts."""

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
            case f.Backfilled(backfill=backfill, until_ms=until_ms, instants=instants):
                if until_ms >= self.runs[backfill].to_ms:
                    self.broken(f"{fact}: that is beyond the end of its span, {self.runs[backfill].to_ms}")
                for instant in instants:
                    state = self.made_up.get((self.runs[backfill].task, instant))
                    if state in ("open", "ok"):
                        self.broken(f"{fact}: {instant} is made up for twice")
            case f.BackfillEnded(backfill=backfill):
                if self.runs[backfill].open_children:
                    self.broken(f"{fact}: it has open runs")
            case _:
                pass

    def _open(self, token: int, fact: f.Fact) -> Attempt:
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
            self._settle_wait(run)
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

    def _handlers(self, live: Worker | None, instance: str) -> tuple[str, ...]:
        if live is None or live.seen.instance != instance:
            self.broken(f"{instance} gets leases, but another process has its place, or none")
        assert live is not None
        return live.seen.handlers

    def _check_limit(self, run: Run, spec: TaskSpec, fact: f.Leased) -> None:
        """Whoever had a place when its task was applied keeps it, though there may be more of them than the limit."""
        limit = spec.overlap.max_concurrent
        if limit is None or run.placed or run.origin is Origin.BACKFILL:
            return
        group = self._group(run, spec)
        leased = {number for number in fact.dispatches if number <= run.number}
        inside = []
        for other in self.runs.values():
            its = self._spec(other)
            if (
                (other.number in leased or other.token or (other.placed and self.uids[other.task] not in self.unknown))
                and its is not None
                and its.overlap.max_concurrent is not None
                and other.origin is not Origin.BACKFILL
                and self._group(other, its) == group
            ):
                inside.append(other.number)
        if len(inside) > limit:
            self.broken(f"{fact}: then {inside} of {group} are open, of {limit}")

    def _group(self, run: Run, spec: TaskSpec) -> object:
        if spec.overlap.key is None:
            return spec.uid
        value = msgspec.json.decode(merge(spec.parameters, run.parameters) if run.parameters else spec.parameters)
        return value[spec.overlap.key[1:]]

    def _check_failed(self, fact: f.Failed, attempt: Attempt, command: m.Command) -> None:
        run, spec = attempt.run, self._spec(attempt.run)
        if fact.reason is f.FailureReason.LOST:
            self._check_lost(fact, attempt, command)
        elif "did not stop it" in fact.message:
            if spec is None or spec.timeout_ms is None:
                self.broken(f"{fact}: its task has no time-out")
            elif self.boot_ms <= attempt.begins_boot_ms + spec.timeout_ms + spec.grace_ms + STOP_PATIENCE_MS:
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
        if spec is None or uid in self.unknown:
            return
        used, allowed = run.deliveries, spec.retry.limit + 1
        if fact.retry_ms and (used >= allowed or spec.guarantee is Guarantee.AT_MOST_ONCE):
            self.broken(f"{fact}: driven again after {used} of {allowed} deliveries ({spec.guarantee})")
        if not fact.retry_ms and used < allowed and spec.guarantee is Guarantee.AT_LEAST_ONCE:
            self.broken(f"{fact}: given up after {used} of {allowed} deliveries")
        # What was leased ahead of its start, which the jitter moves too, waits for that first.
        start_ms = max(self.now_ms, run.ready_ms, self.now_ms + run.due_boot_ms - self.boot_ms)
        if fact.reason is f.FailureReason.LOST and fact.retry_ms > start_ms:
            self.broken(f"{fact}: it waits {fact.retry_ms - self.now_ms} ms, though its worker was lost")
        if fact.retry_ms and fact.retry_ms < self.now_ms:
            self.broken(f"{fact}: the retry lies in the past of {self.now_ms}")
        if fact.retry_ms and (delay_ms := self._backoff_ms(run, fact)):
            most_ms = max(delay_ms * (1 + spec.retry.backoff.jitter) + 2, start_ms - self.now_ms)
            if not delay_ms <= fact.retry_ms - self.now_ms <= most_ms:
                waits = f"{fact.retry_ms - self.now_ms} ms, not {delay_ms}"
                self.broken(f"{fact}: the backoff of delivery {used} is {waits}")

    def _check_lost(self, what: object, attempt: Attempt, command: m.Command) -> None:
        """Somebody said that the worker is gone, it was silent too long, or its lease is over."""
        key, instance = self.workers[attempt.worker]
        match command:
            case m.WorkerGone() if command.key == key:
                if is_meant(command, instance, self.started[attempt.worker]):
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

    def _check_cancelled(self, run: Run, message: str, command: m.Command) -> None:
        uid = self.uids[run.task]
        deleted = "the task was deleted" in message
        if deleted:
            if isinstance(command, m.TaskRemoved) and command.uid == uid and command.forget:
                return
            self.broken(f"run {run.number} ends since its task was deleted, which it was not")
        if isinstance(command, m.TaskAbandoned):
            if command.uid != uid or self.synced:
                self.broken(f"run {run.number} of {uid} ends with {command}, synced={self.synced}")
            return
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
        # A fixed delay lasts by the boot clock: where the wall clock was set back, its instants go on.
        is_delay = isinstance(spec.source, FixedDelay)
        most_ms = max(self.now_ms, self.settled[task] + 1) if is_delay else self.wall_ms + self.lead_ms
        if scheduled_ms > most_ms:
            self.broken(f"{uid} fires {scheduled_ms - most_ms} ms ahead")
        if isinstance(spec.source, FixedDelay):
            rested_ms = self.boot_ms - self.rests.get(task, self.boot_ms - spec.source.delay_ms)
            if rested_ms < spec.source.delay_ms:
                self.broken(f"{uid} fires {rested_ms} ms after its last run, not {spec.source.delay_ms}")
            others = [r.number for r in self.runs.values() if r.task == task and r.origin is Origin.SCHEDULE]
            if others:
                self.broken(f"{uid} has a fixed delay and fires, but {others} are open")
