"""From a seed to a story: operators, workers, tasks, edits and faults; then a quiet phase in which all must settle."""

from __future__ import annotations

import asyncio

import msgspec
from tests.simulation.loop import Node
from tests.simulation.operators import NotLeading, Operator, Truth
from tests.simulation.stores import Leases, NodeSegments, Segments
from tests.simulation.workers import Worker
from tests.simulation.world import EPOCH_MS, Lost, World

from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.identity import keyed_run_id
from tickwheel_operator.engine.messages import Submission, Submit, Submitted
from tickwheel_operator.engine.spec import Backoff, Guarantee, Misfire, MisfirePolicy, RetryPolicy, TaskSpec
from tickwheel_operator.engine.state import State
from tickwheel_operator.engine.triggers import AnyTrigger, CronTrigger, FixedRateTrigger, OnceTrigger
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger

__all__ = ["Scenario", "run_seed"]

_STORMY_S = 9.0
_QUIET_S = 60.0


class Scenario:
    """One story."""

    def __init__(self, seed: int) -> None:
        self.world = world = World(seed)
        chance = world.random
        self.segments, self.leases, self.truth = Segments(world.record), Leases(), Truth()
        self.limits = LedgerLimits(
            checkpoint_every_segments=chance.choice((5, 12, 40, 1_000)),
            max_segment_bytes=chance.choice((300, 4_096, 262_144)),
            retry_initial_ms=20,
            retry_max_ms=200,
            append_deadline_ms=3_000,
        )
        self.triggers: dict[str, AnyTrigger] = {}
        self._names = 0
        for number in range(chance.randint(2, 5)):
            self._apply(self._task(number))
        self.operators = [self._operator() for _ in range(chance.randint(1, 3))]
        self.workers = [self._worker(f"w{n}") for n in range(chance.randint(1, 3))]

    # --- the cast ---

    def _task(self, number: int) -> TaskSpec:
        chance = self.world.random
        guarantee = Guarantee.AT_MOST_ONCE if chance.random() < 0.35 else Guarantee.AT_LEAST_ONCE
        spec = TaskSpec(
            uid=f"u{number}", namespace="shops", name=f"t{number}", generation=1, created_ms=EPOCH_MS,
            trigger=self._trigger(), pool="pool", handler="work", guarantee=guarantee,
            misfire=Misfire(
                policy=chance.choice(list(MisfirePolicy)),
                max_catch_up=chance.choice((1, 5, 100)),
                starting_deadline_ms=chance.choice((None, None, 700, 4_000)),
            ),
            retry=RetryPolicy(
                limit=chance.choice((0, 1, 5)), backoff=Backoff(initial_ms=chance.choice((1, 50, 400)), max_ms=1_000)
            ),
        )  # fmt: skip
        if guarantee is Guarantee.AT_MOST_ONCE:
            self.world.record.at_most_once.add(spec.uid)
        return spec

    def _trigger(self) -> AnyTrigger | None:
        chance = self.world.random
        match chance.randrange(5):
            case 0 | 1:
                return FixedRateTrigger(chance.choice((100, 250, 333, 1_000)), EPOCH_MS + chance.randrange(500))
            case 2:
                return CronTrigger(chance.choice(("* * * * * *", "*/2 * * * * *")), "Europe/Berlin")
            case 3:
                return OnceTrigger(EPOCH_MS + chance.randrange(6_000))
            case _:
                return None

    def _apply(self, spec: TaskSpec) -> None:
        if spec.trigger is not None and not spec.suspend:
            self.triggers[spec.schedule] = spec.trigger
        self.truth.tasks[spec.uid] = spec

    def _operator(self) -> Operator:
        self._names += 1
        name = f"op{self._names}"
        operator = Operator(self.world, name, self.truth, self.segments, self.leases, self.limits)
        operator.start()
        return operator

    def _worker(self, name: str) -> Worker:
        worker = Worker(self.world, name, lambda: self.operators, self.world.random.choice((1, 3, 20)))
        worker.start()
        return worker

    # --- the story ---

    async def run(self) -> None:
        world, chance = self.world, self.world.random
        submitting = asyncio.create_task(self._submit_now_and_then())
        while world.loop.virtual_time < _STORMY_S and not world.record.violation:
            await asyncio.sleep(chance.uniform(0.05, 1.2))
            self._fault()
        submitting.cancel()
        await self._settle()
        if not world.record.violation:
            world.record.check_end(await self._restored(), self.triggers)

    def _fault(self) -> None:
        world, chance = self.world, self.world.random
        leaders = [o for o in self.operators if o.leads]
        match chance.randrange(12):
            case 0 | 1 if leaders:
                self._crash_operator(chance.choice(leaders))
            case 2 | 3 | 4 if leaders:
                self._freeze(chance.choice(leaders).node, chance.choice((0.3, 1.7, 2.6, 5.0)))
            case 5:
                self._crash_worker(chance.choice(self.workers))
            case 6:
                self._freeze(chance.choice(self.workers).node, chance.uniform(0.2, 3.0))
            case 7:
                operator = chance.choice(self.operators)
                operator.clock.offset_ms += chance.choice((-5_000, -300, 300, 4_000))
                world.record.say(operator.node.name, f"its wall clock is off by {operator.clock.offset_ms} ms now")
            case 8 | 9:
                self._edit()
            case 10:
                worker = chance.choice(self.workers)
                world.record.say(worker.node.name, "drains")
                worker.drain()
                world.later(0.7, lambda: self._replace_worker(worker))
            case 11 if leaders:
                operator = chance.choice(leaders)
                world.record.say(operator.node.name, "is asked to stop")
                operator.leadership.stop()
                world.later(1.5, lambda: self._replace_operator(operator))
            case _:
                pass

    def _freeze(self, node: Node, seconds: float) -> None:
        if node.crashed or node.frozen:
            return
        self.world.record.say(node.name, f"is frozen for {seconds:.1f} s")
        node.freeze()

        def thaw() -> None:
            if not node.crashed and node.frozen:
                self.world.record.say(node.name, "thaws")
                node.thaw()

        self.world.later(seconds, thaw)

    def _crash_operator(self, operator: Operator) -> None:
        self.world.record.say(operator.node.name, "is killed")
        operator.node.crash()
        self.world.later(self.world.random.uniform(0.1, 2.0), lambda: self._replace_operator(operator))

    def _replace_operator(self, operator: Operator) -> None:
        operator.node.crash()
        if operator in self.operators:
            self.operators[self.operators.index(operator)] = self._operator()

    def _crash_worker(self, worker: Worker) -> None:
        if worker.node.crashed:
            return
        self.world.record.say(worker.node.name, "is killed")
        worker.node.crash()
        self.world.later(self.world.random.uniform(0.05, 4.0), lambda: self._replace_worker(worker))

    def _replace_worker(self, worker: Worker) -> None:
        worker.node.crash()
        if worker in self.workers:
            self.workers[self.workers.index(worker)] = self._worker(worker.name)

    def _edit(self) -> None:
        chance = self.world.random
        spec = chance.choice(list(self.truth.tasks.values()))
        match chance.randrange(4):
            case 0:
                changed = msgspec.structs.replace(spec, suspend=not spec.suspend)
            case 1:
                changed = msgspec.structs.replace(spec, trigger=self._trigger())
            case 2:
                changed = msgspec.structs.replace(spec, parameters=b'{"edited":true}')
            case _:
                if len(self.truth.tasks) < 2:
                    return
                self.world.record.say("user", f"deletes {spec.name}")
                del self.truth.tasks[spec.uid]
                for operator in self.operators:
                    operator.tell(spec.uid, None)
                return
        changed = msgspec.structs.replace(changed, generation=spec.generation + 1)
        self.world.record.say("user", f"edits {spec.name}: {changed.schedule}")
        self._apply(changed)
        for operator in self.operators:
            operator.tell(spec.uid, changed)

    async def _submit_now_and_then(self) -> None:
        """A user who asks for runs by hand, with keys that come again."""
        chance = self.world.random
        while True:
            await asyncio.sleep(chance.uniform(0.1, 0.8))
            leaders = [o for o in self.operators if o.leads]
            if not leaders or not self.truth.tasks:
                continue
            spec = chance.choice(list(self.truth.tasks.values()))
            key = f"order-{chance.randrange(8)}"
            now = self.world.now_ms()
            try:
                answer = await chance.choice(leaders).call(
                    lambda r, name=spec.name, key=key, now=now: Submit(
                        request=r, namespace="shops", name=name, runs=[Submission(key=key, scheduled_ms=now)]
                    ),
                    1.0,
                )
            except (Lost, NotLeading):
                continue
            if isinstance(answer.effect, Submitted):
                self.world.record.accepted(keyed_run_id(spec.uid, key))

    # --- the end ---

    async def _settle(self) -> None:
        """Everything heals, nothing fires any more; all that is open must end."""
        world = self.world
        world.record.say("world", "is quiet from now on")
        world.faults = False
        for spec in list(self.truth.tasks.values()):
            changed = msgspec.structs.replace(spec, suspend=True, generation=spec.generation + 1)
            self._apply(changed)
        for operator in list(self.operators):
            if operator.node.frozen:
                operator.node.thaw()
            for spec in self.truth.tasks.values():
                operator.tell(spec.uid, spec)
        for worker in self.workers:
            if worker.node.frozen:
                worker.node.thaw()
        await asyncio.sleep(3.5)  # the latest message of the storm arrives
        deadline = world.loop.virtual_time + _QUIET_S
        while world.loop.virtual_time < deadline and not world.record.violation:
            await asyncio.sleep(0.5)
            state = world.record.folded()
            settled = all(task.schedule.startswith("suspended") for task in state.tasks.values())
            if settled and not state.runs and any(o.leads for o in self.operators):
                return

    async def _restored(self) -> State:
        """What a new leader would restore."""
        for operator in self.operators:
            operator.node.crash()
        ledger = Ledger(
            NodeSegments(self.world, self.segments), partition=0, leader="judge", clock=self.operators[0].clock,
            nonces=lambda: "judge", limits=self.limits,
        )  # fmt: skip
        opened = await ledger.open(0)
        engine = Engine(now_ms=self.world.now_ms())
        if opened.checkpoint is not None:
            engine.restore(opened.checkpoint)
        async for facts in opened.segments:
            engine.replay(facts)
        return engine.state


def run_seed(seed: int) -> Scenario:
    """Run one story to its end. Raises `Violated`; the scenario's record has the history either way."""
    scenario = Scenario(seed)
    world = scenario.world
    asyncio.set_event_loop(world.loop)
    try:
        world.loop.run_until_complete(scenario.run())
        if world.record.violation:
            world.record.violated(world.record.violation)
    except AssertionError as error:
        error.add_note("\n".join(world.record.history[-200:]))
        raise
    finally:
        world.end()
        asyncio.set_event_loop(None)
    return scenario
