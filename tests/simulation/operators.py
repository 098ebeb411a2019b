"""Operator processes: the real leadership, election, ledger and host on a simulated node."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator

from tests.simulation.loop import Node
from tests.simulation.stores import Leases, NodeLeases, NodeSegments, Segments
from tests.simulation.world import Lost, SimClock, World

from tickwheel_operator.election.config import ElectionConfig
from tickwheel_operator.election.elector import Elector
from tickwheel_operator.election.term import Term
from tickwheel_operator.engine.messages import (
    Command,
    Effect,
    PoolApplied,
    Pull,
    Report,
    Submit,
    TaskApplied,
    TaskRemoved,
)
from tickwheel_operator.engine.spec import EngineConfig, PoolSpec, TaskSpec
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.runtime.leadership import Leadership, LeadershipConfig
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

__all__ = ["Answer", "NotLeading", "Operator", "Truth"]

LEASE_MS = 1_200
_LEADERSHIP = LeadershipConfig(engine=EngineConfig(lease_ms=LEASE_MS), retry_ms=100, release_ms=1_000)
_ELECTION = ElectionConfig(lease_duration_ms=2_000, renew_deadline_ms=1_400, retry_period_ms=250)
POOL = PoolSpec(namespace="shops", name="pool", silence_ms=2_500)


class NotLeading(Exception):
    """The operator does not lead, or its term ended before the answer was durable."""


class Truth:
    """The objects as the API server has them."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskSpec] = {}


class Answer:
    """An effect and the epoch in whose name it was released."""

    def __init__(self, epoch: int, effect: Effect) -> None:
        self.epoch = epoch
        self.effect = effect


class _Catalog:
    """A replica's copy of the objects."""

    def __init__(self, truth: Truth) -> None:
        self.tasks = dict(truth.tasks)
        self.post: Callable[[Command], None] | None = None

    async def wait_synced(self) -> None: ...

    def snapshot(self) -> Iterator[Command]:
        yield PoolApplied(spec=POOL)
        for spec in self.tasks.values():
            yield TaskApplied(spec=spec)

    def apply(self, uid: str, spec: TaskSpec | None) -> None:
        known = self.tasks.get(uid)
        if spec is None:
            if self.tasks.pop(uid, None) is not None and self.post is not None:
                self.post(TaskRemoved(uid=uid))
        elif known is None or known.generation < spec.generation:
            self.tasks[uid] = spec
            if self.post is not None:
                self.post(TaskApplied(spec=spec))


class _WatchedTerm:
    """The real term; tells the record of each moment at which the host releases effects."""

    def __init__(self, term: Term, operator: Operator) -> None:
        self._term = term
        self._operator = operator

    @property
    def epoch_floor(self) -> int:
        return self._term.epoch_floor

    def is_fresh(self) -> bool:
        fresh = self._term.is_fresh()
        if fresh:
            self._operator.releases()
        return fresh

    async def lost(self) -> str:
        return await self._term.lost()

    async def release(self) -> None:
        await self._term.release()


class _Election:
    def __init__(self, elector: Elector, operator: Operator) -> None:
        self._elector = elector
        self._operator = operator

    async def acquire(self) -> _WatchedTerm:
        return _WatchedTerm(await self._elector.acquire(), self._operator)


class Operator:
    """One process. A restarted one is another object with another node."""

    def __init__(
        self, world: World, name: str, truth: Truth, segments: Segments, leases: Leases, limits: LedgerLimits
    ) -> None:
        self.world = world
        self.node = Node(name)
        self.clock = SimClock(world, world.random.randint(-200, 200))
        self.catalog = _Catalog(truth)
        self._epochs = itertools.count()
        self._random = random.Random(world.random.random())
        store = NodeSegments(world, segments)
        elector = Elector(
            NodeLeases(world, leases), name="partition-0", identity=name, endpoint_url=name, clock=self.clock,
            config=_ELECTION, random=self._random,
        )  # fmt: skip

        def open_ledger() -> Ledger:
            return Ledger(
                store, partition=0, leader=name, clock=self.clock,
                nonces=lambda: f"{name}-{self._random.getrandbits(64):016x}", limits=limits,
            )  # fmt: skip

        self.leadership = Leadership(
            _Election(elector, self), open_ledger, self.catalog, self.clock, _LEADERSHIP,
            on_lead=self._lead, on_end=self._end,
        )  # fmt: skip

    def start(self) -> None:
        running = self.world.spawn(self.node, self.leadership.run(), "leadership")
        running.add_done_callback(self._ended)

    @property
    def leads(self) -> bool:
        """Whether it says so: a zombie does, too."""
        host = self.leadership.host
        return host is not None and host.leading

    def releases(self) -> None:
        host = self.leadership.host
        if host is not None:
            self.world.record.released(self.node.name, host.epoch)

    def _ended(self, running: asyncio.Task[object]) -> None:
        """Nothing that happens in this world may end the operator's loop with an error."""
        if not running.cancelled() and (error := running.exception()) is not None:
            self.world.record.violated(f"{self.node.name} ended with {error!r}")

    def _lead(self, host: PartitionHost) -> None:
        self.world.record.say(self.node.name, f"leads in epoch {host.epoch}")
        self.catalog.post = host.post

    def _end(self) -> None:
        self.world.record.say(self.node.name, "no longer leads")
        self.catalog.post = None

    # --- as others reach it ---

    def tell(self, uid: str, spec: TaskSpec | None) -> None:
        """An object changed; the watch tells this replica a little later."""

        async def hear() -> None:
            self.catalog.apply(uid, spec)

        self.world.later(self.world.latency_s(), lambda: self.world.spawn(self.node, hear(), "watch"))

    async def call(self, make: Callable[[int], Pull | Report | Submit], timeout_s: float) -> Answer:
        """Send a command over the network. Raises `Lost` or `NotLeading`."""
        tasks: list[asyncio.Task[object]] = []

        async def serve(answer: Callable[[object, BaseException | None], None]) -> None:
            host = self.leadership.host
            if host is None or not host.leading:
                answer(None, NotLeading())
                return
            try:
                effect = await host.call(make(host.new_request()))
            except TermEnded:
                answer(None, NotLeading())
            else:
                answer(Answer(host.epoch, effect), None)

        def arrive(answer: Callable[[object, BaseException | None], None]) -> None:
            if not self.node.crashed:
                tasks.append(self.world.spawn(self.node, serve(answer), "gateway"))

        try:
            result: Answer = await self.world.ask(arrive, timeout_s, loss=0.02)
        except Lost:
            # The connection is gone; the gateway notices and ends what waits there.
            for task in tasks:
                self.world.later(self.world.latency_s(), task.cancel)
            raise
        return result
