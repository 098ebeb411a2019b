"""TaskRun (`twr`): one run; made by the operator as a view, or by a user as a request.

Invariant: a request is what it was when it was made; only `spec.cancel` may change, to
true, and `spec.ttlSecondsAfterFinished`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tickwheel_operator.api.conditions import Conditions, ObservedGeneration
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.meaning import of_parameters
from tickwheel_operator.api.resource import AGE, Column, Presentation, Resource
from tickwheel_operator.api.runstate import Count, RunState
from tickwheel_operator.api.scheduledtask import ScheduledTaskSpec
from tickwheel_operator.api.schema import Flag, JsonObject, ListOf, Model, Rule, Whole, exactly_one
from tickwheel_operator.api.text import Choice, Duration, IdempotencyKey, Instant, ObjectName

__all__ = ["Backfill", "OnExpiry", "RunError", "TaskRun", "TaskRunSpec", "TaskRunStatus"]

FIXED_FIELDS = (
    "task", "taskTemplate", "parameters", "scheduledTime", "delay", "onExpiry", "idempotencyKey", "backfill",
)  # fmt: skip


class OnExpiry(Choice):
    """What happens when a delayed run's delay is over."""

    ENQUEUE = "Enqueue"
    FIRE_NOW = "FireNow"


class Backfill(Model):
    """A run for each instant of a span that the task's trigger names."""

    rules = (
        Rule(
            "self.from < self.to",
            "from must be before to",
            lambda span: span.from_.milliseconds < span.to.milliseconds,
        ),
    )

    from_: Annotated[Instant, Field(alias="from")]
    """The first instant that counts, RFC 3339: `2026-11-01T00:00:00Z`."""
    to: Instant
    """No instant at or after this one."""
    max_parallel: Annotated[Whole, Field(ge=1, le=1_000)] = 10
    """How many of the runs may be open at a time, 1 to 1000. They give way to the runs of instants that are due now."""


class TaskRunSpec(Model):
    """What is asked for."""

    rules = (
        exactly_one("task", "taskTemplate"),
        Rule(
            " && ".join(
                f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
                for field in FIXED_FIELDS
            ),
            "a run cannot be changed once it was asked for, but for cancel and ttlSecondsAfterFinished. "
            "Make another TaskRun",
        ),
        Rule("!oldSelf.cancel || self.cancel", "a cancel cannot be taken back. Make another TaskRun"),
        Rule(
            "!has(self.delay) || !has(self.scheduledTime)",
            "delay and scheduledTime exclude each other",
            lambda run: run.delay is None or run.scheduled_time is None,
        ),
        Rule(
            "!has(self.backfill) || !(has(self.scheduledTime) || has(self.delay) || has(self.taskTemplate))",
            "backfill excludes scheduledTime, delay and taskTemplate",
            lambda run: run.backfill is None or (run.scheduled_time, run.delay, run.task_template) == (None,) * 3,
        ),
    )

    task: ObjectName | None = None
    """The ScheduledTask of the same namespace that runs."""
    task_template: ScheduledTaskSpec | None = None
    """An inline ScheduledTask spec without a trigger, for one-off work."""
    parameters: JsonObject = Field(default_factory=dict, max_length=1_024)
    """Merged over the task's parameters, key by key. Up to 64 KiB."""
    scheduled_time: Instant | None = None
    """The logical instant that the handler is told, RFC 3339. Default: now."""
    delay: Duration | None = None
    """The run starts so long after it was asked for. Default: at once."""
    on_expiry: OnExpiry = OnExpiry.ENQUEUE
    """When the delay is over. Enqueue: at the tail of the queue, as other work. FireNow: ahead of the queue."""
    idempotency_key: IdempotencyKey | None = None
    """The same key is the same run. Default: the object's uid."""
    backfill: Backfill | None = None
    """Makes up for past instants: this run stands for one run of each instant from `from` until before `to` that the
    task's trigger names. It succeeds when all of them have, and `status.dispatches` counts them. An instant that
    an earlier backfill ran already is not run again."""
    ttl_seconds_after_finished: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = None
    """The object is deleted so many seconds after its run ended, as a Job's; it may change later. Default: when the
    task has more ended TaskRuns than its `spec.history` keeps, and an hour after the run ended at the earliest."""
    cancel: Flag = False
    """Set to true to cancel the run. It may change later."""


class RunError(Model):
    """Why the last attempt failed."""

    type: Annotated[str, Field(max_length=253)] | None = None
    """The error's type as the worker reported it, or the operator's own word: WorkerLost, Timeout."""
    message: Annotated[str, Field(max_length=32_768)] | None = None
    """What it says."""
    traceback: Annotated[str, Field(max_length=65_536)] | None = None
    """Where it was raised; a long one keeps its end."""


