"""What the projection asks of the catalog: the seam between it and the controllers, which do not know each other.

All of it is read on the operator's event loop, in plain reads without a pause.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

import msgspec

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.pools.deployments import PoolDeployment
from tickwheel_operator.pools.podmetrics import PoolUsage

__all__ = [
    "Calendar",
    "Catalog",
    "Fault",
    "Pool",
    "Requests",
    "Run",
    "Seen",
    "Task",
    "Unbuilt",
    "UnbuiltObject",
    "Workforce",
]


class Fault(Protocol):
    """Why an object is stalled."""

    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


class Seen(Protocol):
    """What the watch saw of an object."""

    @property
    def uid(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def stored(self) -> object:
        """What `stored.read_status` made of the status, or None."""
        ...


class _SeenTask(Seen, Protocol):
    @property
    def spec(self) -> TaskSpec | None: ...
    @property
    def deleting(self) -> bool: ...


class _SeenPool(Seen, Protocol):
    @property
    def fault(self) -> Fault | None: ...


class _SeenCalendar(Seen, Protocol):
    @property
    def fault(self) -> Fault | None: ...


class _SeenRun(Seen, Protocol):
    @property
    def final(self) -> bool: ...
    @property
    def task(self) -> str: ...
    @property
    def succeeded(self) -> bool: ...
    @property
    def ended_ms(self) -> int: ...
    @property
    def ttl_s(self) -> int | None: ...


class Task(Protocol):
    """A ScheduledTask object."""

    @property
    def seen(self) -> _SeenTask: ...
    @property
    def fault(self) -> Fault | None: ...


class Pool(Protocol):
    """A WorkerPool object."""

    @property
    def seen(self) -> _SeenPool: ...


class Calendar(Protocol):
    """A Calendar object."""

    @property
    def seen(self) -> _SeenCalendar: ...


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


class Run(Protocol):
    """A TaskRun object that a user made."""

    @property
    def seen(self) -> _SeenRun: ...
    @property
    def fault(self) -> Fault | None: ...
    @property
    def run_id(self) -> str:
        """Empty: the engine has not answered yet."""
        ...

    @property
    def state(self) -> RunState | None:
        """As the engine answered; None: not yet."""
        ...


class UnbuiltObject(Seen, Protocol):
    """An object of a kind that this version does nothing with."""

    @property
    def kind(self) -> str: ...
    @property
    def fault(self) -> Fault: ...


class Catalog(Protocol):
    def task(self, uid: str) -> Task | None: ...
    def task_named(self, namespace: str, name: str) -> Task | None: ...
    def tasks(self) -> Collection[Task]: ...
    def pool(self, namespace: str, name: str) -> Pool | None: ...
    def pools(self) -> Collection[Pool]: ...
    def tasks_of_pool(self, namespace: str, name: str) -> Iterable[str]: ...
    def calendar(self, namespace: str, name: str) -> Calendar | None: ...
    def calendars(self) -> Collection[Calendar]: ...


class Requests(Protocol):
    def entry(self, uid: str) -> Run | None: ...
    def entries(self) -> Collection[Run]: ...
    def of_run(self, run_id: str) -> Iterable[str]:
        """Uids of the TaskRun objects that asked for the run."""
        ...


class Unbuilt(Protocol):
    def object(self, uid: str) -> UnbuiltObject | None: ...
    def objects(self) -> Collection[UnbuiltObject]: ...
