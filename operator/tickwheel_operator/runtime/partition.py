"""The host of one partition: the engine's clock, its hands and its memory.

It takes leadership (fence, replay, go), gives the engine every command with the current instant, appends the facts
and releases the effects. It keeps the rule that has no exception, facts before effects:

    post(command) -> engine.handle -> batch (facts, effects) --append--> durable, and the lease still fresh --> release

One append is in flight at a time; what is decided meanwhile gathers in the next batch (group commit). Effects without
facts wait for the facts decided before them, since they may depend on those. Everything runs in one event loop and
takes its time from `Clock`, so that the simulation runs this very code.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.messages import (
    CancelRun,
    CatalogSynced,
    Command,
    Effect,
    IntakeHeld,
    LeadSet,
    Output,
    Pull,
    Pulled,
    PullEnded,
    Report,
    Reported,
    StartBackfill,
    Submit,
    Tick,
)
from tickwheel_operator.engine.read.views import Views
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.ledger.facts import Fact
from tickwheel_operator.ledger.folding import fold
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Deposed
from tickwheel_operator.runtime.checkpoints import Checkpoints
from tickwheel_operator.runtime.memory import collect_again, uncollected
from tickwheel_operator.runtime.pace import Pace

__all__ = ["CommitConfig", "PartitionHost", "Term", "TermEnded", "ViewSink"]


_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class TermEnded(Exception):
    """The leader's term ended before the answer was durable."""


class Term(Protocol):
    """A leader's right to release effects, as the election gives it."""

    @property
    def epoch_floor(self) -> int: ...

    def is_fresh(self) -> bool:
        """Whether the lease is certainly still held now."""
        ...


class ViewSink(Protocol):
    """Who shows people what is durable: takes as many views as it can write, at its own bounded rate."""

    def wanted(self) -> int:
        """How many changed tasks it can take now."""
        ...

    def show(self, views: Views) -> None: ...


_IDLE_S = 3_600.0
"""With nothing to do; the engine's own timers come much earlier."""
_CLOCKS_AGREE_MS = 1_000
_HELD_SHARE = 0.9
"""Of the ledger's limit: below it the intake is opened again."""
_PULL_AGAIN_S = 0.002
"""A worker that was answered pulls again within this. What waits for it then is leased in the append that makes it
durable, instead of in one of its own after that."""
_VIEWS_S = 0.1
"""Views are taken at most so often: people read slower, and each costs some 20 us."""


class CommitConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How facts are gathered into appends."""

    interval_ms: int = 10
    """Under load, appends begin at least so far apart, which bounds the writes at the API server."""
    gather_ms: int = 5
    """Reports and early leases, which nobody waits for, gather so long before they are appended, unless something
    urgent takes them along; or twice as long as the last append took, up to 20 ms (`runtime.pace`). Longer means fewer
    appends and later durable results."""
    load_facts: int = 40
    """An append of more facts than this counts as load; a smaller one is followed by the next at once."""
    early_leases: bool = True
    """Runs that are sure to start are committed and leased ahead of their instant."""


class PartitionHost:
    """Leads one partition for one term. Made anew for each term."""

    def __init__(
        self,
        ledger: Ledger,
        term: Term,
        clock: Clock,
        *,
        engine_config: EngineConfig | None = None,
        commit: CommitConfig | None = None,
        sink: ViewSink | None = None,
    ) -> None:
        self.ledger = ledger
        self._term = term
        self._clock = clock
        self._commit = commit or CommitConfig()
        self._sink = sink
        self.engine = Engine(engine_config, now_ms=clock.now_ms(), boot_ms=clock.boot_ms())
        self.engine.gather()
        self.epoch = 0
        self.ledger_identity = ""
        self.replayed_runs = 0
        """Runs that were open when this term began."""
        self.clock_behind_ms = 0
        """How far this replica's clock was behind the last fact when the term began."""
        self.ledger_problem = ""
        """Why tasks had to be recovered from their statuses when the term began; empty: none had."""
        self.leading = False
        self._facts: list[Fact] = []
        self._effects: list[Effect] = []
        self._waiting: dict[Hashable, asyncio.Future[Effect]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        """When it wakes the loop, by the loop's clock."""
        self._pace = Pace(self._commit.early_leases, self._commit.gather_ms)
        self._load_until = 0.0
        self._gather_until = 0.0
        self._views_from = 0.0
        self._urgent = False
        self.intake_held = False
        """The store is near its limit: no new runs are made."""
        self._checkpoints = Checkpoints(ledger, self._lost)
        self._pulls_until = 0.0
        self.broken: Exception | None = None
        """What the engine raised half-way through a command: its state is no longer the fold of its facts."""
        self.broken_by: object = None
        """The command, or the sequence of them, that it was."""
        self.append_observer: Callable[[float, int, int], None] = lambda seconds, size, facts: None

    @property
    def surely_leads(self) -> bool:
        """Whether this replica leads, and no rival can have the Lease: one that slept would send workers astray."""
        return self.leading and self._term.is_fresh()

    @property
    def lead_ms(self) -> int:
        """How long before their instant runs are made and leased."""
        return self._pace.lead_ms

    # --- the term ---

    async def take_over(self, catalog: Callable[[], Iterable[Command]]) -> None:
        """Fence the last leader, replay its facts, load the catalog. Then effects may flow.

        `catalog` is called without a pause before `CatalogSynced`, so that no change falls between. Raises the
        ledger's errors.
        """
        opened = await self.ledger.open(self._term.epoch_floor, may_fence=self._term.is_fresh)
        await fold(opened, self.engine)
        self.epoch, self.ledger_identity = opened.epoch, opened.identity
        self._compare_clocks()
        self.replayed_runs = len(self.engine.state.runs)
        self.leading = True
        self._watch_store()
        with uncollected():
            clock = self._clock
            self._collect(self.engine.handle_all(catalog(), clock.now_ms(), clock.boot_ms()))
            self.post(LeadSet(lead_ms=self._pace.lead_ms))
            self.post(CatalogSynced())
        self._look_for_loss(empty=opened.checkpoint is None and not opened.tail_segments)

    def _look_for_loss(self, *, empty: bool) -> None:
        """Say it loudly when the statuses of tasks know more than the ledger."""
        recovery = self.engine.scheduler.recovery
        if not recovery.count:
            return
        named = ", ".join(f"{spec.namespace}/{spec.name}" for spec in recovery.first[:3])
        more = f" and {recovery.count - 3} more" if recovery.count > 3 else ""
        found = (
            "the ledger is empty, so an earlier one was lost"
            if empty
            else "the ledger is older than they are, or their namespaces were not served for a while"
        )
        self.ledger_problem = (
            f"the status of {named}{more} tells of runs that the ledger does not know: {found}. Instants that a status "
            "says are settled do not run again; run histories, idempotency keys and backfills of before are gone "
            "(docs/backup.md)"
        )
        _log.error("%s", self.ledger_problem)

    def _compare_clocks(self) -> None:
        """Say it when the leader before lived in this replica's future: what it did then is settled, and what it put
        off is due, only when this clock gets there."""
        self.clock_behind_ms = max(0, self.engine.state.clock_ms - self._clock.now_ms())
        if self.clock_behind_ms > _CLOCKS_AGREE_MS:
            _log.warning(
                "the clock of this replica is %.1f s behind that of the leader before: until it has caught up, no "
                "instant fires that the other has settled, and retries wait; synchronise the clocks of the nodes",
                self.clock_behind_ms / 1000,
            )

    async def run(self) -> None:
        """Lead until `stop()`, or until the term is lost: then raises `Deposed`, and nothing more is released.

        Raises what the engine raised, too: the term is over, and `Leadership` begins another.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self.broken is not None:
                    raise self.broken
                self._watch_store()
                self._tick()
                if self._stopping and not self._facts and not self._effects:
                    return
                pause = self._pause_s(loop)
                if pause > 0:
                    self._wake.clear()
                    self._set_timer(loop, pause)
                    await self._wake.wait()
                else:
                    await self._commit_batch(loop)
        except TermEnded:
            raise self.broken or TermEnded() from None
        finally:
            self.leading = False
            collect_again()
            await self._checkpoints.stop()
            if self._timer is not None:
                self._timer.cancel()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(TermEnded())
            self._waiting.clear()

    def _pause_s(self, loop: asyncio.AbstractEventLoop) -> float:
        """How long the next batch may still gather, in seconds; 0 or less: it is due. Commands may hasten it."""
        now = loop.time()
        if self.intake_held and self._checkpoint_due(now):
            return 0
        if self._pulls_until > now and not self._stopping and self.engine.has_waiting:
            return max(self._pulls_until, self._load_until) - now
        if self._urgent or (self._stopping and (self._facts or self._effects)):
            return self._load_until - now if self._facts else 0
        if self._facts or self._effects:
            return max(self._gather_until, self._load_until) - now
        if self._sink is not None and self.engine.has_news and self._sink.wanted() > 0:
            return self._views_from - now
        return _IDLE_S

    def stop(self) -> None:
        """Finish: append what was decided, answer whom it answers, then `run` returns."""
        self._stopping = True
        self._wake.set()

    async def _commit_batch(self, loop: asyncio.AbstractEventLoop) -> None:
        views = self._take_views(loop.time())
        facts, effects = self._facts, [*self._effects, *self.engine.answers()]
        self._facts, self._effects, self._urgent = [], [], False
        # Taken now, with the facts that this batch makes durable: under load more are decided before it is.
        snapshot = self.engine.snapshot() if self._checkpoint_due(loop.time()) else None
        if facts:
            started = loop.time()
            appended = await self.ledger.append(facts)
            ended = loop.time()
            self.append_observer(ended - started, appended.size_bytes, len(facts))
            if self._pace.observe(ended - started):
                self._handle(LeadSet(lead_ms=self._pace.lead_ms))
            if len(facts) > self._commit.load_facts:
                self._load_until = started + self._commit.interval_ms / 1000
        if not self._term.is_fresh():
            raise Deposed("the lease was no longer fresh when the append came back")
        self._pulls_until = 0.0
        for effect in effects:
            if isinstance(effect, Pulled) and effect.deliveries:
                self._pulls_until = loop.time() + _PULL_AGAIN_S
            future = self._waiting.pop(effect.request, None)
            if future is not None and not future.done():
                future.set_result(effect)
        if views is not None and self._sink is not None:
            self._sink.show(views)
        if snapshot is not None:
            self._checkpoints.begin(snapshot)

    def _checkpoint_due(self, now: float) -> bool:
        return self._checkpoints.due(now, relief=self.intake_held and not self._stopping)

    def _lost(self, error: Deposed) -> None:
        self.broken = error
        self._wake.set()

    def _watch_store(self) -> None:
        """Hold the intake before the store is full, while there is room for what open runs still have to say."""
        limit, retained = self.ledger.limits.max_bytes, self.ledger.stats.retained_bytes
        if retained >= limit and not self.intake_held:
            self.intake_held = True
            reason = f"the ledger retains {retained >> 20} MiB; from {limit >> 20} MiB on no new runs are made"
            _log.warning("%s (setting ledger_max_bytes)", reason)
            self._handle(IntakeHeld(reason=reason))
        elif self.intake_held and retained < limit * _HELD_SHARE:
            self.intake_held = False
            _log.info("the ledger retains %d MiB: new runs are made again", retained >> 20)
            self._handle(IntakeHeld(reason=""))

    def _take_views(self, now: float) -> Views | None:
        if self._sink is None or now < self._views_from or not self.engine.has_news:
            return None
        wanted = self._sink.wanted()
        if wanted <= 0:
            return None
        self._views_from = now + _VIEWS_S
        return self.engine.views(wanted)

    # --- commands ---

    def post(self, command: Command) -> None:
        """Carry out a command now; what it decides is appended and released in its turn."""
        if self.leading:
            self._handle(command)
            self._wake_in_time()

    def post_all(self, commands: Sequence[Command]) -> None:
        """Carry out what the catalog has to say, together."""
        if self.leading:
            self._decide(self.engine.handle_all, commands)
            self._wake_in_time()

    def _wake_in_time(self) -> None:
        if self._facts or self._effects or self._due_at() < self._timer_at:
            self._wake.set()

    def _handle(self, command: Command) -> None:
        self._decide(self.engine.handle, command)

    def _decide(self, how: Callable[[_T, int, int], Output], what: _T) -> None:
        """Let the engine decide. Where it fails the term ends, since what it decided half is in its state but will not
        be in the ledger; the next term replays what is true. Raises `TermEnded` then, for whoever gave the command:
        it is not his fault, nor is it known what becomes of it."""
        try:
            output = how(what, self._clock.now_ms(), self._clock.boot_ms())
        except Exception as error:
            self.broken, self.broken_by = error, what
            self.leading = False
            self._wake.set()
            raise TermEnded from error
        self._collect(output)

    def _collect(self, output: Output) -> None:
        """Add to the next batch. Somebody waits for a lease or a submission: it is due at once. A report is not waited
        for (its worker goes on meanwhile), nor is a lease long before its instant, so they gather with what comes
        within the interval: half of the appends."""
        if not self._facts and not self._effects:
            self._gather_until = asyncio.get_running_loop().time() + self._pace.gather_ms / 1000
        self._facts.extend(output.facts)
        self._effects.extend(output.effects)
        if not self._urgent:
            self._urgent = self.engine.answers_within(self._pace.lead_ms - self._pace.gather_ms) or any(
                type(effect) is not Reported for effect in output.effects
            )

    async def call(self, command: Pull | Report | Submit | StartBackfill | CancelRun) -> Effect:
        """Carry out a command and wait for its answer, which comes when it is durable.

        Raises `TermEnded` when the term ends first: whether it was carried out is unknown; ask the next leader.
        """
        if not self.leading or self._stopping:
            raise TermEnded
        future: asyncio.Future[Effect] = asyncio.get_running_loop().create_future()
        self._waiting[command.request] = future
        try:
            self.post(command)
            return await future
        finally:
            if self._waiting.pop(command.request, None) is not None and isinstance(command, Pull):
                self.post(PullEnded(request=command.request))

    # --- time ---

    def _tick(self) -> None:
        if self._pause_ms() <= 0:
            self._handle(Tick())

    def _pause_ms(self) -> float:
        """Until the engine has something due. To a host that stops nothing is due: where an append takes longer than
        the next instant is away, it would decide something more with each, and never end."""
        if self._stopping:
            return math.inf
        return self.engine.pause_ms(self._clock.now_ms(), self._clock.boot_ms())

    def _due_at(self) -> float:
        """When the engine has something due, by the loop's clock."""
        return asyncio.get_running_loop().time() + max(0, self._pause_ms()) / 1000

    def _set_timer(self, loop: asyncio.AbstractEventLoop, pause_s: float) -> None:
        """Wake when the engine has something due, or the batch has gathered long enough."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due_at()
        self._timer = loop.call_at(min(self._timer_at, loop.time() + pause_s), self._wake.set)
