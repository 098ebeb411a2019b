"""WorkerPool (`twp`): the workers that run tasks, and how work waits for them.

Invariant: `spec.replicas` is written through the scale subresource as any autoscaler does it, so it has a
default and is never missing.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tickwheel_operator.api.conditions import Conditions, ObservedGeneration
from tickwheel_operator.api.policies import RateLimit
from tickwheel_operator.api.resource import AGE, READY, Column, Presentation, Resource, Scale
from tickwheel_operator.api.runstate import Count
from tickwheel_operator.api.schema import Flag, JsonObject, ListOf, Model, Rule, Whole
from tickwheel_operator.api.text import (
    Choice,
    Duration,
    HandlerName,
    JsonPointer,
    Label,
    ObjectName,
    Percent,
    PositiveDuration,
    ProgressDeadline,
)

__all__ = [
    "Access",
    "Autoscaling",
    "Busy",
    "Discipline",
    "Ejection",
    "Lane",
    "Overflow",
    "PodTemplate",
    "Queue",
    "WorkerPool",
    "WorkerPoolSpec",
    "WorkerPoolStatus",
]

LabelValue = Annotated[str, Field(max_length=63)]
Replicas = Annotated[Whole, Field(ge=0, le=10_000)]
AnnotationValue = Annotated[str, Field(max_length=65_536)]
Slots = Annotated[Whole, Field(ge=1, le=10_000)]


class PodMetadata(Model):
    """Labels and annotations of the pods."""

    labels: dict[str, LabelValue] = Field(default_factory=dict, max_length=64)
    """Labels of each pod, beside the operator's own; none of tickwheel.io."""
    annotations: dict[str, AnnotationValue] = Field(default_factory=dict, max_length=64)
    """Annotations of each pod."""


class PodTemplate(Model):
    """The worker pods."""

    metadata: PodMetadata | None = None
    """Labels and annotations of the pods."""
    spec: Annotated[JsonObject, Field(min_length=1)]
    """A pod's spec, as in a Deployment: `{containers: [{name: worker, image: ...}]}`. The container called worker, else
    the first, is told by its environment what the SDK must know. Access to the node is refused (`hostNetwork`,
    `hostPath`, `privileged` and the like), and so are ServiceAccounts that are not for workers."""


class Access(Model):
    """Who may work for the pool."""

    service_accounts: Annotated[tuple[ObjectName, ...], ListOf(most=64, unique=True)] = ()
    """ServiceAccounts of the same namespace whose tokens the gateway lets in as workers of this pool."""


class Lane(Model):
    """A part of a worker's slots, so that long work never blocks short work."""

    rules = (
        Rule(
            "!has(self.limit) || !has(self.reserved) || self.reserved <= self.limit",
            "reserved may not be more than limit",
            lambda lane: lane.limit is None or lane.reserved <= lane.limit,
        ),
    )

    name: Label
    """The name that tasks use."""
    reserved: Annotated[Whole, Field(ge=0, le=10_000)] = 0
    """Slots of each worker that nothing else may take."""
    limit: Slots | None = None
    """The most slots of each worker that the lane may take. Default: all."""
    up_to: PositiveDuration | None = None
    """Tasks in lane Auto whose runs usually take no longer belong here."""


class Discipline(Choice):
    """Which waiting dispatch goes next."""

    PRIORITY = "Priority"
    FAIR = "Fair"
    DEADLINE = "Deadline"
    FIFO = "Fifo"


class Overflow(Choice):
    """What happens above the queue's limit."""

    SPILL = "Spill"
    REJECT = "Reject"
    DROP_OLDEST = "DropOldest"


class Queue(Model):
    """How work waits for a free slot."""

    rules = (
        Rule(
            "!has(self.fairKey) || self.discipline == 'Fair'",
            "fairKey belongs to the discipline Fair",
            lambda queue: queue.fair_key is None or queue.discipline is Discipline.FAIR,
        ),
    )

    discipline: Discipline = Discipline.PRIORITY
    """Priority: the higher first, raised while it waits (`ageing`). Fair: each value of `fairKey` in turn.
    Deadline: the earliest first. Fifo: first in, first out. Equals go first in, first out."""
    ageing: PositiveDuration = PositiveDuration("30s")
    """Priority only: each such span of waiting raises the priority by one."""
    fair_key: JsonPointer | None = None
    """Fair only: a JSON pointer into the parameters, `/tenant`. Default: the task."""
    limit: Annotated[Whole, Field(ge=1, le=10_000_000)] = 100_000
    """The most dispatches that wait."""
    overflow: Overflow = Overflow.REJECT
    """Above the limit. Reject: schedules skip an instant and submissions are refused (429). Spill: they stay in the
    ledger. DropOldest: the oldest fails."""


