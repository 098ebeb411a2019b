"""The gateway protocol, version 1: the messages between workers, API users and the operator.

JSON over HTTP(S); the worker always calls. `gateway.openapi` makes the OpenAPI document from these types, so a field's
docstring is its documentation. Between workers and the operator unknown fields are ignored on both sides, so that
either may be newer; in what users ask for they are refused, so that a misspelt one is not ignored in silence. Instants
are integers: milliseconds since the Unix epoch, UTC. The SDK has its own copy of these shapes
(`worker-sdk/tickwheel/_protocol.py`), since it must not depend on the operator; a test holds the two together.

What a worker or user sends is bounded here, in the types: the decoder refuses what is out of bounds with its path, and
the OpenAPI document shows the same bounds.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from tickwheel_operator.engine.triggers.instants import FIRST_MS, LAST_MS

__all__ = [
    "BackfillRequest",
    "ClockEstimate",
    "ErrorReport",
    "HandlerSchema",
    "Lease",
    "Load",
    "Problem",
    "ProgressReport",
    "PullAnswer",
    "PullRequest",
    "Replica",
    "ReportAnswer",
    "ReportRequest",
    "ResultReport",
    "RunAnswer",
    "RunRequest",
    "SubmitAnswer",
    "SubmitRequest",
    "Topology",
    "WorkerIdentity",
]


MAX_TOKENS = 10_000
"""The most fencing tokens that one report may name, over all its lists."""

MAX_SCHEMA_BYTES = 16 * 1024
"""The most that one JSON Schema of a handler may have."""
MAX_SCHEMAS_BYTES = 128 * 1024
"""The most that the schemas of all handlers of a worker may have."""

Token: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Tokens: TypeAlias = Annotated[list[Token], Meta(max_length=MAX_TOKENS)]
Epoch: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Ledger: TypeAlias = Annotated[str, Meta(max_length=64)]
SchemasHash: TypeAlias = Annotated[str, Meta(max_length=64)]
HandlerName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
LabelKey: TypeAlias = Annotated[str, Meta(min_length=1, max_length=317)]
LabelValue: TypeAlias = Annotated[str, Meta(max_length=253)]


class _Message(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The base of all messages: camelCase on the wire, defaults left out."""


class WorkerIdentity(_Message, kw_only=True):
    """Who a worker is. `instance` differs for each start of the process."""

    namespace: Annotated[str, Meta(min_length=1, max_length=63)]
    pool: Annotated[str, Meta(min_length=1, max_length=253)]
    name: Annotated[str, Meta(min_length=1, max_length=253)]
    """Unique within the pool: the pod's name."""
    instance: Annotated[str, Meta(min_length=1, max_length=128)]
    """A random identifier of this process; a new one means that the old process is gone."""
    started_ms: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """When this instance began, by the worker's clock. A late word of an earlier process, or of its end, is told from
    one of this instance by it; 0: it does not say."""


class Load(_Message, kw_only=True):
    """What the worker's cgroup (v1 or v2) says, with every pull."""

    cpu: float = 0.0
    """Share of the CPU limit in use since the last pull, 0 to 1; above 1 without a limit."""
    memory: float = 0.0
    """Share of the memory limit in use, 0 to 1."""
    cpu_millis: int = 0
    """CPU in use, thousandths of a core."""
    memory_bytes: int = 0


class ClockEstimate(_Message, kw_only=True):
    """What a worker knows of the operator's clock, from the exchanges before."""

    offset_us: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    """The worker's wall clock minus the operator's, in microseconds."""
    error_us: Annotated[int, Meta(ge=0, le=2**53)]
    """By how much the estimate may be wrong, either way."""


class HandlerSchema(_Message, kw_only=True):
    """What a handler takes and returns, as JSON Schemas (draft 2020-12)."""

    parameters: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    """Of the object with all parameters; up to 16 KiB. An empty one is open: nothing is checked."""
    result: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    """Of the result; up to 16 KiB."""


