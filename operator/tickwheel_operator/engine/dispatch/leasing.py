"""Attempts: leased to workers, renewed, reported and lost.

An attempt is open from its `Leased` fact to the fact that ends it. Only the worker that holds it may report it, and
only while it is open: any other report is fenced. Whoever is silent too long, or does not renew, loses it.
"""

from __future__ import annotations

from tickwheel_operator.engine.dispatch.failures import Failures
from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.dispatch.succession import Succession, is_meant
from tickwheel_operator.engine.dispatch.waiting import Waiting
from tickwheel_operator.engine.dispatch.worker import LiveWorker
from tickwheel_operator.engine.messages import (
    CommandRefused,
    Delivery,
    Effect,
    Pull,
    Pulled,
    PullEnded,
    RefusalReason,
    Report,
    Reported,
    WorkerGone,
    WorkerSeen,
)
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.parameters import merge
from tickwheel_operator.engine.model.runs import Dispatch, Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.spec import EngineConfig, TaskSpec
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.ledger import facts as f

__all__ = ["Leasing"]

_STOP_PATIENCE_MS = 120_000
"""Beyond timeout and grace: a worker that must end itself to stop a handler lets the others finish first."""
_CLOCK_GRAIN_MS = 2
_LONGEST_AHEAD_MS = 2_000


