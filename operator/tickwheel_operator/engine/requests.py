"""What people and programs ask for: runs by hand, backfills, and that a run stops.

Invariant: a request is refused in whole, with a reason, before any fact; the same key is the same run.
"""

from __future__ import annotations

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.dispatch.leasing import Leasing
from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.model.identity import keyed_run_id, uid_of
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.request_keys import objection_to_keys
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.backfilling import Backfills
from tickwheel_operator.engine.schedule.groups import Entry
from tickwheel_operator.engine.schedule.overlap import Overlaps
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.spec import EngineConfig, TaskSpec
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["Requests"]


class Requests:
    """Decides of what is asked for."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        scheduler: Scheduler,
        router: Router,
        overlaps: Overlaps,
        leasing: Leasing,
        backfills: Backfills,
        stats: Stats,
        config: EngineConfig,
    ) -> None:
        self._journal = journal
        self._state = state
        self._scheduler = scheduler
        self._router = router
        self._overlaps = overlaps
        self._leasing = leasing
        self._backfills = backfills
        self._stats = stats
        self._config = config

    def submit(self, command: m.Submit, effects: list[m.Effect]) -> None:
        """Make the runs, all or none. Those whose key is known are there already."""
        refusal = self._refusal(command)
        if refusal is not None:
            effects.append(refusal)
            return
        entry = self._entry(command)
        task = self._scheduler.name(entry)
        state, answers = self._state, []
        for wanted in command.runs:
            run_id = keyed_run_id(task.uid, wanted.key)
            known = state.keys.get(run_id)
            if known is not None:
                answers.append(m.SubmittedRun(run_id=run_id, created=False, state=known.state))
                continue
            number = state.next_run
            self._journal.emit(self._asked_for(number, task.number, wanted))
            self._stats.runs_created += 1
            self._scheduler.created(state.runs[number])
            answers.append(m.SubmittedRun(run_id=run_id, created=True, state=m.RunState.PENDING))
        effects.append(m.Submitted(request=command.request, runs=answers))

    def _asked_for(self, number: int, task: int, wanted: m.Submission) -> f.Fact:
        if not wanted.delay_ms:
            return f.Submitted(number, task, wanted.scheduled_ms, wanted.key, wanted.object_name, wanted.parameters)
        ready_ms = self._journal.now_ms + wanted.delay_ms
        return f.Requested(
            number,
            task,
            ready_ms,
            ready_ms,
            wanted.key,
            Origin.REQUEST,
            wanted.front,
            wanted.object_name,
            wanted.parameters,
        )

    def backfill(self, command: m.StartBackfill, effects: list[m.Effect]) -> None:
        """Begin to make up for a span of the past."""
        refusal = self._refusal(command)
        if refusal is not None:
            effects.append(refusal)
            return
        effects.append(self._backfills.start(command, self._entry(command)))

    def _entry(self, command: m.Submit | m.StartBackfill) -> Entry:
        entry = self._scheduler.names.get(command.namespace, command.name)
        if entry is None:
            raise KeyError(command.name)  # `_refusal` has looked
        return entry

    def _refusal(self, command: m.Submit | m.StartBackfill) -> m.CommandRefused | None:
        reason = None
        if not self._scheduler.synced:
            reason, detail = m.RefusalReason.NOT_READY, "this leader is still reading the catalog; try again"
        elif self._scheduler.held:
            reason, detail = m.RefusalReason.BACKLOG_FULL, self._scheduler.held
        else:
            entry = self._scheduler.names.get(command.namespace, command.name)
            if entry is None:
                reason = m.RefusalReason.NO_SUCH_TASK
                detail = f"no armed ScheduledTask {command.namespace}/{command.name}"
            else:
                runs = command.runs if isinstance(command, m.Submit) else []
                uid = entry.spec.uid
                backlog = self._router.pool(command.namespace, entry.spec.pool).unleased()
                if objection := objection_to_keys(
                    self._state.keys, uid, runs if isinstance(command, m.Submit) else [command]
                ):
                    reason, detail = m.RefusalReason.KEY_REUSED, objection
                elif backlog + len(runs) > self._config.max_backlog:
                    reason = m.RefusalReason.BACKLOG_FULL
                    detail = f"{backlog} runs wait in pool {entry.spec.pool}; at most {self._config.max_backlog} may"
                elif objection := self._overlap_objection(entry.spec, runs):
                    reason = m.RefusalReason.OVERLAP
                    detail = f"{entry.spec.namespace}/{entry.spec.name}: {objection}"
        if reason is None:
            return None
        return m.CommandRefused(request=command.request, reason=reason, detail=detail)

    def _overlap_objection(self, spec: TaskSpec, runs: list[m.Submission]) -> str:
        """Why these runs may not all be made now; empty: they may. One that is known already is no new one, and a
        delayed one is judged when its delay is over."""
        if spec.overlap.max_concurrent is None:
            return ""
        first: dict[str, m.Submission] = {}
        for wanted in runs:
            if keyed_run_id(spec.uid, wanted.key) not in self._state.keys:
                first.setdefault(wanted.key, wanted)
        judged = [wanted.parameters for wanted in first.values() if not wanted.delay_ms]
        found = self._overlaps.objection(spec, judged)
        if found is None:
            return ""
        place, verdict = found
        why = self._overlaps.explain(verdict, spec, judged[place])
        return f"with {place} of these {len(judged)} new runs {why}; ask for fewer at once" if place else why

    def cancel(self, command: m.CancelRun, effects: list[m.Effect]) -> None:
        """Stop the run, or say how it ended."""
        run_id = command.run_id
        task = self._state.by_uid.get(uid_of(run_id))
        run = self._state.keys.get(run_id)
        if task is not None and run is None:  # of a schedule, say: such runs have no keys
            run = next((other for other in task.runs.values() if other.id == run_id), None)
        if isinstance(run, Run):
            cancel = self._leasing.cancel if run.dispatches else self._backfills.cancel
            cancel(run, command.message, effects)
            still = run.number in self._state.runs
            effects.append(self._state_of(command, run.state if still else m.RunState.CANCELLED))
            return
        if task is not None:
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
