"""Fields that are valid and do nothing beside what else is set: `tickwheel lint` warns of them.

What an API server fills in by itself is never warned of, so that objects of a cluster can be linted too: a field counts
where its value is not the default.
"""

from __future__ import annotations

from collections.abc import Iterator

from tickwheel_operator.api import FieldFault, Resource, ScheduledTask, TaskRun
from tickwheel_operator.api.policies import ConcurrencyPolicy, MisfirePolicy
from tickwheel_operator.api.scheduledtask import ScheduledTaskSpec
from tickwheel_operator.api.schema import Model

__all__ = ["unheeded"]

_ZONE_HAS_NO_EFFECT = {
    "fixedRate": "a fixedRate counts steadily from its anchor, also when the clock is set; for a time of day write a "
    'cron, such as "0 9 * * *"',
    "fixedDelay": "a fixedDelay counts from the end of the last run",
    "once": "a once is an instant with its own offset, such as 2026-12-24T18:00:00+01:00",
    "completion": "a completion follows the runs of another task",
}
"""The sources that no clock on a wall decides, and why."""


def unheeded(resource: Resource) -> Iterator[FieldFault]:
    """What of a valid resource has no effect, and why."""
    match resource:
        case ScheduledTask():
            yield from _of_task(resource.spec, "spec")
        case TaskRun():
            if resource.spec.delay is None and _differs(resource.spec, "on_expiry"):
                yield FieldFault("spec.onExpiry", "has no effect without delay: the run may start at once")
            if resource.spec.task_template is not None:
                yield from _of_task(resource.spec.task_template, "spec.taskTemplate")


def _of_task(spec: ScheduledTaskSpec, path: str) -> Iterator[FieldFault]:
    trigger, concurrency, misfire = spec.trigger, spec.concurrency, spec.misfire
    if trigger is not None and trigger.source is not None and _differs(trigger, "time_zone"):
        source, _ = trigger.source
        if source in _ZONE_HAS_NO_EFFECT:
            yield FieldFault(f"{path}.trigger.timeZone", f"decides no instant: {_ZONE_HAS_NO_EFFECT[source]}")
    if concurrency.policy is not ConcurrencyPolicy.QUEUE and _differs(concurrency, "queue_limit"):
        yield FieldFault(
            f"{path}.concurrency.queueLimit",
            f"has no effect: policy is {concurrency.policy}, and with Queue alone a limited number of runs waits",
        )
    if misfire.policy is not MisfirePolicy.FIRE_ALL and _differs(misfire, "max_catch_up"):
        yield FieldFault(
            f"{path}.misfire.maxCatchUp",
            f"has no effect: policy is {misfire.policy}, and with FireAll alone several overdue instants fire",
        )


def _differs(model: Model, field: str) -> bool:
    return bool(getattr(model, field) != type(model).model_fields[field].default)