class PullRequest(_Message, kw_only=True):
    """`POST /v1/pull`: asks for work and waits for it (long poll)."""

    worker: WorkerIdentity
    handlers: Annotated[list[HandlerName], Meta(max_length=256)]
    """The handler names that the worker has registered."""
    free: Annotated[int, Meta(ge=0, le=1_000_000)]
    """How many leases the worker can take now."""
    slots: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """How many attempts the worker runs at once."""
    received: Token = 0
    """The highest fencing token that the worker has received in this epoch; leases above it are sent again."""
    sequence: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """Grows with each pull that this process sends, so that a late one decides nothing. 0: not told."""
    epoch: Epoch = 0
    """The highest epoch that the worker has seen. An operator of a lower one answers 409 `epoch-passed`."""
    ledger: Ledger = ""
    """The ledger that the worker's epoch, tokens and leases are of; empty: it knows none yet. An operator with another
    one answers 409 `ledger-replaced`."""
    load: Load | None = None
    draining: bool = False
    """The worker finishes what it has and takes nothing new."""
    wait_ms: int = 20_000
    """How long to wait for work, 0 to 30,000."""
    now_ms: int = 0
    """The worker's clock when it sent this."""
    clock: ClockEstimate | None = None
    """Without one, or with one that is far off or vague, the worker gets no early leases."""
    labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=64)] = {}
    """The worker's labels, for a task's `requirements`."""
    schemas_hash: SchemasHash = ""
    """Names the schemas of the worker's handlers: equal for equal ones. Empty: it has none."""
    schemas: Annotated[dict[HandlerName, HandlerSchema], Meta(max_length=256)] = {}
    """The schemas of that name, by handler; up to 128 KiB together. Only sent when the answer before has asked."""


class Lease(_Message, kw_only=True):
    """One attempt, with its time-limited right to run."""

    token: int
    """The fencing token: names the attempt in reports and only grows."""
    run: str
    """The run's id: deterministic, the same on every attempt."""
    task: str
    """`namespace/name`."""
    handler: str
    scheduled_ms: int
    """The run's logical instant."""
    not_before_ms: int = 0
    """An early lease: the handler must not begin before this instant of the operator's clock. 0: at once."""
    attempt: int = 1
    """Counts deliveries of this dispatch, from 1."""
    lease_ms: int = 15_000
    """The lease ends so long after it was received, unless it is renewed by a report."""
    timeout_ms: int = 0
    """Execution timeout; 0 means none."""
    grace_ms: int = 10_000
    """How long the handler may take to stop once it is cancelled."""
    parameters: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    """A JSON object."""


class PullAnswer(_Message, kw_only=True):
    """What to do now."""

    epoch: int
    now_ms: int
    """The operator's clock when it answered."""
    ledger: str = ""
    """The identity of the operator's ledger, which epoch, tokens and leases are of. It changes only when the ledger was
    lost and begun again."""
    received_us: int = 0
    """The operator's clock when the request had arrived, microseconds since the Unix epoch; 0: it does not say."""
    answered_us: int = 0
    """The operator's clock when it sent this answer."""
    leases: list[Lease] = []
    cancel: list[int] = []
    """Tokens whose handlers must stop: cancelled, or no longer this worker's."""
    send_schemas: bool = False
    """The operator does not know the schemas of that `schemasHash`: send them with the next pull."""


class ErrorReport(_Message, kw_only=True):
    """An attempt that failed."""

    token: Token
    type: str
    """The error's type, such as `ValueError`. Beyond 200 characters it is cut."""
    message: str = ""
    """Beyond 2,000 characters it is cut, with a note."""
    traceback: str = ""
    """Beyond 8,000 characters it keeps its end, with a note."""
    timeout: bool = False
    """The worker stopped it at its execution timeout."""
    permanent: bool = False
    """Another attempt would fail in the same way: it is not retried, whatever spec.retry says."""


class ResultReport(_Message, kw_only=True):
    """An attempt that succeeded with a result."""

    token: Token
    value: msgspec.Raw
    """JSON, up to 64 KiB."""


class ProgressReport(_Message, kw_only=True):
    """How far an attempt is."""

    token: Token
    fraction: float
    """0 to 1."""
    message: str = ""
    """Beyond 2,000 characters it is cut, with a note."""


