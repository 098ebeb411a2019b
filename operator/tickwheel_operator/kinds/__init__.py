"""The kinds of custom resources: a module each, and a line below.

What stands in the API and not here is not supported (`unsupported`). Invariant: each kind with a status has one
descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping

from tickwheel_operator import api
from tickwheel_operator.kinds.calendar import CALENDAR
from tickwheel_operator.kinds.descriptor import AnyKind
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.taskrun import TASK_RUN
from tickwheel_operator.kinds.unsupported import UnsupportedKind
from tickwheel_operator.kinds.workerpool import WORKER_POOL

__all__ = ["AWAITED", "KINDS", "AnyKind"]

AWAITED: tuple[AnyKind, ...] = (SCHEDULED_TASK, WORKER_POOL, TASK_RUN, CALENDAR)
"""The kinds that something depends on: their lists must be complete before a replica may lead."""
_UNSUPPORTED = tuple(UnsupportedKind(model) for model in api.KINDS if model.kind_name() in api.UNSUPPORTED_KINDS)
KINDS: Mapping[str, AnyKind] = {kind.name: kind for kind in (*AWAITED, *_UNSUPPORTED)}
"""All kinds with a status, by name."""
