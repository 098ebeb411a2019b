"""What a schema cannot check: whether a cron expression can be read, a zone exists, parameters fit.

Each model asks here in its `faults_of_meaning`, and `parse` asks the model after the schema has held, so that the
controllers' `Stalled` message and `tickwheel lint` agree. Invariant: nothing here looks at the clock or at other
objects; the answer depends on the resource and on the zone data only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.trigger import Trigger
from tickwheel_operator.engine.cron import CronError, UnknownZoneError, parse, zone_named

__all__ = ["MAX_PARAMETERS_BYTES", "of_cron", "of_parameters", "of_trigger", "of_zone"]

MAX_PARAMETERS_BYTES = 65_536
"""The most bytes of a task's or run's parameters as JSON, UTF-8."""


def of_trigger(trigger: Trigger | None, path: str, identity: str) -> Iterator[FieldFault]:
    if trigger is None:
        return
    if trigger.cron is not None:
        yield from of_cron(trigger.cron, f"{path}.cron", identity, trigger.time_zone)
    yield from of_zone(trigger.time_zone, f"{path}.timeZone")


def of_cron(expression: str, path: str, identity: str, zone: str) -> Iterator[FieldFault]:
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


def of_zone(name: str, path: str) -> Iterator[FieldFault]:
    try:
        zone_named(name)
    except UnknownZoneError as error:
        yield FieldFault(path, str(error))


def of_parameters(parameters: dict[str, Any], path: str) -> Iterator[FieldFault]:
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
