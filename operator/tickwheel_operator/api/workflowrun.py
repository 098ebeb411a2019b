"""WorkflowRun (`twfr`): one run of a workflow; made by the operator as a view, or by a user as a request.

Invariant: a request is what it was when it was made; only `suspend` and `cancel` may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tickwheel_operator.api.conditions import Conditions, ObservedGeneration
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.meaning import of_parameters
from tickwheel_operator.api.resource import AGE, Column, Presentation, Resource
from tickwheel_operator.api.runstate import RunState
from tickwheel_operator.api.schema import Flag, JsonObject, ListOf, Model, Rule
from tickwheel_operator.api.text import Choice, IdempotencyKey, Instant, Label, ObjectName

__all__ = ["WorkflowRun", "WorkflowRunSpec", "WorkflowRunStatus"]

FIXED_FIELDS = ("workflow", "parameters", "scheduledTime", "idempotencyKey")


class WorkflowRunSpec(Model):
    """What is asked for."""

    rules = (
        Rule(
            " && ".join(
                f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
                for field in FIXED_FIELDS
            ),
            "a run cannot be changed once it was asked for; only suspend and cancel may. Make another WorkflowRun",
        ),
        Rule("!oldSelf.cancel || self.cancel", "a cancel cannot be taken back. Make another WorkflowRun"),
    )

    workflow: ObjectName
    """The Workflow of the same namespace that runs."""
    parameters: JsonObject = Field(default_factory=dict, max_length=1_024)
    """The run's parameters, as the workflow's JSON Schema allows them. Up to 64 KiB."""
    scheduled_time: Instant | None = None
    """The logical instant that the nodes are told, RFC 3339. Default: now."""
    idempotency_key: IdempotencyKey | None = None
    """The same key is the same run. Default: the object's uid."""
    suspend: Flag = False
    """Start no further nodes until it is false again."""
    cancel: Flag = False
    """Set to true to cancel the run."""


class NodeState(Choice):
    """Where a node is."""

    PENDING = "Pending"
    RUNNING = "Running"
    WAITING = "Waiting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"
    COMPENSATED = "Compensated"


class NodeStatus(Model):
    """One node of the run."""

    name: Label
    """The node."""
    state: NodeState
    """Pending, Running, Waiting, Succeeded, Failed, Skipped, Cancelled or Compensated."""
    run: Annotated[str, Field(max_length=253)] | None = None
    """Its TaskRun or WorkflowRun."""
    start_time: Instant | None = None
    """When it started."""
    completion_time: Instant | None = None
    """When it ended."""
    message: Annotated[str, Field(max_length=1_024)] | None = None
    """Why it is in this state."""


class WorkflowRunStatus(Model):
    """Where the run is; written at a bounded rate, so it may be a second old."""

    observed_generation: ObservedGeneration | None = None
    """The generation that this status speaks of."""
    conditions: Conditions = ()
    """Running and Succeeded (True, False, Unknown while it is open); Stalled: the request cannot be met."""
    run_id: Annotated[str, Field(max_length=253)] | None = None
    """The run's identifier."""
    state: RunState | None = None
    """Pending, Running, Succeeded, Failed or Cancelled."""
    scheduled_time: Instant | None = None
    """The logical instant."""
    start_time: Instant | None = None
    """When its first node started."""
    completion_time: Instant | None = None
    """When it ended."""
    nodes: Annotated[tuple[NodeStatus, ...], ListOf(most=500, key="name")] = ()
    """The nodes."""
    result: Any = None
    """The results of the last nodes, any JSON."""


class WorkflowRun(Resource):
    """One run of a workflow: a view of what happened, or a request to run."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="workflowruns",
        short="twfr",
        columns=(
            Column(name="Workflow", path=".spec.workflow", description="The workflow that runs"),
            Column(name="State", path=".status.state", description="Where the run is"),
            Column(name="Scheduled", path=".status.scheduledTime", description="The logical instant"),
            AGE,
        ),
        selectable=(".spec.workflow", ".status.state"),
    )
    status_model: ClassVar[type[Model] | None] = WorkflowRunStatus

    kind: Literal["WorkflowRun"] = "WorkflowRun"
    spec: WorkflowRunSpec

    def faults_of_meaning(self) -> Iterator[FieldFault]:
        yield from of_parameters(self.spec.parameters, "spec.parameters")
