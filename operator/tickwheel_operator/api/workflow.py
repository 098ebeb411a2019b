"""Workflow (`twf`): a graph of tasks. Invariant: a node does exactly one thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tickwheel_operator.api.conditions import Conditions, ObservedGeneration
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.meaning import of_parameters, of_trigger, of_zone
from tickwheel_operator.api.policies import Concurrency, History, Misfire
from tickwheel_operator.api.resource import AGE, READY, Column, Presentation, Resource
from tickwheel_operator.api.runstate import Counters, LastRun
from tickwheel_operator.api.schema import Flag, JsonObject, ListOf, Model, Rule, Whole, exactly_one
from tickwheel_operator.api.text import (
    Choice,
    ClockTime,
    Expression,
    HandlerName,
    Instant,
    Label,
    ObjectName,
    PositiveDuration,
    TimeZone,
)
from tickwheel_operator.api.trigger import Trigger

__all__ = ["Approve", "ForEach", "Join", "Node", "Wait", "Workflow", "WorkflowSpec", "WorkflowStatus"]

GroupName = Annotated[str, Field(min_length=1, max_length=253)]
_FAILURE_RULE = "^(Fail|Continue|Skip|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"


class Join(Choice):
    """Which ends of the nodes in `dependsOn` let a node start."""

    ALL = "All"
    ANY = "Any"
    ALL_DONE = "AllDone"
    NONE_FAILED = "NoneFailed"


class ForEach(Model):
    """Run the node once for each item."""

    items: Expression
    """A CEL expression that gives a list: `nodes.extract.result.shops`."""
    parallelism: Annotated[Whole, Field(ge=1, le=10_000)] = 10
    """How many at once, 1 to 10000."""


class Approve(Model):
    """Wait for a person."""

    timeout: PositiveDuration | None = None
    """How long to wait; then the node fails. Default: no limit."""
    groups: Annotated[tuple[GroupName, ...], ListOf(most=32, unique=True)] = ()
    """Groups whose members may approve. Default: whoever may update the run."""


class Wait(Model):
    """Wait for a time."""

    rules = (exactly_one("until", "duration"),)

    until: ClockTime | None = None
    """The next such time of day: `"18:00"` (in quotes)."""
    duration: PositiveDuration | None = None
    """So long: `10m`."""
    time_zone: TimeZone = TimeZone("UTC")
    """The IANA time zone of `until`."""


class Node(Model):
    """One step of a workflow."""

    rules = (
        exactly_one("task", "handler", "workflow", "approve", "wait"),
        Rule(
            "has(self.handler) == has(self.pool)",
            "handler and pool belong together; set both or none",
            lambda node: (node.handler is None) == (node.pool is None),
        ),
    )

    name: Label
    """The name that other nodes and expressions use."""
    task: ObjectName | None = None
    """Run this ScheduledTask of the same namespace."""
    handler: HandlerName | None = None
    """Run this handler on `pool`, without a ScheduledTask."""
    workflow: ObjectName | None = None
    """Run this Workflow of the same namespace."""
    approve: Approve | None = None
    """Wait for a person."""
    wait: Wait | None = None
    """Wait for a time."""
    pool: Label | None = None
    """The WorkerPool of `handler`."""
    parameters: JsonObject = Field(default_factory=dict, max_length=1_024)
    """Merged over the task's parameters; `${...}` holds a CEL expression: `{day: "${params.day}"}`."""
    depends_on: Annotated[tuple[Label, ...], ListOf(most=100, unique=True)] = ()
    """Nodes that must have ended, as `join` says. Default: it starts at once."""
    join: Join = Join.ALL
    """All: all of them succeeded. Any: one of them did. AllDone: all ended. NoneFailed: all ended, none failed."""
    when: Expression | None = None
    """A CEL expression; false: the node is skipped. `nodes.extract.result.count > 0`"""
    for_each: ForEach | None = None
    """Run the node once for each item of a list."""
    on_failure: Annotated[str, Field(max_length=63, pattern=_FAILURE_RULE)] = "Fail"
    """Fail: the run fails. Continue: as if it had succeeded. Skip: what depends on it is skipped. Or the name of a
    node that runs instead."""
    compensate: ObjectName | None = None
    """A ScheduledTask that undoes the node when the run fails later."""
    timeout: PositiveDuration | None = None
    """How long the node may take with all its attempts. Default: no limit."""


