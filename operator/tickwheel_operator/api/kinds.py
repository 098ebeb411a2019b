"""All kinds of the API, in the order in which people meet them. `generate`, `parse` and `supported` go by this list."""

from __future__ import annotations

from tickwheel_operator.api.alertchannel import AlertChannel
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.api.ledgersegment import LedgerSegment
from tickwheel_operator.api.resource import Resource
from tickwheel_operator.api.scheduledtask import ScheduledTask
from tickwheel_operator.api.taskrun import TaskRun
from tickwheel_operator.api.workerpool import WorkerPool
from tickwheel_operator.api.workflow import Workflow
from tickwheel_operator.api.workflowrun import WorkflowRun

__all__ = ["KINDS"]

KINDS: tuple[type[Resource], ...] = (
    ScheduledTask,
    WorkerPool,
    TaskRun,
    Workflow,
    WorkflowRun,
    Calendar,
    AlertChannel,
    LedgerSegment,
)
