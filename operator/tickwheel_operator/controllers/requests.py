"""TaskRun objects that users make: each is a request to run a task, submitted until it is answered.

A request without a final status is submitted by every new leader; its key makes that idempotent, so no run is lost and
none is made twice. Who deletes the last object of an open run cancels it, as with a Job: nobody could see or stop it
any more. Invariant: a request is left alone only once the API server shows a final state for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable

from tickwheel_operator import reasons
from tickwheel_operator.engine.messages import (
    CancelRun,
    CommandRefused,
    Effect,
    RefusalReason,
    StartBackfill,
    Submission,
    Submit,
    Submitted,
    SubmittedRun,
)
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.kinds.taskrun import RunEntry, RunRequest, SeenRun
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.workqueue import WorkFailed, WorkQueue

__all__ = ["Call", "Requests"]

Call = Callable[[Submit | StartBackfill | CancelRun], Awaitable[Effect]]
_WORKERS = 16
_REASONS = {
    RefusalReason.NO_SUCH_TASK: reasons.NO_SUCH_TASK,
    RefusalReason.NO_SUCH_RUN: reasons.NO_SUCH_RUN,
    RefusalReason.BACKLOG_FULL: reasons.BACKLOG_FULL,
    RefusalReason.OVERLAP: reasons.OVERLAP,
    RefusalReason.NOT_POSSIBLE: reasons.NOT_POSSIBLE,
    RefusalReason.KEY_REUSED: reasons.KEY_REUSED,
    RefusalReason.INVALID_PARAMETERS: reasons.INVALID_PARAMETERS,
    RefusalReason.NOT_READY: reasons.NOT_READY,
}
_FAILED_S = 30.0
"""A request that the operator itself fails at is tried again after this."""
_DELETIONS_S = 60.0
"""Who does not lead remembers what was deleted so long: the leader may have ended before it acted on it."""
_PATIENCE_S = 2.0
"""A refusal is shown when it has lasted so long."""
_LOOK_AGAIN_S = {
    RefusalReason.NO_SUCH_TASK: 30.0,
    RefusalReason.NO_SUCH_RUN: 30.0,
    RefusalReason.BACKLOG_FULL: 5.0,
    RefusalReason.OVERLAP: 2.0,
    RefusalReason.NOT_POSSIBLE: 300.0,
    RefusalReason.KEY_REUSED: 300.0,
    RefusalReason.INVALID_PARAMETERS: 30.0,
    RefusalReason.NOT_READY: 0.5,
}


class Requests:
    """All TaskRuns that users made."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        objects: Objects,
        *,
        retry_s: float = 0.5,
        faults: ObjectFaults | None = None,
    ) -> None:
        """`objects` are those of the catalog, where TaskRuns are kept too."""
        self._objects = objects
        self._now_ms = now_ms
        self._faults = faults or ObjectFaults()
        self._entries: dict[str, RunEntry] = {}
        self._deleted: dict[str, RunEntry] = {}
        """What went before its run was known to have ended, the oldest first."""
        self._of_run: dict[str, dict[str, None]] = {}
        self._waiting_for: dict[tuple[str, str], dict[str, None]] = {}
        """Uids of requests whose task does not exist, by the task."""
        self._call: Call | None = None
        self._new_request: Callable[[], Hashable] = lambda: None
        self._queue: WorkQueue[str] = WorkQueue(
            self._work, name="taskrun-requests", workers=_WORKERS, group=self._namespace, initial_s=retry_s, max_s=30.0
        )
        self.on_change: Callable[[SeenRun], None] = lambda seen: None
        """Called with a TaskRun whose object or answer changed, or is gone."""

    def entry(self, uid: str) -> RunEntry | None:
        return self._entries.get(uid)

    def entries(self) -> Collection[RunEntry]:
        return self._entries.values()

    def of_run(self, run_id: str) -> Iterable[str]:
        """Uids of the objects that asked for the run: more than one where they share an idempotency key."""
        return tuple(self._of_run.get(run_id, ()))

    def uids(self) -> set[str]:
        return set(self._entries)

    # --- the watch's side ---

    def run_seen(self, seen: SeenRun) -> None:
        self._objects.put(seen)
        entry = self._entries.get(seen.uid)
        if entry is None:
            entry = self._entries[seen.uid] = RunEntry(seen)
        else:
            entry.seen = seen
        if seen.run_id:
            self._know_run(entry, seen.run_id)
        if self._call is not None and self._is_open(entry):
            self._queue.add(seen.uid)
        self.on_change(seen)

    def run_gone(self, uid: str) -> None:
        entry = self._entries.pop(uid, None)
        if entry is None:
            return
        self._objects.remove(entry.seen)
        uids = self._of_run.get(entry.run_id)
        if uids is not None:
            uids.pop(uid, None)
            if not uids:
                del self._of_run[entry.run_id]
        self._stop_waiting(entry)
        if entry.seen.request is not None:
            entry.deleted_at = asyncio.get_running_loop().time()
            self._deleted[uid] = entry
            if self._call is not None:
                self._queue.add(uid)
            else:
                self._forget_deletions()
        else:
            self._queue.discard(uid)
        self.on_change(entry.seen)

    def task_changed(self, namespace: str, name: str) -> None:
        """The task may have come into being: who waits for it is submitted at once."""
        for uid in self._waiting_for.get((namespace, name), ()):
            if self._call is not None:
                self._queue.add(uid)

    # --- the leader's side ---

    def lead(self, call: Call, new_request: Callable[[], Hashable]) -> None:
        """Submit all that is open through `call`, which raises when the answer is unknown."""
        self._call, self._new_request = call, new_request
        for entry in self._entries.values():
            entry.state, entry.refusal, entry.refused_at, entry.cancelled = None, None, None, False
            if self._is_open(entry):
                self._queue.add(entry.seen.uid)
        self._forget_deletions()
        for uid in self._deleted:
            self._queue.add(uid)

    def follow(self) -> None:
        """Nobody leads here any more."""
        self._call = None
        self._queue.clear()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._queue.run()

    # --- inside ---

    def _is_open(self, entry: RunEntry) -> bool:
        """Something is still to be asked of the engine."""
        request = entry.seen.request
        if request is None:
            return False
        return entry.state is None or (request.cancel and not entry.cancelled and not entry.state.is_final)

    def _namespace(self, uid: str) -> str:
        entry = self._entries.get(uid) or self._deleted.get(uid)
        return entry.seen.namespace if entry is not None else ""

    async def _work(self, uid: str) -> float | None:
        if self._call is None:
            return None
        call = self._answer_of(self._call)
        if (entry := self._entries.get(uid)) is not None:
            try:
                return await self._submit(entry, call)
            except WorkFailed:
                raise
            except Exception as error:
                message = self._faults.record(Layer.REQUESTS, "TaskRun", entry.seen.namespace, entry.seen.name, error)
                entry.refusal = Fault(reasons.INTERNAL_ERROR, message)
                self.on_change(entry.seen)
                return _FAILED_S
        if (entry := self._deleted.get(uid)) is not None:
            await self._withdraw(entry, call)
        return None

    @staticmethod
    def _answer_of(call: Call) -> Call:
        """The same call; what it raises is no fault of the object: nobody leads here, or no longer."""

        async def ask(command: Submit | StartBackfill | CancelRun) -> Effect:
            try:
                return await call(command)
            except Exception as error:
                raise WorkFailed(repr(error), kind=type(error).__name__) from error

        return ask

    async def _withdraw(self, entry: RunEntry, call: Call) -> None:
        """The object is gone; without another one of the run, the run is cancelled, if it is still open."""
        if entry.run_id and entry.run_id not in self._of_run:
            message = f"TaskRun {entry.seen.name}, which asked for it, was deleted"
            await call(CancelRun(request=self._new_request(), run_id=entry.run_id, message=message))
        self._deleted.pop(entry.seen.uid, None)

    def _forget_deletions(self) -> None:
        """Those that a leader has long acted upon."""
        oldest = asyncio.get_running_loop().time() - _DELETIONS_S
        for uid in list(itertools.takewhile(lambda uid: self._deleted[uid].deleted_at < oldest, self._deleted)):
            del self._deleted[uid]

    async def _submit(self, entry: RunEntry, call: Call) -> float | None:
        request = entry.seen.request
        if request is None or not self._is_open(entry):
            return None
        if entry.state is None:
            answer = await call(self._submission(entry, request))
            if isinstance(answer, CommandRefused):
                return self._refused(entry, request, answer)
            self._answered(entry, answer)
        if request.cancel and entry.state is not None and not entry.state.is_final:
            answer = await call(
                CancelRun(
                    request=self._new_request(),
                    run_id=entry.run_id,
                    message=f"spec.cancel of TaskRun {entry.seen.name} was set",
                )
            )
            if isinstance(answer, CommandRefused):
                return self._refused(entry, request, answer)
            entry.cancelled = True
            self._answered(entry, answer)
        return None

    def _submission(self, entry: RunEntry, request: RunRequest) -> Submit | StartBackfill:
        if (span := request.backfill) is not None:
            return StartBackfill(
                request=self._new_request(),
                namespace=entry.seen.namespace,
                name=request.task,
                key=request.key,
                from_ms=span.from_ms,
                to_ms=span.to_ms,
                max_parallel=span.max_parallel,
                parameters=request.parameters,
                object_name=entry.seen.name,
            )
        scheduled_ms = self._now_ms() if request.scheduled_ms is None else request.scheduled_ms
        return Submit(
            request=self._new_request(),
            namespace=entry.seen.namespace,
            name=request.task,
            runs=[
                Submission(
                    key=request.key,
                    scheduled_ms=scheduled_ms,
                    parameters=request.parameters,
                    object_name=entry.seen.name,
                    delay_ms=request.delay_ms,
                    front=request.front,
                )
            ],
        )

    def _answered(self, entry: RunEntry, answer: Effect) -> None:
        if not isinstance(answer, Submitted):
            raise TypeError(f"a submission was answered by {type(answer).__name__}")
        run: SubmittedRun = answer.runs[0]
        self._stop_waiting(entry)
        entry.refusal = None
        entry.state = run.state
        entry.answered_at = asyncio.get_running_loop().time()
        self._know_run(entry, run.run_id)
        self.on_change(entry.seen)

    def _refused(self, entry: RunEntry, request: RunRequest, answer: CommandRefused) -> float:
        if answer.reason is RefusalReason.NO_SUCH_TASK:
            self._waiting_for.setdefault((entry.seen.namespace, request.task), {})[entry.seen.uid] = None
        now = asyncio.get_running_loop().time()
        if entry.refused_at is None:
            entry.refused_at = now
        if now < entry.refused_at + _PATIENCE_S:
            return _PATIENCE_S / 4  # applied together with its task, and seen first: that is no news for people
        if answer.reason is not RefusalReason.NOT_READY:
            entry.refusal = Fault(_REASONS[answer.reason], answer.detail)
            self.on_change(entry.seen)
        return _LOOK_AGAIN_S[answer.reason]

    def _know_run(self, entry: RunEntry, run_id: str) -> None:
        entry.run_id = run_id
        if entry.seen.uid in self._entries:  # it was not deleted while the answer was on its way
            self._of_run.setdefault(run_id, {})[entry.seen.uid] = None

    def _stop_waiting(self, entry: RunEntry) -> None:
        request = entry.seen.request
        if request is None:
            return
        key = (entry.seen.namespace, request.task)
        uids = self._waiting_for.get(key)
        if uids is not None:
            uids.pop(entry.seen.uid, None)
            if not uids:
                del self._waiting_for[key]
