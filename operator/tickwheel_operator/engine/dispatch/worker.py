"""A connected worker, as the engine sees it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from tickwheel_operator.engine.messages import WorkerSeen
from tickwheel_operator.engine.model.places import WaitingRoom
from tickwheel_operator.engine.model.runs import WorkerName

if TYPE_CHECKING:
    from tickwheel_operator.engine.dispatch.queues import PoolQueue

__all__ = ["LiveWorker"]


class LiveWorker(WaitingRoom):
    """One worker process. Volatile: only its number and its leases are facts."""

    __slots__ = (
        "cancelled",
        "clock_error_us", "clock_offset_us", "cpu", "credit", "draining", "early", "free", "handlers", "instance",
        "key", "labels", "last_pull", "last_token", "memory", "number", "pod_uid", "pool", "request", "schemas",
        "seen_ms", "slots", "started_ms", "until_ms",
    )  # fmt: skip

    def __init__(self, seen: WorkerSeen, pool: PoolQueue) -> None:
        self.key = seen.key
        self.instance = seen.instance
        self.started_ms = seen.started_ms
        self.pod_uid = seen.pod_uid
        self.pool = pool
        self.number = 0
        """The ledger's number for it; 0: not named yet."""
        self.handlers: tuple[str, ...] = ()
        self.schemas: str | None = None
        """The hash of its handlers' schemas; None: it has not pulled yet."""
        self.slots = 0
        self.draining = False
        self.cpu = 0.0
        self.memory = 0.0
        self.labels: dict[str, str] = {}
        self.clock_offset_us = 0
        self.clock_error_us: int | None = None
        self.early = False
        """It knows the operator's clock well enough to be given work ahead of its instant."""
        self.seen_ms = 0
        """Since when it is silent, by the boot clock, as `until_ms`; while a pull of it is open, it is not."""
        self.request: Hashable | None = None
        """The open pull."""
        self.credit = 0
        """How many more dispatches the open pull may get."""
        self.free = 0
        """How many of its slots are free, what the open pull has got already taken off."""
        self.until_ms = 0
        self.last_pull = 0
        """The sequence of its latest pull."""
        self.last_token = 0
        """The highest token sent to it."""
        self.cancelled: list[int] = []
        """Tokens of cancelled attempts that it has not been told of."""

    @property
    def name(self) -> WorkerName:
        """As the ledger names it."""
        return WorkerName(self.key, self.instance, self.started_ms, self.pod_uid)

    def take_cancelled(self) -> list[int]:
        """What it is told of now."""
        told, self.cancelled = self.cancelled, []
        return told
