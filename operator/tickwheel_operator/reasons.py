"""The reasons of conditions and Events: words that people, alerts and `kubectl wait` match, so none is ever renamed.

A condition may also have a reason that is not ours: what Kubernetes says of pods and Deployments (ImagePullBackOff),
the error type of a handler that failed, the state of a run. Why instants made no run is in `projection.skips`.
"""

from __future__ import annotations

from typing import Final

# --- of every kind ---

SETTLED: Final = "Settled"
"""Nothing is wrong, nothing is on its way."""
ACCEPTED: Final = "Accepted"
"""The manifest is valid, and that is all that the object needs."""
INVALID_SPEC: Final = "InvalidSpec"
"""The manifest has a fault; the message names the field."""
NOT_SUPPORTED: Final = "NotSupported"
"""The manifest is valid, and asks for what this version does not do."""
INTERNAL_ERROR: Final = "InternalError"
"""The operator itself fails at the object: a fault of Tickwheel, to be reported."""
SERVED_BY_ANOTHER: Final = "ServedByAnotherRelease"
"""Another release of Tickwheel serves the namespace."""
NAMESPACE_NOT_CLAIMED: Final = "NamespaceNotClaimed"
"""The operator is about to mark the namespace as its own."""

# --- of a ScheduledTask ---

ARMED: Final = "Armed"
"""It fires as its trigger says."""
SUSPENDED: Final = "Suspended"
"""`spec.suspend` is set."""
MANUAL: Final = "Manual"
"""It has no trigger."""
ENDED: Final = "Ended"
"""Its trigger has no instant any more."""
NEVER_FIRES: Final = "NeverFires"
"""The spec is valid, and leaves no instant: its source, its window or its calendars."""
POOL_NOT_FOUND: Final = "PoolNotFound"
"""There is no such WorkerPool, or it is itself stalled."""
CALENDAR_NOT_FOUND: Final = "CalendarNotFound"
"""There is no such Calendar, or it is itself stalled."""
TASK_NOT_FOUND: Final = "TaskNotFound"
"""The task that it follows does not exist."""
COMPLETION_CYCLE: Final = "CompletionCycle"
"""Its runs would follow themselves."""
HANDLER_NOT_REGISTERED: Final = "HandlerNotRegistered"
"""No live worker of its pool has the handler."""

# --- of a WorkerPool ---

PENDING: Final = "Pending"
"""Its Deployment has not been looked at yet."""
READY: Final = "Ready"
"""Enough workers are ready."""
WORKERS_NOT_READY: Final = "WorkersNotReady"
"""Fewer workers than needed are ready, and nobody says why."""
ROLLING_UPDATE: Final = "RollingUpdate"
"""Workers of the present template replace others."""
SCALING: Final = "Scaling"
"""Workers come or go."""
WORKERS_NOT_CONNECTED: Final = "WorkersNotConnected"
"""Pods are ready, and their workers have not called the gateway."""
WORKER_NOT_REGISTERED: Final = "WorkerNotRegistered"
"""A pod runs, and is not ready since its worker is not registered."""
CONTAINERS_NOT_READY: Final = "ContainersNotReady"
"""A container's probes fail."""
CONTAINER_ENDED: Final = "ContainerEnded"
"""A container ends again and again."""
TEMPLATE_NOT_ALLOWED: Final = "TemplateNotAllowed"
"""`spec.template` asks for more than the operator may give to workers."""
NAME_TAKEN: Final = "NameTaken"
"""A Deployment of that name exists and is not the pool's."""
REPLACING: Final = "Replacing"
"""The Deployment of an earlier pool of the name goes first."""
API_SERVER_UNAVAILABLE: Final = "ApiServerUnavailable"
"""The Deployment could not be written; it is tried again."""

# --- of a TaskRun; else its state ---

CANCELLING: Final = "Cancelling"
"""It was told to stop, and has not stopped yet."""
DELAYED: Final = "Delayed"
"""`spec.delay` is not over."""
WAITS_FOR_OVERLAP: Final = "WaitsForOverlap"
"""Other runs of its task or key are open."""
WAITS_FOR_RETRY: Final = "WaitsForRetry"
"""An attempt failed, and the next may not start yet."""
FAILED: Final = "Failed"
"""It failed with an error type that is no word."""
NO_SUCH_TASK: Final = "NoSuchTask"
NO_SUCH_RUN: Final = "NoSuchRun"
BACKLOG_FULL: Final = "BacklogFull"
OVERLAP: Final = "Overlap"
"""Its task runs already, and `spec.concurrency` forbids another."""
NOT_POSSIBLE: Final = "NotPossible"
"""What it asks for makes no sense for its task, such as a backfill of a task without a schedule."""
KEY_REUSED: Final = "IdempotencyKeyReused"
"""Its idempotency key belongs to a run that was asked for otherwise."""
INVALID_PARAMETERS: Final = "InvalidParameters"
"""The handler does not take them."""
NOT_READY: Final = "NotReady"
"""The leader does not know its tasks yet; never shown."""

# --- of Events only ---

LEADER_ELECTED: Final = "LeaderElected"
LEDGER_LOST: Final = "LedgerLost"
"""The ledger knows less than the statuses of tasks."""
RUN_FAILED: Final = "RunFailed"
INSTANTS_SKIPPED: Final = "InstantsSkipped"
SCALED_UP: Final = "ScaledUp"
SCALED_DOWN: Final = "ScaledDown"