class ReportRequest(_Message, kw_only=True):
    """`POST /v1/report`: what became of attempts. Answered once it is durable; may be sent again unchanged."""

    worker: WorkerIdentity
    epoch: Epoch = 0
    """As in a pull."""
    ledger: Ledger = ""
    """As in a pull."""
    succeeded: Tokens = []
    """Tokens of attempts that succeeded without a result."""
    results: Annotated[list[ResultReport], Meta(max_length=MAX_TOKENS)] = []
    """Attempts that succeeded with a result."""
    failed: Annotated[list[ErrorReport], Meta(max_length=MAX_TOKENS)] = []
    """Attempts that failed."""
    returned: Tokens = []
    """Tokens of leases that the worker gives back before it began them."""
    renew: Tokens = []
    """Tokens of attempts that still run: renews their leases."""
    progress: Annotated[list[ProgressReport], Meta(max_length=MAX_TOKENS)] = []
    """Of attempts that still run; not durable."""
    leaving: bool = False
    """The worker's last word: it is going away, and whatever it still holds is lost."""


class ReportAnswer(_Message, kw_only=True):
    """All of the report is durable, but for what `fenced` names."""

    epoch: int
    ledger: str = ""
    """As in a pull's answer."""
    received_us: int = 0
    """The operator's clock when the request had arrived, microseconds since the Unix epoch; 0: it does not say."""
    answered_us: int = 0
    """The operator's clock when it sent this answer."""
    fenced: list[int] = []
    """Tokens that are not (or no longer) open attempts of this worker: their reports changed nothing."""
    cancel: list[int] = []
    """Renewed tokens whose handlers must stop."""


class Replica(_Message, kw_only=True):
    """One operator replica that leads partitions."""

    url: str
    partitions: list[int]
    epoch: int = 0


class Topology(_Message, kw_only=True):
    """`GET /v1/topology`: which replica leads which partition."""

    partitions: int
    replicas: list[Replica] = []


class RunRequest(_Message, kw_only=True, forbid_unknown_fields=True):
    """One run of a task."""

    idempotency_key: Annotated[str, Meta(max_length=200)] = ""
    """The same key is the same run, up to 200 characters; without one every request is a run of its own."""
    parameters: dict[str, msgspec.Raw] = {}
    """Merged over the task's; up to 64 KiB of JSON."""
    scheduled_ms: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)] | None = None
    """The logical instant, in the years 1 to 9999. Default: now."""
    delay_ms: Annotated[int, Meta(ge=0, le=31_536_000_000)] = 0
    """The run starts so long after it was asked for, up to a year; that instant is then its logical one too, so that
    `scheduledMs` may not be set."""
    on_expiry: Literal["Enqueue", "FireNow"] = "Enqueue"
    """When the delay is over. Enqueue: at the tail of what waits. FireNow: ahead of it."""


class BackfillRequest(_Message, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/tasks/{namespace}/{name}/backfills`: a run for each instant of a span of the past. Each instant is made
    up for once, however often and in whatever spans it is asked for."""

    from_ms: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    """The first instant, as milliseconds since the Unix epoch."""
    to_ms: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    """The end, exclusive; not in the future. Up to 1,000,000 instants may lie between."""
    max_parallel: Annotated[int, Meta(ge=1, le=1_000)] = 10
    """How many of the runs may be open at a time."""
    idempotency_key: Annotated[str, Meta(max_length=200)] = ""
    """The same key is the same backfill. Default: one made of the span."""
    parameters: dict[str, msgspec.Raw] = {}
    """Merged over the task's, for each run; up to 64 KiB of JSON."""


class SubmitRequest(_Message, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/tasks/{namespace}/{name}/runs`: asks for runs, up to 1,000 at once."""

    runs: Annotated[list[RunRequest], Meta(max_length=1_000)] = []
    """Empty means one run with no parameters of its own."""


class RunAnswer(_Message, kw_only=True):
    """A run that exists, durably."""

    run: str
    """The run's id."""
    created: bool
    """False: the idempotency key was known, and this is the run that it made."""
    state: str = ""


class SubmitAnswer(_Message, kw_only=True):
    """The runs, in the order of the request."""

    runs: list[RunAnswer]


class Problem(_Message, kw_only=True):
    """An error, as RFC 9457 (`application/problem+json`)."""

    title: str
    status: int
    detail: str = ""
    """What was wrong, where, what is allowed."""
    type: str = "about:blank"
    """`urn:tickwheel:problem:<name>`: stable, for programs."""
    leader: str = ""
    """Where the leader is, when this replica is not it."""
