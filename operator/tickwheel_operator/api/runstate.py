"""The states and figures of runs that several kinds show. Invariant: the words are the engine's `RunState`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tickwheel_operator.api.schema import Model, Whole
from tickwheel_operator.api.text import Choice, Instant

__all__ = ["Count", "Counters", "LastRun", "RunState", "Skip"]

Count = Annotated[Whole, Field(ge=0, le=2**62)]


class RunState(Choice):
    """Where a run is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class LastRun(Model):
    """The newest run."""

    name: Annotated[str, Field(max_length=253)] | None = None
    """Its TaskRun or WorkflowRun."""
    state: RunState | None = None
    """Pending, Running, Succeeded, Failed or Cancelled."""
    time: Instant | None = None
    """When it came into this state."""


class Counters(Model):
    """Totals since the object was created."""

    succeeded: Count = 0
    """Runs that succeeded."""
    failed: Count = 0
    """Runs that failed for good."""
    cancelled: Count = 0
    """Runs that were cancelled."""
    skipped: Count = 0
    """Instants that made no run: missed, suspended, or stopped by a policy. `status.skips` has them by reason."""


class Skip(Model):
    """Instants that made no run, for one reason."""

    reason: Annotated[str, Field(max_length=64)]
    """Misfired, Coalesced, Deadline, CatchUpLimit, Backlog, Overlap, QueueFull, Edited, Suspended, Calendar or
    Stalled."""
    count: Count = 0
    """How many, since the object was created."""
    last_time: Instant | None = None
    """The latest of them."""
