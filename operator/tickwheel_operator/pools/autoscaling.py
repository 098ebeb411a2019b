"""Decides how many workers each autoscaled pool has, over time: up at once, down when a surplus has lasted.

On the leader only. Every few seconds each pool's demand becomes a need (`demand`); the largest need within
`scaleDownDelay` decides, as a HorizontalPodAutoscaler stabilises. The reconciler is told when a number changes and asks
for it. Invariants: a new leader starts from the workers that there are, and lets none go before the delay is over under
its own eyes; the numbers keep to the spec as it is now; a look at 20,000 tasks never holds up the engine for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import msgspec

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.read.views import Due, PoolView, due_runs, pool_views
from tickwheel_operator.engine.schedule.groups import Entry
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.pools.demand import Bounds, Coming, Demand, Need, coming, need

__all__ = ["Autoscaler", "AutoscalingConfig", "PoolUnknown", "Window"]

_log = logging.getLogger(__name__)

_SLICE = 200
"""Tasks that are looked at before the event loop has its turn again: 0.3 ms, and 2 ms if each has a trigger of its own
that fires soon."""
_MANY = 1_000
"""Instants of one pool that are put together in another thread: 1 ms."""
_SETTLING_MS = 15_000
"""A new leader keeps all workers at least so long: those that are busy have to call it first."""
PoolKey = tuple[str, str]


class PoolUnknown(Exception):
    """How many workers the pool has cannot be found out now. Ask again."""


class AutoscalingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often it is looked."""

    interval_s: float = 2.0
    """Between two looks at all pools."""
    asleep_s: float = 0.2
    """A pool without workers is looked at so often, and at all that waits as soon as something does."""
    share: float = 0.02
    """Of one core that the looks may take: with very many tasks they become rarer."""


class Window:
    """The needs of one pool of late; the largest decides. Constant time a need, whatever the delay."""

    def __init__(self) -> None:
        self._needs: deque[tuple[int, Need]] = deque()
        """Oldest first, falling: one that a later one reaches no longer counts."""

    def add(self, at_ms: int, need: Need) -> None:
        """The pool needs so much at this moment of a clock that never goes back."""
        while self._needs and self._needs[-1][1].workers <= need.workers:
            self._needs.pop()
        self._needs.append((at_ms, need))

    def largest(self, at_ms: int, delay_ms: int) -> Need | None:
        """Of the last `delay_ms`; the latest if there are several. None: nothing was added."""
        while len(self._needs) > 1 and self._needs[0][0] + delay_ms < at_ms:
            self._needs.popleft()
        return self._needs[0][1] if self._needs else None


class _Scaled:
    """One autoscaled pool."""

    __slots__ = ("decided", "uid", "window")

    def __init__(self, uid: str, present: int | None) -> None:
        self.uid = uid
        self.window = Window()
        self.decided: Need | None = None
        """What the pool has now; None: a pool without a Deployment, of which nothing was decided yet."""
        if present is not None:
            self.decided = Need(present, "the workers that there were when this leader began")


