"""Operator processes: the real leadership, election, ledger and host on a simulated node."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Callable, Collection, Hashable, Iterator

import msgspec
from tests.simulation.loop import Node, current_node, outside
from tests.simulation.losses import Losses
from tests.simulation.record import Violated
from tests.simulation.stores import Leases, NodeLeases, NodeSegments, Segments
from tests.simulation.world import API, Answerer, Lost, SimClock, World

from tickwheel_operator.election.config import ElectionConfig
from tickwheel_operator.election.elector import Elector
from tickwheel_operator.engine.messages import (
    CancelRun,
    Command,
    Effect,
    PoolApplied,
    Pull,
    Report,
    StartBackfill,
    Submit,
    TaskApplied,
    TaskRemoved,
)
from tickwheel_operator.engine.read.views import Views
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.runtime.leadership import Failure, Leadership, LeadershipConfig
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

__all__ = ["LEASE_MS", "POOL", "Answer", "NotLeading", "Operator", "Truth"]

LEASE_MS = 1_200
"""Of attempts."""
_ELECTION = ElectionConfig(lease_duration_ms=2_000, renew_deadline_ms=1_400, retry_period_ms=250)
POOL = PoolSpec(namespace="shops", name="pool", silence_ms=2_500)


class NotLeading(Exception):
    """The operator does not lead, or its term ended before the answer was durable."""


class Truth:
    """The objects as the API server has them."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskSpec] = {}
        self.invalid: set[str] = set()
        """Uids of those that cannot be compiled as they are now."""


class Answer:
    """An effect and the epoch in whose name it was released."""

    def __init__(self, epoch: int, effect: Effect) -> None:
        self.epoch = epoch
        self.effect = effect


class _Catalog:
    """A replica's copy of the objects."""

    def __init__(self, truth: Truth) -> None:
        self.tasks = dict(truth.tasks)
        self.invalid = set(truth.invalid)
        self.post: Callable[[Command], None] = lambda command: None

    async def wait_synced(self) -> None: ...

    def snapshot(self) -> Iterator[Command]:
        yield PoolApplied(spec=POOL)
        for uid, spec in self.tasks.items():
            yield TaskRemoved(uid=uid, forget=False) if uid in self.invalid else TaskApplied(spec=spec)

    def deleted(self, uid: str) -> None:
        if self.tasks.pop(uid, None) is not None:
            self.post(TaskRemoved(uid=uid))

    def applied(self, spec: TaskSpec, *, invalid: bool) -> None:
        known = self.tasks.get(spec.uid)
        if known is not None and known.generation > spec.generation:
            return
        self.tasks[spec.uid] = spec
        if invalid:
            self.invalid.add(spec.uid)
            self.post(TaskRemoved(uid=spec.uid, forget=False))
        else:
            self.invalid.discard(spec.uid)
            self.post(TaskApplied(spec=spec))


async def _missing(world: World, truth: Truth, uids: Collection[str]) -> set[str]:
    """Those that the API server has no more; none, if it does not answer."""

    def serve(answer: Answerer) -> None:
        answer(set(uids) - set(truth.tasks), None)

    try:
        missing: set[str] = await world.ask(API, serve, 1.0)
    except Lost:
        return set()
    return missing