class WorkflowSpec(Model):
    """The graph, and when it runs."""

    trigger: Trigger | None = None
    """When the workflow fires; the same vocabulary as a ScheduledTask's. Without one it runs by hand and by the API
    only."""
    suspend: Flag = False
    """Pause: nothing fires by itself. Open runs go on."""
    concurrency: Concurrency = Concurrency()
    """What happens when a run is due while earlier ones are still open."""
    misfire: Misfire = Misfire()
    """What becomes of instants that passed while nobody could fire them."""
    timeout: PositiveDuration | None = None
    """How long a run may take. Default: no limit."""
    parameters: JsonObject = Field(default_factory=dict, max_length=1_024)
    """JSON Schema of the run's parameters. Default: any object."""
    nodes: Annotated[tuple[Node, ...], ListOf(least=1, most=500, key="name")]
    """The steps."""
    history: History = History()
    """How much of ended runs is kept."""


class WorkflowStatus(Model):
    """What the operator last saw; written at a bounded rate, so it may be a second old."""

    observed_generation: ObservedGeneration | None = None
    """The generation that this status speaks of."""
    conditions: Conditions = ()
    """Ready (armed), Reconciling, Stalled (the message names the field to mend)."""
    trigger: Annotated[str, Field(max_length=300)] | None = None
    """The trigger on one line."""
    next_schedule_time: Instant | None = None
    """The next instant; none: it will not fire by itself."""
    last_schedule_time: Instant | None = None
    """The last instant that fired."""
    last_run: LastRun | None = None
    """The newest run."""
    active: Annotated[Whole, Field(ge=0, le=2**31 - 1)] | None = None
    """Runs that have not ended."""
    counters: Counters | None = None
    """Runs and instants since the workflow was created."""


class Workflow(Resource):
    """A graph of tasks."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="workflows",
        short="twf",
        columns=(
            Column(name="Trigger", path=".status.trigger", description="When it fires"),
            Column(name="Zone", path=".spec.trigger.timeZone", description="The time zone of its trigger"),
            Column(name="Suspended", path=".spec.suspend", type="boolean", description="Paused"),
            Column(name="Active", path=".status.active", type="integer", description="Runs that have not ended"),
            Column(name="Last", path=".status.lastScheduleTime", type="date", description="The last firing"),
            Column(name="Next", path=".status.nextScheduleTime", description="The next firing"),
            READY,
            AGE,
        ),
    )
    status_model: ClassVar[type[Model] | None] = WorkflowStatus
    name_limit: ClassVar[int] = 200

    kind: Literal["Workflow"] = "Workflow"
    spec: WorkflowSpec

    def faults_of_meaning(self) -> Iterator[FieldFault]:
        yield from of_trigger(self.spec.trigger, "spec.trigger", self.identity)
        yield from _of_graph(self.spec.nodes)


def _of_graph(nodes: tuple[Node, ...]) -> Iterator[FieldFault]:
    names = {node.name for node in nodes}
    for position, node in enumerate(nodes):
        path = f"spec.nodes[{position}]"
        yield from of_parameters(node.parameters, f"{path}.parameters")
        if node.wait is not None:
            yield from of_zone(node.wait.time_zone, f"{path}.wait.timeZone")
        for place, wanted in enumerate(node.depends_on):
            if wanted not in names:
                known = ", ".join(sorted(names))
                yield FieldFault(f"{path}.dependsOn[{place}]", f"{wanted!r} is not a node; there are {known}")
        if node.on_failure not in {"Fail", "Continue", "Skip"} | names:
            yield FieldFault(f"{path}.onFailure", f"{node.on_failure!r} is neither Fail, Continue, Skip nor a node")
    waiting = {node.name: {name for name in node.depends_on if name in names} for node in nodes}
    while free := [name for name, before in waiting.items() if not before]:
        for name in free:
            del waiting[name]
        for before in waiting.values():
            before.difference_update(free)
    if waiting:
        yield FieldFault("spec.nodes", f"these wait for each other in a circle: {', '.join(sorted(waiting))}")
