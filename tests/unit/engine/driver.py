"""A hand-driven engine for the tests: every fact that it decides is kept, time is set by the test."""

from __future__ import annotations

from typing import Any, TypeVar

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.sources import ByClock, ByHand
from tickwheel_operator.engine.spec import EngineConfig, PoolSpec, TaskSpec
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger.facts import Fact

T0 = 1_700_000_000_000
E = TypeVar("E")


def task_spec(name: str = "hello", **changes: Any) -> TaskSpec:
    """A task that fires each second from T0 on. `trigger` is short for a `source` by the clock; None: by hand."""
    trigger = changes.pop("trigger", FixedRateTrigger(1_000, T0))
    fields: dict[str, Any] = {
        "uid": f"uid-{name}", "namespace": "shops", "name": name, "generation": 1, "created_ms": T0,
        "source": ByHand() if trigger is None else ByClock(trigger), "pool": "pool", "handler": "greet",
    }  # fmt: skip
    return TaskSpec(**{**fields, **changes})


class Driver:
    """An engine, and what came out of it."""

    def __init__(self, *specs: TaskSpec, now_ms: int = T0, config: EngineConfig | None = None) -> None:
        self.engine = Engine(config, now_ms=now_ms)
        self.now_ms = now_ms
        self.boot_ms: int | None = None
        """What the boot clock says; None: the same as the wall clock."""
        self.facts: list[Fact] = []
        self._requests = 0
        self.do(m.PoolApplied(spec=PoolSpec(namespace="shops", name="pool")))
        for spec in specs:
            self.do(m.TaskApplied(spec=spec))

    @classmethod
    def leading(cls, *specs: TaskSpec, **options: Any) -> Driver:
        driver = cls(*specs, **options)
        driver.do(m.CatalogSynced())
        return driver

    def successor(self, *specs: TaskSpec, now_ms: int | None = None) -> Driver:
        """A new leader that replays this one's facts."""
        other = Driver(now_ms=self.now_ms if now_ms is None else now_ms)
        other.engine.replay(self.facts)
        other.facts = list(self.facts)
        for spec in specs:
            other.do(m.TaskApplied(spec=spec))
        other.do(m.CatalogSynced())
        return other

    def do(self, command: m.Command) -> list[m.Effect]:
        output = self.engine.handle(command, self.now_ms, self.boot_ms)
        self.facts += output.facts
        return output.effects

    def at(self, offset_ms: int, command: m.Command | None = None) -> list[m.Effect]:
        """Carry out a command (default: a tick) at an instant after T0."""
        self.now_ms = T0 + offset_ms
        return self.do(command or m.Tick())

    def forget(self) -> None:
        """So much time passes that the ledger forgets what was deleted."""
        self.now_ms += 301_000
        self.do(m.Tick())

    def pull(self, worker: str = "w0", free: int = 10, **options: Any) -> list[m.Effect]:
        self._requests += 1
        received, sequence = options.pop("received", 0), options.pop("sequence", 0)
        return self.do(
            m.Pull(
                request=self._requests,
                worker=self.seen(worker, **options),
                free=free,
                received=received,
                sequence=sequence,
                until_ms=self.now_ms + 20_000,
            )
        )

    def report(self, worker: str = "w0", instance: str = "i", **what: Any) -> m.Reported:
        self._requests += 1
        effects = self.do(m.Report(request=self._requests, worker=self.seen(worker, instance=instance), **what))
        return only(effects, m.Reported)

    def cancel(self, run_id: str) -> list[m.Effect]:
        self._requests += 1
        return self.do(m.CancelRun(request=self._requests, run_id=run_id, message="asked"))

    def backfill(self, from_ms: int, to_ms: int, name: str = "hello", **what: Any) -> m.Effect:
        """Of the span after T0."""
        self._requests += 1
        key = what.pop("key", f"{from_ms} {to_ms}")
        effects = self.do(
            m.StartBackfill(
                request=self._requests, namespace="shops", name=name, key=key, from_ms=T0 + from_ms, to_ms=T0 + to_ms,
                **what,
            )
        )  # fmt: skip
        return next(e for e in effects if isinstance(e, m.Submitted | m.CommandRefused))

    def open_runs(self, name: str = "hello") -> list[Run]:
        task = self.engine.state.by_uid.get(f"uid-{name}")
        return [] if task is None else list(task.runs.values())

    def submit(self, key: str, name: str = "hello", **what: Any) -> m.Effect:
        self._requests += 1
        runs = [m.Submission(key=key, scheduled_ms=self.now_ms, **what)]
        return self.do(m.Submit(request=self._requests, namespace="shops", name=name, runs=runs))[0]

    @staticmethod
    def seen(
        worker: str,
        instance: str = "i",
        handlers: tuple[str, ...] = ("greet",),
        slots: int = 10,
        offset_us: int = 0,
        error_us: int | None = None,
        schemas: str = "",
    ) -> m.WorkerSeen:
        return m.WorkerSeen(
            key=m.WorkerKey("shops", "pool", worker),
            instance=instance,
            handlers=handlers,
            slots=slots,
            clock_offset_us=offset_us,
            clock_error_us=error_us,
            schemas=schemas,
        )

    def of(self, kind: type[E]) -> list[E]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


def only(effects: list[m.Effect], kind: type[E]) -> E:
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


def deliveries(effects: list[m.Effect]) -> list[m.Delivery]:
    return [delivery for effect in effects if isinstance(effect, m.Pulled) for delivery in effect.deliveries]
