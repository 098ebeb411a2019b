"""What a schema cannot check: whether a cron expression can be read, a zone exists, parameters fit.

`parse` asks after the schema has held, and so the controllers' `Stalled` message and `tickwheel lint` agree.
Invariant: nothing here looks at the clock or at other objects; the answer depends on the resource and on the
zone data only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tickwheel_operator.api.alertchannel import AlertChannel
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.resource import Resource
from tickwheel_operator.api.scheduledtask import ScheduledTask, ScheduledTaskSpec
from tickwheel_operator.api.taskrun import TaskRun
from tickwheel_operator.api.trigger import Trigger
from tickwheel_operator.api.workflow import Workflow
from tickwheel_operator.api.workflowrun import WorkflowRun
from tickwheel_operator.engine.cron import CronError, UnknownZoneError, parse, zone_named

__all__ = ["MAX_PARAMETERS_BYTES", "faults_of_meaning"]

MAX_PARAMETERS_BYTES = 65_536
"""The most bytes of a task's or run's parameters as JSON, UTF-8."""


def faults_of_meaning(resource: Resource) -> list[FieldFault]:
    """All faults, in the order of the spec."""
    return list(_faults(resource))


def _faults(resource: Resource) -> Iterator[FieldFault]:
    identity = f"{resource.metadata.namespace}/{resource.metadata.name}"
    match resource:
        case ScheduledTask():
            yield from _task(resource.spec, "spec", identity)
        case TaskRun():
            if resource.spec.task_template is not None:
                yield from _template(resource.spec.task_template, "spec.taskTemplate", identity)
            yield from _parameters(resource.spec.parameters, "spec.parameters")
        case Workflow():
            yield from _trigger(resource.spec.trigger, "spec.trigger", identity)
            yield from _graph(resource)
        case WorkflowRun():
            yield from _parameters(resource.spec.parameters, "spec.parameters")
        case Calendar():
            yield from _zone(resource.spec.time_zone, "spec.timeZone")
            for position, expression in enumerate(resource.spec.crons):
                yield from _cron(expression, f"spec.crons[{position}]", identity, resource.spec.time_zone)
        case AlertChannel():
            yield from _zone(resource.spec.time_zone, "spec.timeZone")
        case _:
            return


def _task(spec: ScheduledTaskSpec, path: str, identity: str) -> Iterator[FieldFault]:
    yield from _trigger(spec.trigger, f"{path}.trigger", identity)
    yield from _parameters(spec.parameters, f"{path}.parameters")
    execution = spec.execution
    if execution is not None and execution.sharded is not None:
        shards = execution.sharded.shards
        for index in execution.sharded.parameters:
            if not (index.isascii() and index.isdigit() and str(int(index)) == index and int(index) < shards):
                yield FieldFault(
                    f"{path}.execution.sharded.parameters",
                    f"{index!r} is not the index of a shard; 0 to {shards - 1} are allowed, in quotes",
                )


def _template(spec: ScheduledTaskSpec, path: str, identity: str) -> Iterator[FieldFault]:
    if spec.trigger is not None:
        yield FieldFault(f"{path}.trigger", "a run has no trigger; leave it out, or make a ScheduledTask")
    yield from _task(spec.model_copy(update={"trigger": None}), path, identity)


def _trigger(trigger: Trigger | None, path: str, identity: str) -> Iterator[FieldFault]:
    if trigger is None:
        return
    if trigger.cron is not None:
        yield from _cron(trigger.cron, f"{path}.cron", identity, trigger.time_zone)
    yield from _zone(trigger.time_zone, f"{path}.timeZone")


def _cron(expression: str, path: str, identity: str, zone: str) -> Iterator[FieldFault]:
    try:
        schedule = parse(expression, identity=identity)
        never = schedule.never_fires(zone_named(zone))
    except CronError as error:
        yield FieldFault(path, str(error))
    except UnknownZoneError:
        return  # the fault of the zone's own field
    else:
        if never:
            yield FieldFault(path, f"'{expression}' never fires: no date and time matches all of its fields")


def _zone(name: str, path: str) -> Iterator[FieldFault]:
    try:
        zone_named(name)
    except UnknownZoneError as error:
        yield FieldFault(path, str(error))


def _parameters(parameters: dict[str, Any], path: str) -> Iterator[FieldFault]:
    try:
        size = len(json.dumps(parameters, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        yield FieldFault(path, f"is not JSON: {error}")
        return
    if size > MAX_PARAMETERS_BYTES:
        yield FieldFault(
            path,
            f"has {size} bytes as JSON; {MAX_PARAMETERS_BYTES} are allowed. Pass the address of large data instead",
        )


def _graph(workflow: Workflow) -> Iterator[FieldFault]:
    nodes = workflow.spec.nodes
    names = {node.name for node in nodes}
    for position, node in enumerate(nodes):
        path = f"spec.nodes[{position}]"
        yield from _parameters(node.parameters, f"{path}.parameters")
        if node.wait is not None:
            yield from _zone(node.wait.time_zone, f"{path}.wait.timeZone")
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
