"""What the API has and this version does not do yet. The controllers put it into `Stalled`, reason `NotSupported`.

The table below is all there is: whoever builds a feature takes its line out. A line without words refuses
whatever differs from the field's default; a line with words refuses these only.
Invariant: nothing that a user set is ignored in silence. Whatever is not built stands in this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.resource import Resource
from tickwheel_operator.api.schema import Model

__all__ = ["UNSUPPORTED_KINDS", "gaps", "unsupported", "unsupported_kind"]


@dataclass(frozen=True, slots=True)
class _Gap:
    path: str
    """From the object, as manifests spell it; empty: the whole kind."""
    instead: str = ""
    """What to do meanwhile."""
    words: tuple[str, ...] = ()
    """The values that are refused; none: all but the default."""


_GAPS: dict[str, tuple[_Gap, ...]] = {
    "ScheduledTask": (
        _Gap("spec.execution.broadcast", "use single"),
        _Gap("spec.execution.sharded", "use single"),
        _Gap("spec.execution.map", "use single"),
        _Gap("spec.execution.mapReduce", "use single"),
        _Gap("spec.delivery.guarantee", "use AtMostOnce or AtLeastOnce", ("ExactlyOnce",)),
        _Gap("spec.retry.backoff.levels", "use exponential or fixed"),
        _Gap("spec.retry.only"),
        _Gap("spec.retry.never"),
        _Gap("spec.routing.strategy", "use RoundRobin"),
        _Gap("spec.routing.hashKey"),
        _Gap("spec.routing.pinned"),
        _Gap("spec.routing.requirements"),
        _Gap("spec.routing.busy", "use Transfer"),
        _Gap("spec.routing.zonePreference"),
        _Gap("spec.orderingKey"),
        _Gap("spec.priority", "leave it at 0"),
        _Gap("spec.lane", "leave it at Auto"),
        _Gap("spec.rateLimit"),
        _Gap("spec.history.retention", "leave it at 7d; ended runs are kept by number"),
        _Gap("spec.alerts"),
    ),
    "WorkerPool": (
        _Gap("spec.lanes"),
        _Gap("spec.queue.discipline", "leave it at Priority"),
        _Gap("spec.queue.ageing", "leave it at 30s"),
        _Gap("spec.queue.fairKey"),
        _Gap("spec.queue.limit", "leave it at 100000"),
        _Gap("spec.queue.overflow", "leave it at Reject"),
        _Gap("spec.rateLimit"),
        _Gap("spec.busy.slots", "leave it at 100%"),
        _Gap("spec.busy.cpu"),
        _Gap("spec.busy.memory"),
        _Gap("spec.busy.recover", "leave it at 10%"),
        _Gap("spec.ejection"),
    ),
    "TaskRun": (_Gap("spec.taskTemplate", "make a ScheduledTask without a trigger and name it in task"),),
    "Workflow": (_Gap(""),),
    "WorkflowRun": (_Gap(""),),
    "AlertChannel": (_Gap(""),),
}


UNSUPPORTED_KINDS: tuple[str, ...] = tuple(kind for kind, gaps in _GAPS.items() if any(not gap.path for gap in gaps))
"""Kinds of which this version does nothing at all."""


def gaps(kind: str) -> tuple[_Gap, ...]:
    """The kind's lines of the table: the admission policies are made of them, and so refuse the same at apply time."""
    return _GAPS.get(kind, ())


def unsupported_kind(kind: str) -> FieldFault:
    """What is said of every object of one of `UNSUPPORTED_KINDS`."""
    return FieldFault("kind", f"{kind} is not supported by this version of Tickwheel")


def unsupported(resource: Resource) -> list[FieldFault]:
    """Every field that is set and not built yet, in the order of the table."""
    return list(_faults(resource))


def _faults(resource: Resource) -> Iterator[FieldFault]:
    kind = resource.kind_name()
    for gap in _GAPS.get(kind, ()):
        if not gap.path:
            yield unsupported_kind(kind)
            continue
        found = _lookup(resource, gap.path)
        if found is None:
            continue
        value, default = found
        if value == default or (gap.words and value not in gap.words):
            continue
        shown = f" {value}" if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        instead = f"; {gap.instead}" if gap.instead else ""
        field = gap.path.rpartition(".")[2]
        yield FieldFault(gap.path, f"{field}{shown} is not supported by this version of Tickwheel{instead}")


def _lookup(resource: Resource, path: str) -> tuple[Any, Any] | None:
    """The value at the path and its default; None where the object that holds it is not set."""
    holder: Model = resource
    *parents, last = path.split(".")
    for parent in parents:
        found = getattr(holder, _field(type(holder), parent)[0])
        if found is None:
            return None
        holder = found
    name, default = _field(type(holder), last)
    return getattr(holder, name), default


@cache
def _field(model: type[Model], alias: str) -> tuple[str, Any]:
    """The Python name of a manifest's field, and its default. A path of the table that is no field raises LookupError.

    Kept, since a list of a hundred thousand objects asks the same of each.
    """
    for name, info in model.model_fields.items():
        if (info.alias or name) == alias:
            return name, info.get_default(call_default_factory=True, validated_data={})
    raise LookupError(f"{model.__name__} has no field {alias}")
