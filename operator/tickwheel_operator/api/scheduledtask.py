"""ScheduledTask (`twt`): a trigger, a handler name, parameters and policies.

Invariant: the whole spec is here, also what this version does not do; `supported` names what it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tickwheel_operator.api.conditions import Conditions, ObservedGeneration
from tickwheel_operator.api.delivery import Delivery, Retry
from tickwheel_operator.api.execution import Execution
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.meaning import of_parameters, of_trigger
from tickwheel_operator.api.policies import Alert, Concurrency, History, Misfire, RateLimit
from tickwheel_operator.api.resource import AGE, READY, Column, Presentation, Resource
from tickwheel_operator.api.routing import Routing
from tickwheel_operator.api.runstate import Counters, LastRun, Skip
from tickwheel_operator.api.schema import Flag, JsonObject, ListOf, Model, Whole
from tickwheel_operator.api.text import HandlerName, Instant, JsonPointer, Label, LaneName
from tickwheel_operator.api.trigger import Trigger

__all__ = ["ScheduledTask", "ScheduledTaskSpec", "ScheduledTaskStatus"]


class ScheduledTaskSpec(Model):
    """What runs, when, where, and what is promised."""

    trigger: Trigger | None = None
    """When the task fires: at most one of `cron`, `fixedRate`, `fixedDelay`, `dailyInterval`, `once` and
    `completion`; the other fields modify it. Without one the task runs by hand, by the API and in workflows
    only."""
    suspend: Flag = False
    """Pause: nothing fires by itself; open runs go on. When it ends, `misfire` decides about the instants that passed:
    by default one run stands for all of them."""
    pool: Label
    """The WorkerPool of the same namespace whose workers run it."""
    handler: HandlerName
    """The name that workers register: `@task("shop-sync")`."""
    parameters: JsonObject = Field(default_factory=dict, max_length=1_024)
    """Any JSON object, up to 64 KiB; the handler gets it."""
    execution: Execution | None = None
    """How a run is divided into dispatches: at most one of `single`, `broadcast`, `sharded`, `map` and `mapReduce`.
    Default: single."""
    concurrency: Concurrency = Concurrency()
    """What happens when a run is due while earlier ones are still open."""
    misfire: Misfire = Misfire()
    """What becomes of instants that passed while nobody could fire them."""
    delivery: Delivery = Delivery()
    """What is promised when a worker is lost, and how long things may take."""
    retry: Retry = Retry()
    """What follows a failed attempt."""
    routing: Routing = Routing()
    """Which worker of the pool gets a dispatch."""
    ordering_key: JsonPointer | None = None
    """A JSON pointer into the parameters: runs with equal values there go first in, first out. Default: no
    order."""
    priority: Annotated[Whole, Field(ge=-1_000, le=1_000)] = 0
    """Higher goes first, -1000 to 1000."""
    lane: LaneName = LaneName("Auto")
    """A lane of the pool; Auto: learnt from the task's measured durations."""
    rate_limit: RateLimit | None = None
    """The most dispatches of this task per period. Default: no limit."""
    history: History = History()
    """How much of ended runs is kept."""
    task_metrics: Flag = False
    """Count the runs of this task by itself, in the metrics tickwheel_task_*: for a task that a team has alerts of its
    own on. For as many tasks of the cluster as the operator's setting metrics_max_tasks allows, 100 by default."""
    alerts: Annotated[tuple[Alert, ...], ListOf(most=16, key="channel")] = ()
    """Who is told of failures and misses."""

    def faults_of_meaning(self, path: str, identity: str) -> Iterator[FieldFault]:
        """What no schema can check of the spec at `path`."""
        yield from of_trigger(self.trigger, f"{path}.trigger", identity)
        yield from of_parameters(self.parameters, f"{path}.parameters")
        execution = self.execution
        if execution is not None and execution.sharded is not None:
            shards = execution.sharded.shards
            for index in execution.sharded.parameters:
                if not (index.isascii() and index.isdigit() and str(int(index)) == index and int(index) < shards):
                    yield FieldFault(
                        f"{path}.execution.sharded.parameters",
                        f"{index!r} is not the index of a shard; 0 to {shards - 1} are allowed, in quotes",
                    )


class ScheduledTaskStatus(Model):
    """What the operator last saw; written at a bounded rate, so it may be a second old."""

    observed_generation: ObservedGeneration | None = None
    """The generation that this status speaks of."""
    conditions: Conditions = ()
    """Ready (its reason: Armed, Suspended, Manual, or Ended: no instant is left), Reconciling, Stalled (the message
    names the field to mend)."""
    trigger: Annotated[str, Field(max_length=300)] | None = None
    """The trigger on one line."""
    next_schedule_time: Instant | None = None
    """The next instant; none: it will not fire by itself."""
    last_schedule_time: Instant | None = None
    """The last instant that fired."""
    settled_time: Instant | None = None
    """Instants up to this one made their run, or are counted in `skips`. An operator whose ledger was lost goes on from
    here."""
    last_run: LastRun | None = None
    """The newest run."""
    active: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = None
    """Runs that have not ended."""
    counters: Counters | None = None
    """Runs and instants since the task was created."""
    skips: Annotated[tuple[Skip, ...], ListOf(most=32, key="reason")] = ()
    """Instants that made no run, by reason."""


class ScheduledTask(Resource):
    """Runs a handler on warm workers, on a schedule or on demand."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="scheduledtasks",
        short="twt",
        columns=(
            Column(name="Trigger", path=".status.trigger", description="When it fires"),
            Column(name="Zone", path=".spec.trigger.timeZone", description="The time zone of its trigger"),
            Column(name="Suspended", path=".spec.suspend", type="boolean", description="Paused"),
            Column(name="Active", path=".status.active", type="integer", description="Runs that have not ended"),
            Column(name="Last", path=".status.lastScheduleTime", type="date", description="The last firing"),
            Column(name="Next", path=".status.nextScheduleTime", description="The next firing"),
            READY,
            Column(name="Pool", path=".spec.pool", wide=True),
            Column(name="Handler", path=".spec.handler", wide=True),
            Column(
                name="Message", path=".status.conditions[?(@.type=='Ready')].message", wide=True,
                description="Why it is or is not ready",
            ),
            Column(
                name="Stalled", path=".status.conditions[?(@.type=='Stalled')].message", wide=True,
                description="What somebody has to mend, also of a task that fires: a handler that nobody registered",
            ),
            AGE,
        ),
        selectable=(".spec.pool", ".spec.handler"),
    )  # fmt: skip
    status_model: ClassVar[type[Model] | None] = ScheduledTaskStatus
    name_limit: ClassVar[int] = 200

    kind: Literal["ScheduledTask"] = "ScheduledTask"
    spec: ScheduledTaskSpec

    def faults_of_meaning(self) -> Iterator[FieldFault]:
        yield from self.spec.faults_of_meaning("spec", self.identity)
