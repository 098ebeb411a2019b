"""The engine of one partition: commands and time in, facts and effects out.

Pure: no clock, socket, random source or environment. The host (`runtime.partition`) gives it the instant with each
command, appends the facts to the ledger and releases the effects when they are durable; the simulation does the same
with a clock of its own. Everything durable is in `State`, which is the fold of the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine import snapshot
from tickwheel_operator.engine.identity import keyed_run_id, uid_of
from tickwheel_operator.engine.journal import Journal
from tickwheel_operator.engine.leasing import Leasing
from tickwheel_operator.engine.routing import Router
from tickwheel_operator.engine.scheduler import Group, Scheduler
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.engine.state import Run, State
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.engine.views import Views, pool_views, task_views
from tickwheel_operator.engine.wheel import TimingWheel
from tickwheel_operator.ledger import facts as f

__all__ = ["Engine"]

_SWEEPS_PER_LEASE = 15


class Engine:
    """The state machine of one partition."""

    def __init__(self, config: EngineConfig | None = None, *, now_ms: int) -> None:
        self.config = config or EngineConfig()
        self.stats = Stats()
        self.state = State(max_keys=self.config.max_keys, max_detail_bytes=self.config.max_detail_bytes)
        self.journal = Journal(self.state)
        self.journal.now_ms = now_ms
        self.router = Router()
        self.wheel = TimingWheel(now_ms)
        self.scheduler = Scheduler(
            self.journal, self.state, self.router, self.wheel, self.stats, self.config, self._created
        )
        self.leasing = Leasing(
            self.journal, self.state, self.router, self.scheduler, self.wheel, self.stats, self.config
        )
        self._sweep_ms = max(50, self.config.lease_ms // _SWEEPS_PER_LEASE)
        self._next_sweep_ms = now_ms + self._sweep_ms
        self._handlers: dict[type, Callable[[Any, list[m.Effect]], None]] = {
            m.TaskApplied: self._task_applied,
            m.TaskRemoved: self._task_removed,
            m.PoolApplied: self._pool_applied,
            m.PoolRemoved: lambda command, _: self.router.forget_pool(command.namespace, command.name),
            m.CatalogSynced: self._synced,
            m.IntakeHeld: lambda command, _: self.scheduler.hold(command.reason),
            m.Tick: lambda command, _: None,
            m.Pull: self.leasing.pull,
            m.PullEnded: lambda command, _: self.leasing.pull_ended(command),
            m.Report: self.leasing.report,
            m.WorkerGone: self.leasing.gone,
            m.Submit: self._submit,
            m.CancelRun: self._cancel,
        }

    # --- taking over ---

    def restore(self, chunks: Sequence[bytes]) -> None:
        """Load a checkpoint, before any fact is replayed."""
        snapshot.load(self.state, chunks)

    def replay(self, facts: Iterable[f.Fact]) -> None:
        """Fold facts that another leader decided."""
        apply = self.state.apply
        for fact in facts:
            apply(fact)

    def snapshot(self) -> list[bytes]:
        """The durable state, in chunks for a checkpoint. Call it only when no fact is waiting to be appended."""
        return snapshot.dump(self.state)

    # --- leading ---

    def handle(self, command: m.Command, now_ms: int) -> m.Output:
        """Carry out `command` at the instant `now_ms` (milliseconds since the epoch).

        Time that passed since the last command is caught up first, so that a due instant fires before a later pull
        is answered. A clock that went back is held: the engine's instants never decrease.
        """
        now_ms = max(now_ms, self.journal.now_ms)
        self.journal.now_ms = now_ms
        effects: list[m.Effect] = []
        self._pass_time(now_ms, effects)
        self._handlers[type(command)](command, effects)
        self.leasing.deal(effects)
        if isinstance(command, m.Pull) and command.until_ms <= now_ms:
            self.leasing.end_pull(command, effects)
        return m.Output(self.journal.take(), effects)

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
        return Views(task_views(self.state, self.scheduler, self.router, limit), pool_views(self.state, self.router))

    def wake_ms(self) -> int:
        """The instant by which the host must call `handle` again, at the latest."""
        due = self.wheel.next_occupied()
        return self._next_sweep_ms if due is None else min(due, self._next_sweep_ms)

    def _pass_time(self, now_ms: int, effects: list[m.Effect]) -> None:
        for timer in self.wheel.advance(now_ms):
            payload = timer.payload
            if isinstance(payload, Group):
                self.scheduler.fire(payload)
            elif payload.timer is timer:  # no earlier one of this moment changed it
                self.leasing.due(payload)
        if now_ms >= self._next_sweep_ms:
            self._next_sweep_ms = now_ms + self._sweep_ms
            if self.scheduler.synced:
                self.leasing.sweep(effects)

    def _synced(self, _: m.CatalogSynced, effects: list[m.Effect]) -> None:
        if not self.scheduler.synced:
            # What was folded until now, another leader did.
            self.state.ended = dict.fromkeys(self.state.ended, 0)
            self.stats.runs_ended = self.state.ended
            self.leasing.take_over()
            self.scheduler.sync()

    def _task_applied(self, command: m.TaskApplied, _: list[m.Effect]) -> None:
        self.scheduler.apply(command)
        task = self.state.by_uid.get(command.spec.uid)
        if task is not None and self.scheduler.synced:
            # Its pool or handler may be another now: what waits, waits there.
            for run in task.runs.values():
                if not run.dispatch.token:
                    self.leasing.ready(run.dispatch)

    def _task_removed(self, command: m.TaskRemoved, effects: list[m.Effect]) -> None:
        task = self.state.by_uid.get(command.uid)
        if command.forget and task is not None:
            for run in list(task.runs.values()):
                self.leasing.cancel(run, "the task was deleted", effects)
        self.scheduler.remove(command)

    def _pool_applied(self, command: m.PoolApplied, _: list[m.Effect]) -> None:
        spec = command.spec
        self.router.declare(spec.namespace, spec.name, spec.silence_ms)

    def _created(self, run: Run) -> None:
        self.leasing.ready(run.dispatch)

    # --- runs by hand ---

    def _submit(self, command: m.Submit, effects: list[m.Effect]) -> None:
        refusal = self._refusal(command)
        if refusal is not None:
            effects.append(refusal)
            return
        entry = self.scheduler.by_name[command.namespace, command.name]
        task = self.scheduler.name(entry)
        state, answers = self.state, []
        for wanted in command.runs:
            run_id = keyed_run_id(task.uid, wanted.key)
            known = state.keys.get(run_id)
            if known is not None:
                answers.append(
                    m.SubmittedRun(run_id=run_id, created=False, state=known.state if isinstance(known, Run) else known)
                )
                continue
            number = state.next_run
            self.journal.emit(
                f.Submitted(
                    number,
                    task.number,
                    wanted.scheduled_ms,
                    wanted.key,
                    wanted.object_name,
                    wanted.parameters,
                )
            )
            self.stats.runs_created += 1
            self._created(state.runs[number])
            answers.append(m.SubmittedRun(run_id=run_id, created=True, state=m.RunState.PENDING))
        effects.append(m.Submitted(request=command.request, runs=answers))

    def _refusal(self, command: m.Submit) -> m.CommandRefused | None:
        reason = None
        if not self.scheduler.synced:
            reason, detail = m.RefusalReason.NOT_READY, "this leader is still reading the catalog; try again"
        elif self.scheduler.held:
            reason, detail = m.RefusalReason.BACKLOG_FULL, self.scheduler.held
        else:
            entry = self.scheduler.by_name.get((command.namespace, command.name))
            if entry is None:
                reason = m.RefusalReason.NO_SUCH_TASK
                detail = f"no armed ScheduledTask {command.namespace}/{command.name}"
            else:
                backlog = self.router.pool(command.namespace, entry.spec.pool).backlog()
                if backlog + len(command.runs) > self.config.max_backlog:
                    reason = m.RefusalReason.BACKLOG_FULL
                    detail = (
                        f"{backlog} dispatches wait in pool {entry.spec.pool}; at most {self.config.max_backlog} may"
                    )
        if reason is None:
            return None
        return m.CommandRefused(request=command.request, reason=reason, detail=detail)

    def _cancel(self, command: m.CancelRun, effects: list[m.Effect]) -> None:
        run_id = command.run_id
        task = self.state.by_uid.get(uid_of(run_id))
        if task is not None:
            for run in task.runs.values():
                if run.id == run_id:
                    self.leasing.cancel(run, command.message, effects)
                    effects.append(self._state_of(command, m.RunState.CANCELLED))
                    return
            for ended in (*task.history_succeeded, *task.history_failed):
                if ended.run_id == run_id:
                    effects.append(self._state_of(command, ended.state))
                    return
        effects.append(
            m.CommandRefused(
                request=command.request,
                reason=m.RefusalReason.NO_SUCH_RUN,
                detail=f"no run {run_id} is open or remembered",
            )
        )

    def _state_of(self, command: m.CancelRun, state: m.RunState) -> m.Submitted:
        answer = m.SubmittedRun(run_id=command.run_id, created=False, state=state)
        return m.Submitted(request=command.request, runs=[answer])
