"""Where a command gets a task's schedule from: an expression, files, or the cluster.

`next`, `backfill` and `lint` ask here. Invariant: a trigger comes out of `compile_task` and `bind_calendars`, as the
operator's does, so that what a command says of an instant and what the operator does are one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from tickwheel_operator.api import FieldFault, InvalidManifest, Resource, ScheduledTask, parse, sentence, unsupported
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.cli.manifests import Manifest, read
from tickwheel_operator.cli.objects import NotThere, Objects
from tickwheel_operator.engine.cron import CronError, UnknownZoneError
from tickwheel_operator.engine.cron import parse as parse_cron
from tickwheel_operator.engine.sources import ByClock, ByHand, Completion, FixedDelay
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers import CronTrigger, Trigger, looked_until
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.kinds.calendar import compile_calendar
from tickwheel_operator.kinds.compile_task import NeverFires, bind_calendars, compile_task

__all__ = ["OfFiles", "Schedule", "bound", "of_cluster", "of_expression", "of_files"]

_Kind = TypeVar("_Kind", bound=Resource)
_SEARCHES = 100
_NOBODYS = TaskSpec(uid="", namespace="", name="", generation=0, created_ms=0, pool="", handler="")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A task's instants, and what is to be said of them."""

    spec: TaskSpec
    zone: str
    """The trigger's time zone."""
    assumed: str = ""
    """What the instants depend on and a file does not say."""
    stalled: str = ""
    """Why the operator does not fire it, in the operator's words."""
    unmet: str = ""
    """Why its runs find no worker though it fires, in the operator's words."""
    never: str = ""
    """Why it can never fire."""
    published: str = ""
    """The next instant that its status knows."""

    @property
    def title(self) -> str:
        """Namespace and name; empty for an expression, which is nobody's."""
        return f"{self.spec.namespace}/{self.spec.name}" if self.spec.name else ""

    @property
    def heading(self) -> str:
        """What its trigger says, with window and calendars; empty: it has none."""
        return "" if isinstance(self.spec.source, ByHand) else self.spec.source.describe()

    @property
    def without_instants(self) -> str:
        """Why it has no instants of its own; empty: it has."""
        if self.never:
            return self.never
        match self.spec.source:
            case ByClock():
                return ""
            case FixedDelay():
                return "its instants depend on when runs end, so they are not known ahead"
            case Completion(task=task):
                return f"it follows the runs of {task}, so its instants are not known ahead"
            case ByHand():
                return "it has no trigger: it runs by hand, by the API and in workflows only"

    def instants(self, after_ms: int, count: int) -> list[int]:
        """The next instants strictly after `after_ms`, at most `count`."""
        found: list[int] = []
        trigger = self.spec.trigger
        while trigger is not None and len(found) < count:
            instant = _next(trigger, found[-1] if found else after_ms)
            if instant is None:
                break
            found.append(instant)
        return found


def _next(trigger: Trigger, after_ms: int) -> int | None:
    """As the operator finds it: where a search gives up, it looks on from there."""
    for _ in range(_SEARCHES):
        if (instant := trigger.next_after(after_ms)) is not None:
            return instant
        if (looked_ms := looked_until(trigger, after_ms)) is None:
            return None
        after_ms = looked_ms
    return None


@dataclass(frozen=True, slots=True)
class OfFiles:
    """What files have of the tasks that were asked for."""

    schedules: list[Schedule]
    tasks: int
    """How many there are, with those that have a fault."""
    faults: list[str]
    """Of them, of the Calendars, and of what cannot be read."""


def bound(task: ScheduledTask, calendars: Mapping[str, CalendarDates]) -> TaskSpec:
    """The task as the operator has it. Raises `InvalidManifest`."""
    if gaps := unsupported(task):
        raise InvalidManifest(gaps)
    return bind_calendars(compile_task(task), calendars.get)


def of_expression(expression: str, zone: str) -> Schedule:
    """The instants of a cron expression in a time zone. Raises `click.ClickException`."""
    try:
        readings = {parse_cron(expression, identity=str(who)) for who in range(16)}
        trigger = CronTrigger(expression, zone)
    except CronError as error:
        raise click.BadParameter(str(error), param_hint="'--cron'") from error
    except UnknownZoneError as error:
        raise click.BadParameter(str(error), param_hint="'--time-zone'") from error
    hashed = "H stands for another value in each task: for a task's own instants, name it or give its file"
    spec = msgspec.structs.replace(_NOBODYS, source=ByClock(trigger))
    never = "" if trigger.next_after(0) is not None else "it can never fire: no date matches all of its fields"
    return Schedule(spec, zone, assumed=hashed if len(readings) > 1 else "", never=never)