class Leasing:
    """Owns the workers' pulls and reports."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        router: Router,
        scheduler: Scheduler,
        waiting: Waiting,
        stats: Stats,
        config: EngineConfig,
    ) -> None:
        self._journal = journal
        self._state = state
        self._router = router
        self._scheduler = scheduler
        self._waiting = waiting
        self._stats = stats
        self._config = config
        self._succession = Succession(state, router)
        self._failures = Failures(journal, state, scheduler, waiting, stats, config)
        self._pulls: dict[object, LiveWorker] = {}
        self.gathers = False
        """Leases of several commands go into one answer of a pull, which `answer` gives."""
        self._gathered: dict[LiveWorker, list[Delivery]] = {}
        self._soonest_boot_ms = 0
        """When the first of what is gathered may start."""

    # --- workers ---

    def _meet(self, seen: WorkerSeen, effects: list[Effect]) -> LiveWorker:
        """The live worker that speaks. A new process in a worker's place means that the old one is gone."""
        worker = self._router.find(seen.key)
        if worker is not None and worker.instance != seen.instance:
            self._lose(worker, "another process took the worker's place", effects)
            worker = None
        if worker is None:
            worker = self._router.join(seen, self._journal.boot_ms)
            number = self._state.number_of(seen.key, seen.instance)
            worker.number = number
            self._lose_predecessors(seen, number)
            if number:
                # What a leader before has asked it to stop, it may not have heard.
                worker.cancelled = [d.token for d in self._state.attempts_of(number) if d.run.cancelling is not None]
        worker.seen_ms = self._journal.boot_ms
        return worker

    def _lose_predecessors(self, seen: WorkerSeen, number: int) -> None:
        """Attempts that an earlier process of this place holds, as the ledger tells a new leader."""
        for other in self._state.processes(seen.key):
            if other != number:
                self._failures.lose_all(other, "another process took the worker's place")

    def gone(self, command: WorkerGone, effects: list[Effect]) -> None:
        worker = self._router.find(command.key)
        if worker is not None and is_meant(command, worker.name):
            self._lose(worker, "its pod is gone", effects)
        for number in self._state.processes(command.key):
            if is_meant(command, self._state.workers[number]):
                self._failures.lose_all(number, "its pod is gone")

    def _lose(self, worker: LiveWorker, why: str, effects: list[Effect]) -> None:
        self._answer(worker, [], effects)
        self._router.leave(worker)
        self._failures.lose_all(worker.number, why)

    # --- pulls ---

    def pull(self, command: Pull, effects: list[Effect]) -> None:
        if self._is_outrun(command):
            effects.append(Pulled(request=command.request))
            return
        if successor := self._succession.successor(command.worker):
            detail = (
                f"a later process ({successor}) has the place of worker {command.worker.key.name}, or holds its work"
            )
            effects.append(CommandRefused(request=command.request, reason=RefusalReason.NOT_READY, detail=detail))
            return
        worker = self._meet(command.worker, effects)
        worker.last_pull = command.sequence
        self._answer(worker, [], effects)
        self._router.update(worker, command.worker)
        lost_on_the_way = []
        if command.received < worker.last_token or worker.last_token == 0:
            lost_on_the_way = [d for d in self._state.attempts_of(worker.number) if d.token > command.received]
        worker.last_token = max([worker.last_token, *(d.token for d in lost_on_the_way)])
        again = []
        for dispatch in lost_on_the_way:
            if dispatch.run.cancelling is not None:
                # Only the worker knows whether it has it: an answer that holds the lease may still be on its way.
                if dispatch.token not in worker.cancelled:
                    worker.cancelled.append(dispatch.token)
                continue
            dispatch.lease_until_ms = self._lease_end(dispatch)
            if self._scheduler.knows(dispatch.run.task):
                again.append(dispatch)
            else:
                # Invalid since before this leader led: nobody knows the handler. The attempt is kept for the worker
                # until it pulls again, and sent when the task is mended.
                dispatch.lease_until_ms = max(dispatch.lease_until_ms, self._boot(command) + self._config.lease_ms)
        if again:
            deliveries = [self._delivery(d) for d in again]
            effects.append(Pulled(request=command.request, deliveries=deliveries, cancel=worker.take_cancelled()))
            return
        credit = 0 if command.worker.draining else min(command.free, self._config.max_leases_per_pull)
        self._pulls[command.request] = worker
        self._router.wait(worker, command.request, credit, self._boot(command), command.free)
        if worker.cancelled:
            self._answer(worker, [], effects)

    def _is_outrun(self, command: Pull) -> bool:
        """Whether the same process has sent a later pull, which came first: this one says what was true before."""
        worker = self._router.find(command.worker.key)
        return (
            worker is not None
            and worker.instance == command.worker.instance
            and 0 < command.sequence <= worker.last_pull
        )

    def _boot(self, command: Pull) -> int:
        """When the pull's time is up, by the boot clock."""
        return self._journal.boot_ms + max(0, command.until_ms - self._journal.wall_ms)

    def _lease_end(self, dispatch: Dispatch) -> int:
        """Of a lease from now on, or from its instant where that is ahead."""
        return max(self._journal.boot_ms, dispatch.starts_boot_ms) + self._config.lease_ms

    def end_pull(self, command: Pull, effects: list[Effect]) -> None:
        """The time of a pull is up."""
        worker = self._pulls.get(command.request)
        if worker is not None and worker.request == command.request:
            self._answer(worker, [], effects)

    def pull_ended(self, command: PullEnded) -> None:
        worker = self._pulls.pop(command.request, None)
        if worker is not None and worker.request == command.request:
            self._gathered.pop(worker, None)  # sent again with the next pull
            self._stop_waiting(worker)

    def _answer(self, worker: LiveWorker, deliveries: list[Delivery], effects: list[Effect]) -> None:
        """Answer the worker's open pull, if it has one."""
        if worker.request is None:
            return
        deliveries = self._gathered.pop(worker, deliveries)
        self._pulls.pop(worker.request, None)
        effects.append(Pulled(request=worker.request, deliveries=deliveries, cancel=worker.take_cancelled()))
        self._stop_waiting(worker)

    def _stop_waiting(self, worker: LiveWorker) -> None:
        """Its pull is answered or gone. Only from now on is it the worker's turn to speak."""
        worker.seen_ms = self._journal.boot_ms
        self._router.stop_waiting(worker)

    def deal(self, effects: list[Effect]) -> None:
        """Lease what waits to who waits."""
        state, journal = self._state, self._journal
        now = journal.now_ms
        for dispatch in self._router.take_stranded():
            if dispatch.ready_ms >= 0:  # it has not ended meanwhile
                self._waiting.ready(dispatch)
        for worker, dispatches in self._router.deal().items():
            if not dispatches:
                continue
            if worker.number not in state.workers:
                key = worker.key
                worker.number = state.next_worker
                name = (key.namespace, key.pool, key.name, worker.instance, worker.started_ms, worker.pod_uid)
                journal.emit(f.WorkerNamed(worker.number, *name))
            journal.emit(f.Leased(worker.number, state.next_token, [d.number for d in dispatches]))
            until = journal.boot_ms + self._config.lease_ms
            observe = self._stats.dispatch_latency.observe
            for dispatch in dispatches:
                ahead = (dispatch.due_boot_ms or 0) - journal.boot_ms
                self._waiting.leased(dispatch)
                dispatch.leased_boot_ms = journal.boot_ms
                if ahead > 0:
                    dispatch.starts_boot_ms = journal.boot_ms + ahead
                    dispatch.lease_until_ms = until + ahead
                    self._stats.early_leases += 1
                    observe(0)
                else:
                    dispatch.starts_boot_ms = 0
                    dispatch.lease_until_ms = until
                    observe(max(0, now - dispatch.ready_ms))
            worker.last_token = state.next_token - 1
            self._stats.leases += len(dispatches)
            deliveries = [self._delivery(d) for d in dispatches]
            if not self.gathers:
                self._answer(worker, deliveries, effects)
                continue
            soonest = min(d.starts_boot_ms for d in dispatches)
            self._soonest_boot_ms = min(self._soonest_boot_ms, soonest) if self._gathered else soonest
            if worker in self._gathered:
                self._gathered[worker] += deliveries
            else:
                self._gathered[worker] = deliveries

    def answers_within(self, ahead_ms: int) -> bool:
        """Whether leases wait for `answer` that start now, or so many milliseconds from now at the latest."""
        return bool(self._gathered) and self._soonest_boot_ms <= self._journal.boot_ms + ahead_ms

    def answer(self, effects: list[Effect]) -> None:
        """Answer the pulls that got leases."""
        for worker in list(self._gathered):
            self._answer(worker, [], effects)

    def _delivery(self, dispatch: Dispatch) -> Delivery:
        run = dispatch.run
        spec = self._spec(dispatch)
        parameters = merge(spec.parameters, run.parameters) if run.parameters else spec.parameters
        not_before = self._not_before(dispatch) if dispatch.starts_boot_ms else 0
        return Delivery(dispatch.token, run.id, spec, run.scheduled_ms, dispatch.attempts, parameters, not_before)

    def _not_before(self, dispatch: Dispatch) -> int:
        """The start of an early lease by the real wall clock, which the worker goes by: the instant itself, unless the
        clock was set meanwhile. (Both clocks are whole milliseconds, so that they may seem to differ by one.)"""
        journal = self._journal
        ahead_ms = dispatch.starts_boot_ms - journal.boot_ms
        if ahead_ms <= 0:
            return 0
        start_ms = journal.wall_ms + ahead_ms
        return dispatch.ready_ms if abs(start_ms - dispatch.ready_ms) <= _CLOCK_GRAIN_MS else start_ms

    def _spec(self, dispatch: Dispatch) -> TaskSpec:
        return self._scheduler.spec(dispatch.run.task)

    # --- reports ---

    def report(self, command: Report, effects: list[Effect]) -> None:
        if self._succession.successor(command.worker):
            self._fence_all(command, effects)
            return
        if detail := self._failures.undecided(command.failed):
            effects.append(CommandRefused(request=command.request, reason=RefusalReason.NOT_READY, detail=detail))
            return
        worker = self._meet(command.worker, effects)
        state, number, now = self._state, worker.number, self._journal.now_ms
        attempts, stats = state.attempts, self._stats
        fenced: list[int] = []
        done: list[int] = []
        for token in command.succeeded:
            dispatch = attempts.get(token)
            if dispatch is None or dispatch.worker != number:
                fenced.append(token)
            else:
                done.append(token)
                stats.attempt_duration.observe(now - dispatch.leased_ms)
        if done:
            self._succeed(list(dict.fromkeys(done)))
        for token, result in command.results:
            if (dispatch := self._held(token, number, fenced)) is not None:
                stats.attempt_duration.observe(now - dispatch.leased_ms)
                self._journal.emit(f.SucceededWith(token, result))
        for failed in command.failed:
            if (dispatch := self._held(failed.token, number, fenced)) is not None:
                stats.attempt_duration.observe(now - dispatch.leased_ms)
                self._failures.reported(dispatch, failed)
        # A token that is named twice is given back once: the fact must fit the state.
        returned = [t for t in dict.fromkeys(command.returned) if self._held(t, number, fenced) is not None]
        if returned:
            back = [attempts[token] for token in returned]
            self._journal.emit(f.Returned(returned))
            for dispatch in back:
                if dispatch.run.cancelling is None:
                    self._waiting.ready(dispatch)
                else:
                    self._journal.emit(f.Cancelled(dispatch.run.number, dispatch.run.cancelling))
        stopping = []
        for token in command.renew:
            if (dispatch := self._held(token, number, fenced)) is not None:
                self._renew(dispatch, fenced)
                if dispatch.run.cancelling is not None and dispatch.token:
                    stopping.append(token)  # the answer that said it first may have been lost
        told = worker.take_cancelled()  # the end of an overdue one may just have stopped another
        told += [token for token in dict.fromkeys(stopping) if token not in told]
        for token, fraction, note in command.progress:
            progressing = attempts.get(token)
            if progressing is not None and progressing.worker == number:
                progressing.fraction = fraction
                progressing.note = note
                state.touched[progressing.run.task] = None
        stats.fenced += len(fenced)
        effects.append(Reported(request=command.request, fenced=fenced, cancel=told))
        if command.leaving:
            self._lose(worker, "it said that it leaves", effects)

    def _succeed(self, tokens: list[int]) -> None:
        """One fact for all, but for those that others follow: what follows from an end stands right behind it."""
        attempts = self._state.attempts
        watched = [token for token in tokens if attempts[token].run.task.watched]
        if watched:
            apart = set(watched)
            tokens = [token for token in tokens if token not in apart]
        if tokens:
            self._journal.emit(f.Succeeded(tokens))
        for token in watched:
            if token in attempts:
                self._journal.emit(f.Succeeded([token]))

    def _fence_all(self, command: Report, effects: list[Effect]) -> None:
        """The answer to a process that was replaced: all that it held was lost when the later one came."""
        self._stats.fenced += len(command.tokens)
        effects.append(Reported(request=command.request, fenced=command.tokens, cancel=[]))

    def _held(self, token: int, worker: int, fenced: list[int]) -> Dispatch | None:
        dispatch = self._state.attempts.get(token)
        if dispatch is None or dispatch.worker != worker or not worker:
            fenced.append(token)
            return None
        return dispatch

    def _renew(self, dispatch: Dispatch, fenced: list[int]) -> None:
        spec, now = self._spec(dispatch), self._journal.boot_ms
        limit = spec.timeout_ms
        begun = max(dispatch.leased_boot_ms, dispatch.starts_boot_ms)
        if limit is not None and now > begun + limit + spec.grace_ms + _STOP_PATIENCE_MS:
            fenced.append(dispatch.token)
            self._failures.fail(
                dispatch,
                f.FailureReason.TIMEOUT,
                message="its worker did not stop it at spec.delivery.timeout",
            )
        else:
            dispatch.lease_until_ms = self._lease_end(dispatch)

    # --- runs that must stop ---

    def cancel(self, run: Run, why: str, effects: list[Effect]) -> None:
        """Stop the run. One that no worker holds ends now; else its worker is told at once, where it waits for work, or
        with its next answer, and the run ends when that says that the handler has stopped, or is lost."""
        if not (held := _leases_of(run)):
            self._journal.emit(f.Cancelled(run.number, why))
            return
        if run.cancelling is not None:
            return
        self._journal.emit(f.CancelAsked(run.number, why))
        self._tell(held, effects)

    def end_now(self, run: Run, why: str, effects: list[Effect]) -> None:
        """Its task is gone: the run ends now, whoever holds it. The worker's report will be fenced."""
        held = _leases_of(run)
        self._journal.emit(f.Cancelled(run.number, why))
        self._tell(held, effects)

    def _tell(self, held: list[tuple[int, int]], effects: list[Effect]) -> None:
        for number, token in held:
            name = self._state.workers.get(number)
            worker = self._router.find(name.key) if name is not None else None
            if worker is not None and worker.number == number:
                worker.cancelled.append(token)
                self._answer(worker, [], effects)

    # --- silence ---

    def sweep(self, effects: list[Effect]) -> None:
        """Answer pulls whose time is up; lose the silent and the unrenewed."""
        now = self._journal.boot_ms
        # A copy: what a lost worker held may go to a pool that nobody named before.
        for pool in list(self._router.pools.values()):
            for worker in list(pool.workers.values()):
                if worker.request is not None:
                    if now >= worker.until_ms:
                        self._answer(worker, [], effects)
                elif now - worker.seen_ms > max(pool.silence_ms, self._config.lease_ms // 2):
                    # A worker whose slots are all taken is heard of only when it renews: each third of a lease.
                    self._lose(worker, f"nothing was heard of it for {now - worker.seen_ms} ms", effects)
        self._router.drop_unused()
        expired = [d for d in self._state.attempts.values() if d.lease_until_ms < now]
        for dispatch in expired:
            if dispatch.token:
                self._failures.fail(
                    dispatch, f.FailureReason.LOST, message="the attempt's lease ended without a renewal"
                )

    def take_over(self) -> None:
        """A new leader: every open attempt gets one full lease, everything else waits again, but for the delayed runs
        whose time has come: the engine decides of them when it knows who follows whom."""
        now = self._journal.now_ms
        for run in self._state.runs.values():
            for dispatch in run.dispatches:
                if dispatch.token:
                    self._adopt(dispatch)
                elif not run.delayed or dispatch.ready_ms > now:
                    self._waiting.ready(dispatch)

    def _adopt(self, dispatch: Dispatch) -> None:
        boot = self._journal.boot_ms
        start_ms = self._waiting.start_ms(dispatch, self._spec(dispatch), dispatch.attempts - 1)
        ahead_ms = start_ms - self._journal.now_ms
        if ahead_ms > 0:  # leased early; beyond any lead, this leader's clock is behind
            dispatch.due_boot_ms = boot + ahead_ms
            dispatch.starts_boot_ms = boot + min(ahead_ms, _LONGEST_AHEAD_MS)
        self._router.keep(dispatch)
        dispatch.lease_until_ms = self._lease_end(dispatch)
        dispatch.leased_boot_ms = boot


def _leases_of(run: Run) -> list[tuple[int, int]]:
    """The open attempts of the run: worker and token of each."""
    return [(dispatch.worker, dispatch.token) for dispatch in run.dispatches if dispatch.token]
