"""The engine of one partition: commands and time in, facts and effects out.

Pure: no clock, socket, random source or environment. The host (`runtime.partition`) gives it the instant with each
command, appends the facts to the ledger and releases the effects when they are durable; the simulation does the same
with a clock of its own. Everything durable is in `State`, which is the fold of the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.dispatch.leasing import Leasing
from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.dispatch.waiting import Waiting
from tickwheel_operator.engine.model import snapshot
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.read.culprits import culprits
from tickwheel_operator.engine.read.views import Views, pool_views, task_views
from tickwheel_operator.engine.requests import Requests
from tickwheel_operator.engine.schedule.backfilling import Backfills
from tickwheel_operator.engine.schedule.overlap import Overlaps, Verdict
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.schedule.starters import Delay
from tickwheel_operator.engine.spec import EngineConfig, TaskSpec
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.engine.wheel import TimingWheel
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["Engine"]

_SWEEPS_PER_LEASE = 15


class Engine:
    """The state machine of one partition."""

    def __init__(self, config: EngineConfig | None = None, *, now_ms: int, boot_ms: int | None = None) -> None:
        """`boot_ms` is the same moment by a clock that never jumps; without one the wall clock stands for it."""
        boot_ms = now_ms if boot_ms is None else boot_ms
        self.config = config or EngineConfig()
        self.stats = Stats(most_pools=self.config.metrics_max_pools, most_tasks=self.config.metrics_max_tasks)
        self.state = State(max_keys=self.config.max_keys, max_detail_bytes=self.config.max_detail_bytes)
        self.journal = Journal(self.state)
        self.journal.now_ms = self.journal.wall_ms = now_ms
        self.journal.boot_ms = boot_ms
        self.router = Router(early_offset_ms=self.config.early_offset_ms, early_error_ms=self.config.early_error_ms)
        self.wheel = TimingWheel(now_ms)
        """Instants of schedules, by the wall clock."""
        self.delays = TimingWheel(boot_ms)
        """Everything that lasts, by the boot clock."""
        self.overlaps = Overlaps(self.config.max_backlog)
        self.scheduler = Scheduler(
            self.journal,
            self.state,
            self.router,
            self.wheel,
            self.delays,
            self.stats,
            self.config,
            self.overlaps,
            self._created,
        )
        self.waiting = Waiting(self.journal, self.router, self.scheduler, self.delays, self.stats, self._delay_over)
        self.leasing = Leasing(
            self.journal,
            self.state,
            self.router,
            self.scheduler,
            self.waiting,
            self.stats,
            self.config,
        )
        self.backfills = Backfills(self.journal, self.state, self.scheduler, self.config, self.leasing.cancel)
        self.requests = Requests(
            self.journal,
            self.state,
            self.scheduler,
            self.router,
            self.overlaps,
            self.leasing,
            self.backfills,
            self.stats,
            self.config,
        )
        self._replayed_ms = 0
        """When the leader before decided last."""
        self.journal.hear = self._hear_of_ends
        self._hears = False
        self._effects: list[m.Effect] = []
        """Of the command that is carried out."""
        self._sweep_ms = max(50, self.config.lease_ms // _SWEEPS_PER_LEASE)
        self._next_sweep_ms = boot_ms + self._sweep_ms
        """By the boot clock."""
        self._handlers: dict[type, Callable[[Any, list[m.Effect]], None]] = {
            m.TaskApplied: self._task_applied,
            m.TaskRemoved: self._task_removed,
            m.TaskAbandoned: self._task_abandoned,
            m.PoolApplied: self._pool_applied,
            m.PoolRemoved: lambda command, _: self.router.forget_pool(command.namespace, command.name),
            m.CatalogSynced: self._synced,
            m.IntakeHeld: lambda command, _: self.scheduler.hold(command.reason),
            m.Tick: lambda command, _: None,
            m.Pull: self.leasing.pull,
            m.PullEnded: lambda command, _: self.leasing.pull_ended(command),
            m.Report: self.leasing.report,
            m.WorkerGone: self.leasing.gone,
            m.Submit: self.requests.submit,
            m.StartBackfill: self.requests.backfill,
            m.CancelRun: self.requests.cancel,
            m.LeadSet: lambda command, _: self._set_lead(command.lead_ms),
        }

    # --- taking over ---

    def restore(self, chunks: Sequence[bytes]) -> None:
        """Load a checkpoint, before any fact is replayed."""
        snapshot.load(self.state, chunks)
        self._replayed_ms = self.state.clock_ms

    def replay(self, facts: Iterable[f.Fact]) -> None:
        """Fold facts that another leader decided."""
        apply = self.state.apply
        for fact in facts:
            apply(fact)
        self._replayed_ms = self.state.clock_ms

    def snapshot(self) -> snapshot.Snapshot:
        """The durable state with all facts that were taken from here, in chunks for a checkpoint. They may be asked for
        bit by bit while the engine decides on. One at a time."""
        return snapshot.Snapshot(self.state)

    # --- leading ---

    def handle(self, command: m.Command, now_ms: int, boot_ms: int | None = None) -> m.Output:
        """Carry out `command` at the instant `now_ms` (milliseconds since the epoch), which is `boot_ms` by a clock
        that never jumps (without one the wall clock stands for it).

        Time that passed since the last command is caught up first, so that a due instant fires before a later pull
        is answered. Where the wall clock went back, schedules follow it, and what was settled stays settled; the
        instants of facts are held until it has caught up; leases, silence and backoffs go on by the boot clock.
        """
        effects = self._begin(now_ms, boot_ms)
        self._handlers[type(command)](command, effects)
        self.leasing.deal(effects)
        self._count_outcomes()
        if isinstance(command, m.Pull) and command.until_ms <= now_ms:
            self.leasing.end_pull(command, effects)
        return m.Output(self.journal.take(), effects)

    def handle_all(self, commands: Iterable[m.Command], now_ms: int, boot_ms: int | None = None) -> m.Output:
        """Carry out what the catalog has to say (all but pulls), in this order and at one instant, as `handle` does one
        by one, in half the time or less."""
        effects = self._begin(now_ms, boot_ms)
        handlers = self._handlers
        for command in commands:
            handlers[type(command)](command, effects)
        self.leasing.deal(effects)
        self._count_outcomes()
        return m.Output(self.journal.take(), effects)

    def gather(self) -> None:
        """From now on leases of several commands share one answer of a pull: `answers` gives it. For a host that
        appends what several commands decided at once: a worker gets all of it, and need not pull for each."""
        self.leasing.gathers = True

    def answers_within(self, ahead_ms: int) -> bool:
        """Whether pulls wait for `answers` with leases that start so many milliseconds from now at the latest."""
        return self.leasing.answers_within(ahead_ms)

    def answers(self) -> list[m.Effect]:
        """The answers of the pulls that got leases since the last call."""
        effects: list[m.Effect] = []
        self.leasing.answer(effects)
        return effects

    def culprits(self, error: BaseException) -> tuple[str, ...]:
        """Uids of the tasks that were being decided for when the engine raised; empty: unknown."""

        def uid_named(namespace: str, name: str) -> str | None:
            entry = self.scheduler.names.get(namespace, name)
            return None if entry is None else entry.spec.uid

        return culprits(error, uid_named)

    @property
    def has_news(self) -> bool:
        """Whether a task changed since it was last viewed."""
        return bool(self.state.touched or self.scheduler.touched)

    @property
    def has_waiting(self) -> bool:
        """Whether a dispatch waits for a worker."""
        return any(pool.waits for pool in self.router.pools.values())

    def views(self, limit: int) -> Views:
        """Up to `limit` tasks that changed since they were last viewed, and all pools."""
        tasks, faults = task_views(self.state, self.scheduler, self.router, limit, self.journal.now_ms)
        return Views(tasks, pool_views(self.state, self.router), faults)

    def pause_ms(self, now_ms: int, boot_ms: int | None = None) -> int:
        """How long the host may wait until it calls `handle` again, at the latest; 0 or less: it is time."""
        if self.scheduler.is_behind:
            return 0
        boot_ms = now_ms if boot_ms is None else boot_ms
        pause = self._next_sweep_ms - boot_ms
        if (instant := self.wheel.next_occupied()) is not None:
            pause = min(pause, instant - now_ms)
        if (end := self.delays.next_occupied()) is not None:
            pause = min(pause, end - boot_ms)
        return pause

    def _begin(self, now_ms: int, boot_ms: int | None) -> list[m.Effect]:
        """It is this late now. Returns the list of effects, with those of the time that passed."""
        journal = self.journal
        journal.wall_ms = now_ms
        journal.now_ms = max(now_ms, journal.now_ms)
        journal.boot_ms = max(now_ms if boot_ms is None else boot_ms, journal.boot_ms)
        effects: list[m.Effect] = []
        self._effects = effects
        self._pass_time(effects)
        return effects

    def _pass_time(self, effects: list[m.Effect]) -> None:
        journal = self.journal
        self.scheduler.pass_time()
        for timer in self.delays.advance(journal.boot_ms):
            payload = timer.payload
            if isinstance(payload, Delay):
                self.scheduler.starters.delays.due(payload)
            elif payload.timer is timer:  # no earlier one of this moment changed it
                self.waiting.due(payload)
        if journal.boot_ms >= self._next_sweep_ms:
            self._next_sweep_ms = journal.boot_ms + self._sweep_ms
            if self.scheduler.synced:
                self.leasing.sweep(effects)
                self.backfills.nudge()
                self.scheduler.deleted.sweep()

    def _set_lead(self, lead_ms: int) -> None:
        self.scheduler.lead_ms = self.waiting.lead_ms = lead_ms

    # --- runs that begin and end ---

    def _created(self, run: Run) -> None:
        """A run was made: it counts for its overlap policy, and waits for a worker or for others to end."""
        if run.origin is Origin.REQUEST and run.ready_ms > self.journal.now_ms:
            run.delayed = True
        elif self._spec_of(run).overlap.max_concurrent is not None:
            self._enters(run)
            if run.number not in self.state.runs:
                return
        for dispatch in run.dispatches:
            self.waiting.ready(dispatch)

    def _ready(self, run: Run) -> None:
        for dispatch in run.dispatches:
            if not dispatch.token:
                self.waiting.ready(dispatch)

    def _enters(self, run: Run) -> bool:
        for other in self.overlaps.enter(run, self._spec_of(run)):
            if other.number not in self.state.runs:
                continue  # the end of the one before ended it, too
            self.leasing.cancel(other, f"replaced by the run {run.name}", self._effects)
        # What followed from an end may have replaced it by a later one already.
        return not run.held and run.number in self.state.runs

    def _delay_over(self, run: Run) -> bool:
        run.delayed = False
        verdict = self.overlaps.verdict(self._spec_of(run), run.parameters)
        if verdict in (Verdict.SKIP, Verdict.FULL):
            why = self.overlaps.explain(verdict, self._spec_of(run), run.parameters)
            self.journal.emit(f.Cancelled(run.number, f"its delay was over, but {why}"))
            return False
        return self._enters(run)

    def _hear_of_ends(self) -> None:
        """What follows from the runs that ended: others are admitted, tasks that follow them fire, backfills go on.
        Decided with the end itself, so that nothing is counted that is over, and no leader dies between the two."""
        state = self.state
        if self._hears:
            return  # whoever hears already takes these next: a chain of ends must not be a chain of calls
        self._hears = True
        while state.news:
            news, state.news = state.news, []
            for run, dispatches, outcome in news:
                for dispatch in dispatches:
                    self.waiting.drop(dispatch)
                for admitted in self.overlaps.leave(run, self._spec_of):
                    if admitted.number in state.runs:
                        self._ready(admitted)
                self.scheduler.starters.ended(run, outcome)
                self.backfills.ended(run)
        self._hears = False

    def _spec_of(self, run: Run) -> TaskSpec:
        return self.scheduler.spec(run.task)

    def _synced(self, _: m.CatalogSynced, effects: list[m.Effect]) -> None:
        if not self.scheduler.synced:
            # What was folded until now, another leader did.
            self.state.ended = dict.fromkeys(self.state.ended, 0)
            self.stats.runs_ended = self.state.ended
            self.state.news.clear()
            self.state.outcomes.clear()
            known, delayed = [], []
            for run in self.state.runs.values():
                # Its delay may be over by now: if the leader before did not see that, this one decides what follows.
                undecided = run.ready_ms > self._replayed_ms
                run.delayed = run.origin is Origin.REQUEST and not run.attempts and undecided
                if run.delayed:
                    delayed.append(run)
                elif self.scheduler.knows(run.task):
                    known.append(run)
                elif run.is_leased and not run.execution.retroactive:
                    self.overlaps.doubt(run)
            self.overlaps.regroup(known, self._spec_of)
            self.leasing.take_over()
            self.scheduler.sync()
            for run in delayed:
                if run.number in self.state.runs and run.ready_ms <= self.journal.now_ms:
                    self._ready(run)
            self.backfills.resume()

    def _count_outcomes(self) -> None:
        """For the metrics: how the runs ended that the last command ended."""
        outcomes = self.state.outcomes
        if not outcomes or not self.scheduler.synced:
            return
        self.state.outcomes = {}
        for (task, outcome), count in outcomes.items():
            self.stats.ended(self.scheduler.spec(task), outcome, count, self.journal.now_ms)

    def _task_applied(self, command: m.TaskApplied, _: list[m.Effect]) -> None:
        spec = command.spec
        task = self.state.by_uid.get(spec.uid)
        self.stats.known(spec, task.history_succeeded[-1].ended_ms if task and task.history_succeeded else 0)
        if task is None or not self.scheduler.synced:
            self.scheduler.apply(command)
            return
        admitted: list[Run] = []
        if not self.scheduler.knows(task):
            # Its open runs count as its own from now on, before anything overdue is settled.
            runs = [run for run in task.runs.values() if not run.delayed]
            admitted = self.overlaps.regroup(runs, lambda run: spec if run.task is task else self._spec_of(run))
        self.scheduler.apply(command)
        # Its pool, handler or overlap policy may be another now: what waits, waits there.
        runs = [run for run in task.runs.values() if not run.delayed]
        admitted += self.overlaps.regroup(runs, self._spec_of)
        for run in [*task.runs.values(), *admitted]:
            if run.number in self.state.runs:
                self._ready(run)

    def _task_removed(self, command: m.TaskRemoved, effects: list[m.Effect]) -> None:
        task = self.state.by_uid.get(command.uid)
        if command.forget and task is not None:
            self.scheduler.pause(command.uid)  # the end of one run must not begin another
            for run in list(task.runs.values()):
                if run.number in task.runs:
                    self.leasing.end_now(run, "the task was deleted", effects)
        self.scheduler.remove(command)
        self.stats.gone(command.uid)

    def _task_abandoned(self, command: m.TaskAbandoned, _: list[m.Effect]) -> None:
        task = self.state.by_uid.get(command.uid)
        if task is None or self.scheduler.synced:
            return
        for run in list(task.runs.values()):
            self.journal.emit(f.Cancelled(run.number, command.why))

    def _pool_applied(self, command: m.PoolApplied, _: list[m.Effect]) -> None:
        spec = command.spec
        self.router.declare(spec.namespace, spec.name, spec.silence_ms)
        self.stats.of_pool(spec.namespace, spec.name)