class TransferKind(Choice):
    BUSY = "Busy"
    FAILOVER = "Failover"


class Transfer(Model):
    """A dispatch moved to another worker."""

    time: Instant
    """When."""
    kind: TransferKind
    """Busy: before it started, since its worker was loaded. Failover: after its worker was lost."""
    from_: Annotated[str, Field(alias="from", max_length=253)]
    """The worker that had it."""
    to: Annotated[str, Field(max_length=253)] = ""
    """The worker that got it; empty: none yet."""
    reason: Annotated[str, Field(max_length=1_024)] = ""
    """Why."""


class Progress(Model):
    """How far the handler says it is."""

    percent: Annotated[Whole, Field(ge=0, le=100)] = 0
    """0 to 100."""
    message: Annotated[str, Field(max_length=1_024)] = ""
    """The handler's own words."""


class DispatchCounts(Model):
    """The run's dispatches; of a backfill its runs."""

    total: Count = 0
    """All that there are or will be."""
    succeeded: Count = 0
    """Of these, succeeded."""
    failed: Count = 0
    """Of these, failed for good."""


class TaskRunStatus(Model):
    """Where the run is; written at a bounded rate, so it may be a second old."""

    observed_generation: ObservedGeneration | None = None
    """The generation that this status speaks of."""
    conditions: Conditions = ()
    """Running and Succeeded (True, False, Unknown while it is open); Stalled: the request cannot be met. The reason
    says why an open run does not run (Delayed, WaitsForRetry, WaitsForOverlap), or that it must stop (Cancelling)."""
    run_id: Annotated[str, Field(max_length=253)] | None = None
    """The run's identifier; the same firing has the same one, whoever makes it."""
    state: RunState | None = None
    """Pending, Running, Succeeded, Failed or Cancelled."""
    scheduled_time: Instant | None = None
    """The logical instant."""
    start_time: Instant | None = None
    """When a worker first took it."""
    completion_time: Instant | None = None
    """When it ended."""
    lateness: Annotated[str, Field(max_length=32)] | None = None
    """Start minus scheduled instant: `3ms`."""
    attempts: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = None
    """Deliveries so far."""
    worker: Annotated[str, Field(max_length=253)] | None = None
    """The worker that has or had the last attempt."""
    transfers: Annotated[tuple[Transfer, ...], ListOf(most=20)] = ()
    """Moves to other workers, the newest 20."""
    progress: Progress | None = None
    """How far the handler says it is."""
    dispatches: DispatchCounts | None = None
    """Dispatches of the run; of a backfill its runs."""
    result: Any = None
    """What the handler returned, any JSON, up to 64 KiB."""
    error: RunError | None = None
    """Why the last attempt failed."""


class TaskRun(Resource):
    """One run of a task: a view of what happened, or a request to run."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="taskruns",
        short="twr",
        columns=(
            Column(name="Task", path=".spec.task", description="The task that runs"),
            Column(name="State", path=".status.state", description="Where the run is"),
            Column(name="Scheduled", path=".status.scheduledTime", description="The logical instant"),
            Column(name="Lateness", path=".status.lateness", description="Start minus scheduled instant"),
            Column(name="Attempts", path=".status.attempts", type="integer", description="Deliveries so far"),
            Column(name="Worker", path=".status.worker", description="The last attempt's worker"),
            Column(name="Error", path=".status.error.type", wide=True, description="Why it failed"),
            Column(
                name="Message",
                path=".status.conditions[?(@.type=='Succeeded')].message",
                wide=True,
                description="Why it failed, or was refused",
            ),
            AGE,
        ),
        selectable=(".spec.task", ".status.state"),
    )
    status_model: ClassVar[type[Model] | None] = TaskRunStatus

    kind: Literal["TaskRun"] = "TaskRun"
    spec: TaskRunSpec

    def faults_of_meaning(self) -> Iterator[FieldFault]:
        if self.spec.task_template is not None:
            yield from _of_template(self.spec.task_template, "spec.taskTemplate", self.identity)
        yield from of_parameters(self.spec.parameters, "spec.parameters")


def _of_template(spec: ScheduledTaskSpec, path: str, identity: str) -> Iterator[FieldFault]:
    if spec.trigger is not None:
        yield FieldFault(f"{path}.trigger", "a run has no trigger; leave it out, or make a ScheduledTask")
    yield from spec.model_copy(update={"trigger": None}).faults_of_meaning(path, identity)
