"""The operator's process with faults of its own: each layer raises for the one object that is named after it.

`sitecustomize` of the test's folder calls `install` before the operator begins. Nothing else of the process is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.engine.dispatch.waiting import Waiting
from tickwheel_operator.engine.read import views
from tickwheel_operator.gateway import convert
from tickwheel_operator.kinds import scheduledtask, workerpool
from tickwheel_operator.kinds.calendar import CALENDAR
from tickwheel_operator.pools import reconciler
from tickwheel_operator.pools.autoscaling import Autoscaler
from tickwheel_operator.projection.history import History
from tickwheel_operator.projection.projector import Projector

__all__ = ["SITE", "Injected", "install"]

SITE = "from tests.integration.broken_operator import install\n\ninstall()\n"


class Injected(Exception):
    """What a fault of the operator raises here."""


def install() -> None:
    """Break every layer."""
    _break(scheduledtask, "compile_task", "watch", lambda task: task.metadata.name)
    _break(workerpool, "compile_pool", "watch-pool", lambda pool: pool.metadata.name)
    _break(Catalog, "_missing_pool", "catalog", lambda _, spec: spec.name)
    _break(Requests, "_submission", "requests", lambda _, entry, request: entry.seen.name)
    _break(Waiting, "ready", "engine", lambda _, dispatch: dispatch.run.task.name)
    _break(views, "_task_view", "views", lambda state, task, entry, *_: entry.spec.name if entry else "")
    _break(scheduledtask, "task_status", "projection", lambda task, *_: task.seen.name)
    _break(workerpool, "pool_status", "projection-pool", lambda pool, *_: pool.name)
    _break(type(CALENDAR), "status", "projection-calendar", lambda _, seen, *rest: seen.name)
    _break(Projector, "_compare", "sorting", lambda _, task: task.name)
    _break(History, "_create", "history", lambda _, view, run: view.name)
    _break(reconciler, "deployment", "pools", lambda pool, *_: pool.metadata.name)
    _break(Autoscaler, "_decide", "autoscaling", lambda _, key, *rest: key[1])
    _break(convert, "_lease", "gateway", lambda delivery, *_: delivery.task.name)


def _break(owner: Any, name: str, wanted: str, name_of: Callable[..., str]) -> None:
    whole = getattr(owner, name)

    def broken(*arguments: Any, **options: Any) -> Any:
        if name_of(*arguments) == wanted:
            raise Injected(f"{name} of {wanted}")
        return whole(*arguments, **options)

    setattr(owner, name, broken)