class Busy(Model):
    """When a worker counts as busy. It is idle again when it is `recover` below all of these."""

    slots: Percent = Percent("100%")
    """Slots in use."""
    cpu: Percent | None = None
    """CPU in use, of its limit. Default: not looked at."""
    memory: Percent | None = None
    """Memory in use, of its limit. Default: not looked at."""
    recover: Percent = Percent("10%")
    """How far below it must fall to be idle again."""


class Ejection(Model):
    """A circuit breaker per worker and handler."""

    consecutive_failures: Annotated[Whole, Field(ge=1, le=1_000)] = 5
    """Failures in a row that leave the worker out."""
    base: PositiveDuration = PositiveDuration("10s")
    """How long the first time; each further time twice as long."""
    max: PositiveDuration = PositiveDuration("5m")
    """How long at most."""


class Autoscaling(Model):
    """How many workers the pool has: as many as its backlog, its running work and the instants to come need.
    `status.desiredReplicas` says how many, `status.scaling` why; `spec.replicas` is left alone and not looked at."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas may not be more than maxReplicas",
            lambda scaling: scaling.min_replicas <= scaling.max_replicas,
        ),
    )

    min_replicas: Replicas = 0
    """The fewest workers; 0: none while there is no work."""
    max_replicas: Annotated[Whole, Field(ge=1, le=10_000)]
    """The most workers."""
    target_backlog_per_slot: Annotated[Whole, Field(ge=1, le=10_000)] = 2
    """Waiting dispatches per slot that are aimed at. 1: a slot for each."""
    warm_up: Duration = Duration("30s")
    """Workers start so long before a known instant needs them. Longer than a pod takes to be ready."""
    scale_down_delay: Duration = Duration("2m")
    """A surplus must last so long before workers go, and a pool must be idle so long before it has none."""


class WorkerPoolSpec(Model):
    """The workers, and how work waits for them."""

    rules = (
        Rule(
            "!has(self.autoscaling) || has(self.template)",
            "autoscaling needs a template: the workers of an external pool are started elsewhere",
            lambda spec: spec.autoscaling is None or spec.template is not None,
        ),
        # `kubectl scale` would say "scaled". 1 is what a manifest without replicas has.
        Rule(
            "!has(self.autoscaling) || !has(oldSelf.autoscaling) || self.replicas == oldSelf.replicas"
            " || self.replicas == 1",
            "spec.autoscaling chooses the number of workers of this pool, and replicas is not looked at: change "
            "spec.autoscaling.minReplicas or maxReplicas, or take autoscaling away",
        ),
    )

    replicas: Replicas = 1
    """How many workers, 0 to 10000 (`kubectl scale twp/shops --replicas=5`). Leave it out of the manifest when
    `autoscaling` is set. Without a `template` it is not used."""
    slots: Slots = 16
    """Concurrent attempts per worker, 1 to 10000."""
    template: PodTemplate | None = None
    """The worker pods, which the operator keeps as the Deployment `<name>-workers`. None: an external pool, whose
    workers run elsewhere and connect to the gateway."""
    access: Access = Access()
    """Who may work for the pool."""
    lanes: Annotated[tuple[Lane, ...], ListOf(most=16, key="name")] = ()
    """Parts of the slots, so that long work never blocks short work. Default: one lane for all."""
    queue: Queue = Queue()
    """How work waits for a free slot."""
    rate_limit: RateLimit | None = None
    """The most dispatches of the pool per period. Default: no limit."""
    busy: Busy = Busy()
    """When a worker counts as busy."""
    ejection: Ejection | None = None
    """Leave out workers that keep failing a handler. Default: never."""
    silence: PositiveDuration = PositiveDuration("10s")
    """No word from a worker for so long: it is lost."""
    drain_timeout: Duration = Duration("60s")
    """How long a worker that goes may finish what it has, up to 24h. Without a `template` it is not used: such workers
    have a limit of their own (TICKWHEEL_DRAIN_TIMEOUT)."""
    progress_deadline: ProgressDeadline = ProgressDeadline("5m")
    """Pods that do not become ready, without any progress, are `Stalled` after this, 30s to 24h. Without a `template`
    it is not used."""
    autoscaling: Autoscaling | None = None
    """Let the operator choose the number of workers. Default: `replicas` is fixed."""


class SlotUse(Model):
    """Slots of all live workers."""

    total: Count = 0
    """Slots there are."""
    used: Count = 0
    """Slots that run an attempt."""
    free: Count = 0
    """Slots of workers that take new work, less those in use."""


class PoolLoad(Model):
    """Mean over the live workers, as they report it of their containers; in steps of 5%."""

    cpu: Percent | None = None
    """CPU in use, of the limits."""
    memory: Percent | None = None
    """Memory in use, of the limits."""


class PoolUsage(Model):
    """Sum over the worker pods, as `kubectl top pods` shows them; where the cluster has a metrics server."""

    cpu: Annotated[str, Field(max_length=32)]
    """CPU in use, such as 120m."""
    memory: Annotated[str, Field(max_length=32)]
    """Memory in use, such as 310Mi."""
    pods: Count
    """Pods that were measured."""


class RegisteredHandler(Model):
    """A handler that live workers registered. The SDK makes its JSON Schemas of the function's annotations."""

    name: HandlerName
    """What tasks call it by."""
    parameters: JsonObject | None = None
    """The JSON Schema of its parameters. Absent: the worker registered none, or there is no room here."""
    result: JsonObject | None = None
    """The JSON Schema of its result. Absent: as for `parameters`, or it may be anything."""
    differ: Flag | None = None
    """Live workers registered different schemas, as during a rollout, or some have none: those that came last are
    shown, and parameters are taken if any of them allows them."""