class Autoscaler:
    """The numbers of workers of all autoscaled pools, while this replica leads."""

    def __init__(
        self,
        clock: Clock,
        *,
        pools: Callable[[], Iterable[PoolKey]],
        pool: Callable[[str, str], WorkerPool | None],
        present: Callable[[str, str], Awaitable[int | None]],
        changed: Callable[[str, str], None],
        scaled: Callable[[WorkerPool, int, Need], None] = lambda pool, before, decided: None,
        seen: Callable[[Sequence[PoolView]], None] = lambda views: None,
        config: AutoscalingConfig | None = None,
        faults: ObjectFaults | None = None,
    ) -> None:
        """`pools` names all that exist, and `pool` gives one that is valid and not being deleted. `present` says for
        how many workers its Deployment asks (None: there is none), or raises `PoolUnknown`. `changed` is called when
        another number is wanted, or for another reason; `scaled` only for another number, with the one before; and
        `seen` with the figures of all pools at each look."""
        self._faults = faults or ObjectFaults()
        self._clock = clock
        self._pools = pools
        self._pool = pool
        self._present = present
        self._changed = changed
        self._scaled = scaled
        self._seen = seen
        self._config = config or AutoscalingConfig()
        self._engine: Engine | None = None
        self._leading = asyncio.Event()
        self._states: dict[PoolKey, _Scaled] = {}

    # --- the operator's side ---

    def lead(self, engine: Engine) -> None:
        """This replica leads now, with this engine."""
        self._engine = engine
        self._leading.set()

    def follow(self) -> None:
        """The term is over."""
        self._engine = None
        self._leading.clear()
        self._states.clear()

    def desired_replicas(self, namespace: str, name: str) -> int | None:
        """How many workers the pool should have; None: it is not autoscaled, or nobody knows yet."""
        decided = self._decided(namespace, name)
        return None if decided is None else decided.workers

    def reason(self, namespace: str, name: str) -> str:
        """Why so many; empty: it is not autoscaled, or nobody knows yet."""
        decided = self._decided(namespace, name)
        return "" if decided is None else decided.reason

    async def run(self) -> None:
        """Decide until cancelled."""
        while True:
            await self._leading.wait()
            loop = asyncio.get_running_loop()
            try:
                busy_s = await self.look()
            except Exception:
                # The pools keep the workers that they have, and the operator goes on with everything else.
                _log.exception("the number of workers could not be decided; next try in %g s", self._config.interval_s)
                busy_s = 0.0
            until = loop.time() + max(self._config.interval_s, busy_s / self._config.share)
            while True:
                await asyncio.sleep(self._config.asleep_s if self._states else self._config.interval_s)
                if loop.time() >= until or self._awakes():
                    break

    async def look(self) -> float:
        """Decide once, for all pools; seconds of computing that it took."""
        engine = self._engine
        if engine is None or not engine.scheduler.synced:
            return 0.0
        loop = asyncio.get_running_loop()
        started = loop.time()
        views = pool_views(engine.state, engine.router)
        self._seen(views)
        pools = {key: pool for key in self._pools() if (pool := self._pool(*key)) is not None and _is_scaled(pool)}
        for key in [key for key in self._states if key not in pools and self._forgets(key)]:
            del self._states[key]
        if not pools:
            return loop.time() - started
        busy_s = loop.time() - started
        await self._meet(pools)
        dues, survey_s = await self._survey(engine, pools)
        figures = {(view.namespace, view.name): view for view in views}
        for key, pool in pools.items():
            started = loop.time()
            mine = dues.get(key, [])
            # Values that nobody changes: another thread may sort them, so that the engine has its turn meanwhile.
            known = await asyncio.to_thread(coming, mine) if len(mine) > _MANY else coming(mine)
            busy_s += loop.time() - started
            if self._engine is engine and key in self._states:
                with self._isolated(key):
                    self._decide(key, pool, figures.get(key), known)
        return busy_s + survey_s

    # --- inside ---

    @contextlib.contextmanager
    def _isolated(self, key: PoolKey) -> Iterator[None]:
        """The pool keeps the workers that it has, and the others are decided."""
        try:
            yield
        except Exception as error:
            self._faults.stand(Layer.AUTOSCALING, "WorkerPool", *key, error)
        else:
            self._faults.mended(Layer.AUTOSCALING, "WorkerPool", *key)

    def _decided(self, namespace: str, name: str) -> Need | None:
        pool, state = self._pool(namespace, name), self._states.get((namespace, name))
        if pool is None or state is None or state.decided is None or state.uid != pool.metadata.uid:
            return None
        scaling = pool.spec.autoscaling
        if scaling is None or pool.spec.template is None:
            return None
        workers = min(max(state.decided.workers, scaling.min_replicas), scaling.max_replicas)
        return Need(workers, state.decided.reason)

    def _forgets(self, key: PoolKey) -> bool:
        """Gone, or no longer autoscaled. One whose manifest is invalid for now keeps what was decided."""
        return key not in self._pools() or self._pool(*key) is not None

    async def _meet(self, pools: dict[PoolKey, WorkerPool]) -> None:
        """Find out how many workers a pool has that this leader has not looked at before."""
        for key, pool in pools.items():
            state = self._states.get(key)
            if state is not None and state.uid == pool.metadata.uid:
                continue
            try:
                present = await self._present(*key)
            except PoolUnknown as error:
                _log.warning("WorkerPool %s/%s keeps its number of workers for now: %s", *key, error)
                continue
            if self._engine is None:
                return
            state = self._states[key] = _Scaled(pool.metadata.uid, present)
            if state.decided is not None:
                delay_ms = _delay_ms(pool)
                state.window.add(self._clock.boot_ms() + max(0, _SETTLING_MS - delay_ms), state.decided)

    async def _survey(self, engine: Engine, pools: dict[PoolKey, WorkerPool]) -> tuple[dict[PoolKey, list[Due]], float]:
        """What the tasks of each pool fire until its workers would be warm; and the seconds that it took."""
        dues: dict[PoolKey, list[Due]] = {}
        if engine.scheduler.held:
            return dues, 0.0  # no new runs are made
        loop = asyncio.get_running_loop()
        now_ms, busy_s = self._clock.now_ms(), 0.0
        horizons = {key: now_ms + _warm_up_ms(pool) for key, pool in pools.items()}
        entries = list(engine.scheduler.entries.values())
        for start in range(0, len(entries), _SLICE):
            started = loop.time()
            for key, found in self._due_runs(entries[start : start + _SLICE], now_ms, horizons).items():
                dues.setdefault(key, []).extend(found)
            busy_s += loop.time() - started
            await asyncio.sleep(0)
        return dues, busy_s

    def _due_runs(
        self, entries: Sequence[Entry], now_ms: int, horizons: dict[PoolKey, int]
    ) -> dict[PoolKey, list[Due]]:
        """Without the tasks that cannot be asked."""
        try:
            return due_runs(entries, now_ms, horizons)
        except Exception as error:
            if len(entries) == 1:
                spec = entries[0].spec
                self._faults.record(Layer.AUTOSCALING, "ScheduledTask", spec.namespace, spec.name, error)
                return {}
        dues: dict[PoolKey, list[Due]] = {}
        for entry in entries:
            for key, found in self._due_runs([entry], now_ms, horizons).items():
                dues.setdefault(key, []).extend(found)
        return dues

    def _decide(self, key: PoolKey, pool: WorkerPool, view: PoolView | None, known: Coming) -> None:
        state, at_ms = self._states[key], self._clock.boot_ms()
        demand = Demand(
            used=view.used if view is not None else 0,
            backlog=view.backlog if view is not None else 0,
            coming=known,
        )
        wanted = need(demand, _bounds(pool))
        state.window.add(at_ms, wanted)
        largest = state.window.largest(at_ms, _delay_ms(pool))
        before = self._decided(*key)
        state.decided = largest
        after = self._decided(*key)
        if after is None or after == before:
            return
        self._changed(*key)
        if before is None or before.workers != after.workers:
            number = before.workers if before is not None else 0
            _log.info("WorkerPool %s/%s: from %d to %d workers: %s", *key, number, after.workers, after.reason)
            if number != after.workers:
                self._scaled(pool, number, after)

    def _awakes(self) -> bool:
        """Whether work waits for a pool that has no workers."""
        engine = self._engine
        if engine is None:
            return False
        for key, state in self._states.items():
            decided = self._decided(*key) if state.decided is not None else None
            if decided is not None and not decided.workers:
                queue = engine.router.pools.get(key)
                if queue is not None and queue.backlog():
                    return True
        return False


def _is_scaled(pool: WorkerPool) -> bool:
    return pool.spec.autoscaling is not None and pool.spec.template is not None


def _bounds(pool: WorkerPool) -> Bounds:
    scaling = pool.spec.autoscaling
    if scaling is None:
        raise ValueError(f"WorkerPool {pool.metadata.name} is not autoscaled")
    return Bounds(
        least=scaling.min_replicas,
        most=scaling.max_replicas,
        slots=pool.spec.slots,
        backlog_per_slot=scaling.target_backlog_per_slot,
    )


def _delay_ms(pool: WorkerPool) -> int:
    return pool.spec.autoscaling.scale_down_delay.milliseconds if pool.spec.autoscaling is not None else 0


def _warm_up_ms(pool: WorkerPool) -> int:
    return pool.spec.autoscaling.warm_up.milliseconds if pool.spec.autoscaling is not None else 0