def of_files(paths: Sequence[Path], *, name: str | None, namespace: str, created_ms: Callable[[str], int]) -> OfFiles:
    """The ScheduledTasks of the files, or the one of this name, with the Calendars that stand beside them.

    A task that no API server has seen yet is taken as created at `created_ms` of its time zone, which `assumed` says
    where it matters. A fault of one hides no other. Raises `click.ClickException` where none is left.
    """
    reading = read(paths)
    faults = [str(finding) for finding in reading.findings]
    tasks: list[Manifest] = []
    calendars: dict[tuple[str, str], CalendarDates] = {}
    for manifest in reading.manifests:
        if manifest.kind == "ScheduledTask" and (name is None or manifest.title == f"ScheduledTask/{name}"):
            tasks.append(manifest)
        elif manifest.kind == "Calendar":
            try:
                calendar = _as(manifest.resource(namespace=namespace), Calendar)
                calendars[calendar.metadata.namespace, calendar.metadata.name] = compile_calendar(calendar)
            except InvalidManifest as invalid:
                faults += [str(manifest.fault(fault)) for fault in invalid.faults]
            except Exception as error:
                faults.append(str(manifest.failed(error)))
    schedules: list[Schedule] = []
    for manifest in tasks:
        try:
            schedules.append(
                _of_file(_as(manifest.resource(namespace=namespace), ScheduledTask), calendars, created_ms)
            )
        except InvalidManifest as invalid:
            if never := _never_fires(manifest.with_defaults(namespace=namespace), invalid):
                schedules.append(never)
            else:
                faults += [str(manifest.fault(_of_files_only(fault))) for fault in invalid.faults]
        except Exception as error:
            faults.append(str(manifest.failed(error)))
    if not schedules:
        wanted = "ScheduledTask" if name is None else f"ScheduledTask {name}"
        nothing = f"there is no {wanted} in {', '.join(str(path) for path in paths)}"
        raise click.ClickException("\n".join(faults) or nothing)
    return OfFiles(schedules, len(tasks), faults)


def _of_files_only(fault: FieldFault) -> FieldFault:
    """A Calendar that is not there may be in a file that was not named."""
    if not fault.path.startswith("spec.trigger.calendars["):
        return fault
    return replace(fault, message=f"{fault.message}, or give its file with -f too")


def _of_file(
    task: ScheduledTask, calendars: Mapping[tuple[str, str], CalendarDates], created_ms: Callable[[str], int]
) -> Schedule:
    own = {name: calendar for (place, name), calendar in calendars.items() if place == task.metadata.namespace}
    trigger = task.spec.trigger
    if trigger is None or task.metadata.creation_timestamp:
        return _schedule(task, own)
    created = timestamp(created_ms(str(trigger.time_zone)) // 1_000 * 1_000)  # API servers know whole seconds
    metadata = task.metadata.model_copy(update={"creation_timestamp": created})
    assumed = ""
    if trigger.fixed_rate is not None and trigger.anchor is None:
        assumed = f"fixedRate without an anchor counts from the object's creation, here taken as {created}"
    elif trigger.once is not None and trigger.once.after is not None:
        assumed = f"once.after counts from the object's creation, here taken as {created}"
    return _schedule(task.model_copy(update={"metadata": metadata}), own, assumed=assumed)


async def of_cluster(objects: Objects, name: str) -> Schedule:
    """The schedule of a task that exists, with its calendars. Raises `click.ClickException`."""
    try:
        body = await objects.get(ScheduledTask, name)
    except NotThere as error:
        raise click.ClickException(
            f"there is no {error}; see `kubectl get scheduledtasks.tickwheel.io -n {objects.namespace}`, or name "
            "another namespace with -n"
        ) from error
    try:
        task = _as(parse(body), ScheduledTask)
        calendars: dict[str, CalendarDates] = {}
        for use in task.spec.trigger.calendars if task.spec.trigger is not None else ():
            with contextlib.suppress(NotThere, InvalidManifest):  # said by `bind_calendars`
                calendars[str(use.name)] = compile_calendar(_as(parse(await objects.get(Calendar, use.name)), Calendar))
        schedule = _schedule(task, calendars)
        published = str((body.get("status") or {}).get("nextScheduleTime") or "")
        return replace(schedule, stalled=_said(body, "Ready", "False"), unmet=_unmet(body), published=published)
    except InvalidManifest as invalid:
        if never := _never_fires(body, invalid):
            return never
        raise click.ClickException(f"ScheduledTask {name} does not fire: {sentence(invalid.faults)}") from invalid


def _schedule(task: ScheduledTask, calendars: Mapping[str, CalendarDates], *, assumed: str = "") -> Schedule:
    zone = "UTC" if task.spec.trigger is None else str(task.spec.trigger.time_zone)
    return Schedule(bound(task, calendars), zone, assumed)


def _never_fires(body: Mapping[str, Any], invalid: InvalidManifest) -> Schedule | None:
    """The schedule without an instant of a task whose only fault is that it can never fire; None: it has another."""
    if not isinstance(invalid, NeverFires) and [fault.path for fault in invalid.faults] != ["spec.trigger.cron"]:
        return None
    trigger, metadata = body["spec"]["trigger"], body["metadata"]
    zone = trigger.get("timeZone") or "UTC"
    if not isinstance(invalid, NeverFires):
        # `parse` has another name for it: a cron expression of which it says nothing worse.
        try:
            if not isinstance(trigger["cron"], str) or CronTrigger(trigger["cron"], zone).next_after(0) is not None:
                return None
        except (CronError, UnknownZoneError):
            return None
    spec = msgspec.structs.replace(_NOBODYS, namespace=metadata["namespace"], name=metadata["name"])
    return Schedule(spec, zone, never=sentence(invalid.faults))


def _unmet(body: Mapping[str, Any]) -> str:
    """Of a task that is ready: it fires also while nobody has registered its handler."""
    return "" if _said(body, "Ready", "False") else _said(body, "Stalled", "True")


def _said(body: Mapping[str, Any], kind: str, status: str) -> str:
    """What a condition says while it has this status."""
    for condition in (body.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == status:
            return str(condition.get("message") or condition.get("reason"))
    return ""


def _as(resource: Resource, kind: type[_Kind]) -> _Kind:
    if not isinstance(resource, kind):
        raise TypeError(f"a {kind.kind_name()} was asked for, and a {resource.kind} came")
    return resource