class WorkerPoolStatus(Model):
    """What the operator last saw; written at a bounded rate, so it may be a second old."""

    observed_generation: ObservedGeneration | None = None
    """The generation that this status speaks of."""
    conditions: Conditions = ()
    """Ready, Reconciling, Stalled (the message names the field to mend)."""
    desired_replicas: Count | None = None
    """Workers that there should be: `spec.replicas`, or what autoscaling asks for. Absent for an external pool."""
    replicas: Count | None = None
    """Workers there are: pods of the template, or connected workers of an external pool."""
    ready_replicas: Count | None = None
    """Workers that are connected and take work; of a pool with a template, those whose pod is ready."""
    draining: Count | None = None
    """Workers that finish what they have and take nothing new."""
    slots: SlotUse | None = None
    """Slots of all live workers."""
    backlog: Count | None = None
    """Dispatches that wait for a slot."""
    load: PoolLoad | None = None
    """Mean load of the live workers."""
    usage: PoolUsage | None = None
    """What the pods use in all."""
    scaling: Annotated[str, Field(max_length=1_024)] | None = None
    """Why autoscaling asks for so many workers."""
    handlers: Annotated[tuple[RegisteredHandler, ...], ListOf(most=1_000, key="name")] = ()
    """Handlers that live workers registered. Their schemas take up to 32 KiB in all; beyond it only names are shown."""
    selector: Annotated[str, Field(max_length=1_024)] | None = None
    """The label selector of the pool's pods, for the scale subresource."""


class WorkerPool(Resource):
    """A set of warm workers."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="workerpools",
        short="twp",
        columns=(
            Column(
                name="Desired", path=".status.desiredReplicas", type="integer", description="Workers there should be"
            ),
            Column(name="Workers", path=".status.replicas", type="integer", description="Workers there are"),
            Column(name="Up", path=".status.readyReplicas", type="integer", description="Workers that take work"),
            Column(name="Used", path=".status.slots.used", type="integer", description="Slots in use"),
            Column(name="Slots", path=".status.slots.total", type="integer", description="Slots there are"),
            Column(name="Backlog", path=".status.backlog", type="integer", description="Dispatches that wait"),
            Column(name="CPU", path=".status.usage.cpu", wide=True, description="CPU in use, of all pods"),
            Column(name="Memory", path=".status.usage.memory", wide=True, description="Memory in use, of all pods"),
            Column(name="Scaling", path=".status.scaling", wide=True, description="Why so many workers"),
            Column(
                name="Message",
                path=".status.conditions[?(@.type=='Ready')].message",
                wide=True,
                description="Why it is or is not ready",
            ),
            READY,
            AGE,
        ),
        scale=Scale(),
    )
    status_model: ClassVar[type[Model] | None] = WorkerPoolStatus
    name_limit: ClassVar[int] = 63

    kind: Literal["WorkerPool"] = "WorkerPool"
    spec: WorkerPoolSpec = WorkerPoolSpec()
