"""The custom resources of `tickwheel.io/v1alpha1` as models; `crds/` is generated from them.

The controllers and the command line parse objects with `parse`, ask `unsupported` what this version does not
do, and translate the rest into the engine's values. Invariant: what `parse` returns is valid and complete.
"""

from tickwheel_operator.api.documents import documents, objects
from tickwheel_operator.api.faults import FieldFault, InvalidManifest, sentence
from tickwheel_operator.api.kinds import KINDS
from tickwheel_operator.api.parse import parse
from tickwheel_operator.api.resource import API_VERSION, GROUP, VERSION, Resource
from tickwheel_operator.api.scheduledtask import ScheduledTask, ScheduledTaskSpec
from tickwheel_operator.api.supported import UNSUPPORTED_KINDS, unsupported, unsupported_kind
from tickwheel_operator.api.taskrun import TaskRun, TaskRunSpec
from tickwheel_operator.api.workerpool import WorkerPool, WorkerPoolSpec

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "UNSUPPORTED_KINDS",
    "VERSION",
    "FieldFault",
    "InvalidManifest",
    "Resource",
    "ScheduledTask",
    "ScheduledTaskSpec",
    "TaskRun",
    "TaskRunSpec",
    "WorkerPool",
    "WorkerPoolSpec",
    "documents",
    "objects",
    "parse",
    "sentence",
    "unsupported",
    "unsupported_kind",
]
