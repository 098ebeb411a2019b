"""What the leader knows beside the manifests, and statuses are made of: the engine's views, verdicts, worker pods.

The projector keeps it for the length of a term. Everything is read on the operator's event loop, in plain reads
without a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec

from tickwheel_operator.engine.read.views import PoolView, RunView, TaskView
from tickwheel_operator.kinds.registered import Schemas
from tickwheel_operator.pools.deployments import PoolDeployment
from tickwheel_operator.pools.podmetrics import PoolUsage

if TYPE_CHECKING:  # their modules make statuses of what is here
    from tickwheel_operator.kinds.descriptor import AnyKind
    from tickwheel_operator.kinds.scheduledtask import TaskEntry
    from tickwheel_operator.kinds.taskrun import RunEntry

__all__ = ["Requests", "Tasks", "Workforce", "World"]

_SETTLING_S = 30.0
"""After a takeover: the workers call within this time."""


class Tasks(Protocol):
    """What was made of the ScheduledTasks."""

    def task(self, uid: str) -> TaskEntry | None: ...
    def naming(self, kind: AnyKind, namespace: str, name: str) -> Iterable[str]:
        """Uids of the tasks that name the object."""
        ...


class Requests(Protocol):
    """What was answered to the TaskRuns of users."""

    def entry(self, uid: str) -> RunEntry | None: ...
    def of_run(self, run_id: str) -> Iterable[str]:
        """Uids of the TaskRun objects that asked for the run."""
        ...


class Workforce(msgspec.Struct, frozen=True, kw_only=True):
    """The pods of a pool with a template."""

    deployment: PoolDeployment | None
    """None: nobody has looked at it yet."""
    selector: str
    """Label selector of the pods."""
    least: int
    """The fewest ready workers of a pool that counts as ready."""
    usage: PoolUsage | None = None
    """None: it was not measured."""
    scaling: str = ""
    """Why autoscaling asks for so many workers; empty: it does not."""


class World:
    """Of one term."""

    def __init__(
        self,
        tasks: Tasks,
        requests: Requests,
        *,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float],
        workforce: Callable[[str, str], Workforce | None] = lambda namespace, name: None,
        schemas: Callable[[str, str], Schemas] = lambda namespace, name: {},
    ) -> None:
        """`workforce` tells of the pods of a pool with a template; None: it has none, or is invalid. `schemas` are what
        a pool's workers registered."""
        self.tasks = tasks
        self.requests = requests
        self.workforce = workforce
        self.schemas = schemas
        self.now_ms = now_ms
        self.views: dict[str, TaskView] = {}
        """The newest view of each task that has work to do."""
        self.runs: dict[str, RunView] = {}
        """The newest view of each run that a user's TaskRun asked for."""
        self.pools: dict[tuple[str, str], PoolView] = {}
        self.monotonic_s = monotonic_s
        self._began_s = 0.0

    def begin(self) -> None:
        """A term begins: nothing is known of it."""
        self.forget()
        self._began_s = self.monotonic_s()

    def forget(self) -> None:
        """The term is over."""
        self.views.clear()
        self.runs.clear()
        self.pools.clear()

    @property
    def settles_in_s(self) -> float:
        """Until then the leader may not have heard of all workers; 0: it has."""
        return max(0.0, self._began_s + _SETTLING_S - self.monotonic_s())
