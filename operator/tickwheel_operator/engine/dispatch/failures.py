"""What becomes of an attempt that failed, or whose worker was lost: it is tried again, or its run ends.

A wait before the next delivery lasts by the boot clock, and is written down by the wall clock for a successor.
"""

from __future__ import annotations

from collections.abc import Sequence

from tickwheel_operator.engine.dispatch.retry import backoff_ms
from tickwheel_operator.engine.dispatch.waiting import Waiting
from tickwheel_operator.engine.messages import FailedAttempt
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Dispatch
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.spec import EngineConfig, Guarantee
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.ledger import facts as f

__all__ = ["Failures"]

_UNKNOWN = "not tried again, since the ScheduledTask is invalid and what it said before is not known to this leader"


class Failures:
    """Decides of the attempts that failed."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        scheduler: Scheduler,
        waiting: Waiting,
        stats: Stats,
        config: EngineConfig,
    ) -> None:
        self._journal = journal
        self._state = state
        self._scheduler = scheduler
        self._waiting = waiting
        self._stats = stats
        self._config = config

    def lose_all(self, number: int, why: str) -> None:
        """The worker process with this number is gone, with all that it held."""
        for dispatch in self._state.attempts_of(number):
            if dispatch.token:  # the end of one before may have ended it
                self.fail(dispatch, f.FailureReason.LOST, message=f"the worker was lost: {why}")

    def undecided(self, failed: Sequence[FailedAttempt]) -> str:
        """Of which task this leader, whose watch is late, has not heard: whether it is tried again, the task says.
        Empty: of none."""
        for one in failed:
            dispatch = self._state.attempts.get(one.token)
            if dispatch is not None and dispatch.run.task.uid in self._scheduler.unheard:
                task = dispatch.run.task
                return f"this leader has not heard of ScheduledTask {task.namespace}/{task.name} yet; try again"
        return ""

    def reported(self, dispatch: Dispatch, failed: FailedAttempt) -> None:
        """The worker that holds the attempt says that it failed."""
        limit = self._config.max_error_chars
        self.fail(
            dispatch,
            f.FailureReason.TIMEOUT if failed.timeout else f.FailureReason.ERROR,
            error_type=failed.error_type[:200],
            message=failed.message[:limit],
            traceback=failed.traceback[-limit:],
            permanent=failed.permanent,
        )

    def fail(
        self,
        dispatch: Dispatch,
        reason: f.FailureReason,
        *,
        error_type: str = "",
        message: str = "",
        traceback: str = "",
        permanent: bool = False,
    ) -> None:
        """The open attempt has failed: it is tried again, or its run ends."""
        if dispatch.run.cancelling is not None:
            self._stopped(dispatch, dispatch.run.cancelling, message)
            return
        if dispatch.run.task.uid in self._scheduler.unheard:
            return  # a sweep decides, once the task is heard of and the lease has ended
        due_ms = None if permanent else self._due_again(dispatch, reason)
        retry_ms = 0 if due_ms is None else self._instant_of(due_ms, dispatch)
        if not self._scheduler.knows(dispatch.run.task):
            message = f"{message}; {_UNKNOWN}" if message else _UNKNOWN
        if retry_ms:
            # The text is kept for the failure that ends the run; a retried one would only fill the store.
            message, traceback = message[:500], ""
        self._stats.attempts_failed[reason] += 1
        self._journal.emit(f.Failed(dispatch.token, reason, retry_ms, error_type, message, traceback))
        if retry_ms:
            dispatch.due_boot_ms = due_ms
            self._waiting.ready(dispatch)

    def _due_again(self, dispatch: Dispatch, reason: f.FailureReason) -> int | None:
        """When the next delivery may begin, by the boot clock; None: never."""
        spec, attempts, boot = self._scheduler.spec(dispatch.run.task), dispatch.attempts, self._journal.boot_ms
        if attempts > spec.retry.limit or spec.guarantee is Guarantee.AT_MOST_ONCE:
            return None
        # An early lease may be lost before its instant, and a worker with a wrong clock begins, and fails, before it.
        earliest = max(boot, dispatch.due_boot_ms or 0)
        if reason is f.FailureReason.LOST:
            return earliest
        return max(boot + backoff_ms(spec.retry.backoff, attempts, dispatch.run.id), earliest)

    def _instant_of(self, due_ms: int, dispatch: Dispatch) -> int:
        """The same by the wall clock, for a successor; of an early lease not before its instant."""
        boot, instant_ms = self._journal.boot_ms, self._journal.now_ms + due_ms - self._journal.boot_ms
        return max(instant_ms, dispatch.ready_ms) if (dispatch.due_boot_ms or 0) > boot else instant_ms

    def _stopped(self, dispatch: Dispatch, why: str, told: str) -> None:
        """The attempt of a run that is being cancelled has ended: so does the run."""
        message = f"{why}; {told}" if why and told else why or told
        self._journal.emit(f.Cancelled(dispatch.run.number, message[: self._config.max_error_chars]))