class _Waiting(dict[Hashable, "asyncio.Future[Effect]"]):
    """Whom a host has to answer; tells the record of each answer at the moment at which it is released."""

    def __init__(self, released: Callable[[], None]) -> None:
        super().__init__()
        self._released = released

    def __setitem__(self, request: Hashable, future: asyncio.Future[Effect]) -> None:
        future.add_done_callback(self._done, context=outside())
        super().__setitem__(request, future)

    def _done(self, future: asyncio.Future[Effect]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._released()


class _Screen:
    """What people see of a leader."""

    def __init__(self, show: Callable[[Views], None]) -> None:
        self.show = show

    def wanted(self) -> int:
        return 4


class Operator:
    """One process. A restarted one is another object with another node."""

    def __init__(
        self,
        world: World,
        name: str,
        truth: Truth,
        segments: Segments,
        leases: Leases,
        limits: LedgerLimits,
        config: LeadershipConfig,
    ) -> None:
        self.world = world
        self.node = Node(name)
        self.clock = SimClock(world)
        self.catalog = _Catalog(truth)
        self._random = random.Random(world.random.random())
        self._heard_s = 0.0
        self._requests = itertools.count(1)
        self.epoch = 0
        """Of its latest term."""
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
            elector, open_ledger, self.catalog, self.clock, config, missing=functools.partial(_missing, world, truth),
            sink=_Screen(lambda views: world.record.shown(name, self.epoch, views)),
            on_lead=self._lead, on_end=self._end, on_failure=self._failed,
        )  # fmt: skip

    def start(self) -> None:
        self.world.spawn(self.node, self.leadership.run(), "leadership")

    @property
    def leads(self) -> bool:
        """Whether it says so: a zombie does, too."""
        host = self.leadership.host
        return host is not None and host.leading and not self.node.crashed

    def _lead(self, host: PartitionHost) -> None:
        record = self.world.record
        epoch = self.epoch = host.epoch
        record.clocks[epoch] = self.clock
        record.led(self.node.name, epoch, host.engine.state, host._facts)
        Losses(record, host.engine, self.clock.boot_ms(), lease_ms=LEASE_MS, silence_ms=POOL.silence_ms)
        host._waiting = _Waiting(lambda: record.released(self.node.name, epoch))
        self.catalog.post = host.post

    def store_is_full(self, full: bool) -> None:
        """As if others had filled it."""
        host = self.leadership.host
        if host is not None:
            stats = host.ledger.stats
            stats.retained_bytes = stats.retained_bytes % 10**12 + (10**12 if full else 0)

    def _failed(self, failure: Failure) -> None:
        """Other than the operator, this world does not live with an engine that raises."""
        if isinstance(failure.error, Violated):
            raise failure.error
        self.world.record.violated(f"the engine raised {failure.error!r} at {failure.uids or 'no task that is known'}")

    def _end(self) -> None:
        self.world.record.say(self.node.name, "no longer leads")
        self.catalog.post = lambda command: None

    # --- as others reach it ---

    def tell(self, change: Callable[[_Catalog], None]) -> None:
        """An object changed; the watch tells this replica a little later, and of one change after the other."""
        world = self.world
        self._heard_s = max(self._heard_s + 1e-6, world.loop.time() + world.latency_s())

        async def hear() -> None:
            change(self.catalog)

        def arrive() -> None:
            if world.is_cut(self.node.name, API):
                world.later(0.1, arrive)
            else:
                world.spawn(self.node, hear(), "watch")

        world.later(self._heard_s - world.loop.time(), arrive)

    def post(self, command: Command) -> None:
        """Something that the leader's own controllers see, if it leads when it hears of it."""

        async def hear() -> None:
            self.catalog.post(command)

        self.world.later(self.world.latency_s(), lambda: self.world.spawn(self.node, hear(), "watch"))

    async def call(self, command: Pull | Report | Submit | StartBackfill | CancelRun, timeout_s: float) -> Answer:
        """Send a command over the network. Raises `Lost` or `NotLeading`."""
        tasks: list[asyncio.Task[object]] = []
        gone = False

        async def serve(answer: Answerer) -> None:
            host = self.leadership.host
            if host is None or not host.leading:
                answer(None, NotLeading())
                return
            try:
                effect = await host.call(msgspec.structs.replace(command, request=next(self._requests)))
            except TermEnded:
                answer(None, NotLeading())
            else:
                answer(Answer(host.epoch, effect), None)

        def arrive(answer: Answerer) -> None:
            if not self.node.crashed:
                tasks.append(self.world.spawn(self.node, serve(answer), "gateway"))
                if gone:
                    hang_up()

        def hang_up() -> None:
            """The connection is gone; the gateway notices and ends what waits there."""
            nonlocal gone
            gone = True
            for task in tasks:
                self.world.later(self.world.latency_s(), functools.partial(self.world.interrupt, self.node, task))

        caller = current_node()
        if caller is not None and self.world.random.random() < 0.7:
            # Else its machine died with it, and the connection stays half open.
            caller.at_crash.append(hang_up)
        try:
            result: Answer = await self.world.ask(self.node.name, arrive, timeout_s)
        except Lost:
            hang_up()
            raise
        finally:
            if caller is not None and hang_up in caller.at_crash:
                caller.at_crash.remove(hang_up)
        return result
