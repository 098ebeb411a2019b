"""From a seed to a story: operators, workers, tasks, edits and faults; then a quiet phase in which all must settle."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence

import msgspec
from tests.simulation.invariants import (
    check_end,
    check_followed,
    check_punctual,
    check_restored,
    check_unstarved,
)
from tests.simulation.kinds import draw_kind, patched
from tests.simulation.operators import LEASE_MS, POOL, NotLeading, Operator, Truth
from tests.simulation.record import EPOCH_MS, Violated
from tests.simulation.stores import Leases, NodeSegments, Segments
from tests.simulation.tasks import base_of, draw_calendar, draw_edit, draw_task
from tests.simulation.workers import Worker
from tests.simulation.world import API, Lost, World

from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.messages import CancelRun, StartBackfill, Submission, Submit, Submitted, WorkerGone
from tickwheel_operator.engine.model.identity import keyed_run_id
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.spec import EngineConfig, TaskSpec
from tickwheel_operator.engine.triggers import Trigger
from tickwheel_operator.ledger.folding import fold
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import LedgerCorrupt
from tickwheel_operator.runtime.leadership import LeadershipConfig
from tickwheel_operator.runtime.partition import CommitConfig

__all__ = ["Scenario", "run_seed"]

_QUIET_S = 40.0
"""The longest that a healed world may take to settle."""


class Scenario:
    """One story."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = world = World(seed)
        chance = world.random
        self.long = chance.random() < 0.03
        """A story with deep sleep: longer than half of the time for which epochs are kept, which is short then."""
        self.meddling = chance.random() < 0.1
        """A story in which a person deletes the Lease now and then: only the ledger keeps two leaders apart."""
        self.kind = draw_kind(seed)
        self.restless = self.kind.restless and not self.long
        self.stormy_s = 35.0 if self.long else chance.choice((3.0, 6.0, 10.0))
        if self.restless:
            self.stormy_s = 35.0
        self.segments, self.leases, self.truth = Segments(world.record), Leases(world), Truth()
        self.limits = LedgerLimits(
            checkpoint_every_segments=min(chance.choice((3, 5, 12, 40, 1_000)), 5 if self.kind.crowd else 1_000),
            max_segment_bytes=chance.choice((300, 4_096, 262_144)),
            max_chunk_bytes=chance.choice((256, 4_096)),
            retry_initial_ms=20,
            retry_max_ms=200,
            append_deadline_ms=3_000,
            epoch_keep_ms=20_000 if self.long else 8_000 if self.restless else 3_600_000,
            epochs_kept=2 if self.long else 16,
        )
        if self.limits.max_segment_bytes == 300:  # What was decided at once may be parted by a leader's end.
            world.drowsiness = chance.choice((0.0, 0.02, 0.1))
        self.leadership = LeadershipConfig(
            engine=EngineConfig(
                lease_ms=LEASE_MS,
                max_leases_per_pull=chance.choice((1, 3, 500)),
                max_backlog=chance.choice((4, 100_000, 100_000)),
            ),
            commit=CommitConfig(load_facts=chance.choice((3, 40))),
            retry_ms=100,
            release_ms=1_000,
        )
        self.jumpy = chance.random() < 0.12
        """A story in which wall clocks are set by minutes."""
        self.triggers: dict[str, set[Trigger]] = {}
        """Under the identity of a schedule: what it stood for, since a calendar's dates are not in it."""
        self._names = 0
        self._uids = 0
        for number in range(chance.randint(2, 6)):
            self._create_task(f"t{number}")
        world.record.steady.update(uid for uid, spec in self.truth.tasks.items() if spec.trigger is not None)
        self.first = dict(self.truth.tasks)
        self.operators: list[Operator] = []
        self.operators.extend(self._operator() for _ in range(3 if self.restless else chance.randint(1, 3)))
        self.workers: list[Worker] = []
        self.workers.extend(self._worker(f"w{n}") for n in range(chance.randint(1, 3) + self.kind.crowd))
        world.record.alive = lambda name: any(w.instance == name and not w.node.crashed for w in self.workers)

    # --- the cast ---

    def _operator(self) -> Operator:
        self._names += 1
        name = f"op{self._names}"
        operator = Operator(self.world, name, self.truth, self.segments, self.leases, self.limits, self.leadership)
        operator.start()
        return operator

    def _worker(self, name: str, slots: int = 0) -> Worker:
        slots = slots or self.world.random.choice((1, 3, 20))
        worker = Worker(self.world, name, lambda: self.operators, slots, self._crash_worker, clumsy=self.kind.clumsy)
        worker.start()
        return worker

    def _create_task(self, name: str) -> None:
        self._uids += 1
        spec = draw_task(self.world.random, self._uids, name, self.world.now_ms())
        self._apply(spec)

    def _apply(self, spec: TaskSpec, *, invalid: bool = False) -> None:
        """The object is so now; all operators hear of it."""
        if spec.trigger is not None:
            self.triggers.setdefault(spec.schedule, set()).update((spec.trigger, base_of(spec.trigger)))
        self.truth.tasks[spec.uid] = spec
        self.world.record.applied(spec)
        if invalid:
            self.truth.invalid.add(spec.uid)
            self.world.record.invalid.add(spec.uid)
        else:
            self.truth.invalid.discard(spec.uid)
        for operator in getattr(self, "operators", ()):
            operator.tell(lambda catalog: catalog.applied(spec, invalid=invalid))

    # --- the story ---

    async def run(self) -> None:
        world, chance, record = self.world, self.world.random, self.world.record
        using = [
            asyncio.create_task(self._submit_now_and_then()),
            asyncio.create_task(self._cancel_now_and_then()),
            asyncio.create_task(self._backfill_now_and_then()),
        ]
        if self.kind.divided:
            using.append(asyncio.create_task(self._flood_now_and_then()))
        if self.restless:
            using.append(asyncio.create_task(self._resign_again_and_again()))
        while world.loop.time() < self.stormy_s * (self.kind.cut_off or 1.0):
            await asyncio.sleep(chance.uniform(0.05, 1.2))
            self._fault()
        if self.kind.cut_off:
            for task in using:
                task.cancel()
            world.heal()
            record.say("world", f"is cut off with {len(record.state.runs)} open runs")
            check_restored(record, await self._restored())
            return
        await self._heal()
        for task in using:
            task.cancel()
        await self._settle()
        check_end(record, await self._restored(), self.triggers)
        check_followed(record, {uid: spec for uid, spec in self.first.items() if uid in self.truth.tasks})

    def _fault(self) -> None:
        world, chance = self.world, self.world.random
        leaders = [o for o in self.operators if o.leads]
        match chance.randrange(17 if self.meddling else 15):
            case 0 | 1 if leaders:
                self._crash_operator(chance.choice(leaders))
            case 2 | 3 | 4 if leaders:
                world.freeze(chance.choice(leaders).node, chance.choice((0.3, 1.7, 2.6, 12.0 if self.long else 5.0)))
            case 5:
                self._crash_worker(chance.choice(self.workers))
            case 6:
                world.freeze(chance.choice(self.workers).node, chance.uniform(0.2, 3.0))
            case 7 if not self.long and not self.restless:
                operator = chance.choice(self.operators)
                big = (-150_000, 150_000) if self.jumpy else ()
                operator.clock.jump(chance.choice((-5_000, -300, 300, 4_000, *big)))
                world.record.say(operator.node.name, f"its wall clock is off by {operator.clock.offset_ms} ms now")
            case 8 | 9:
                self._edit()
            case 10:
                worker = chance.choice(self.workers)
                world.record.say(worker.node.name, "drains")
                worker.drain()
                world.later(0.7, lambda: self._replace_worker(worker))
            case 11 if leaders:
                self._resign(chance.choice(leaders))
            case 12:
                name = chance.choice(self.operators).node.name
                source, target = chance.choice(((name, API), ("*", name), (chance.choice(self.workers).instance, "*")))
                world.cut(source, target, chance.uniform(0.2, 4.0))
            case 13 if leaders:
                worker = chance.choice(self.workers)
                world.record.say("cluster", f"calls the pod of {worker.instance} not ready")
                for leader in leaders:
                    leader.post(WorkerGone(key=worker.key, instance=worker.instance))
            case 14 if leaders:
                operator = chance.choice(leaders)
                world.record.say(operator.node.name, "thinks that its store is full")
                operator.store_is_full(True)
                world.later(chance.uniform(0.2, 2.0), lambda: operator.store_is_full(False))
            case 15 | 16:
                world.record.say("user", "deletes the Lease")
                world.record.unpeaceful_ms = world.now_ms() + 2_000
                self.leases.kept.clear()
            case _:
                pass

    def _resign(self, operator: Operator) -> None:
        self.world.record.say(operator.node.name, "is asked to stop")
        operator.leadership.stop()
        self.world.later(0.5 if self.restless else 1.5, lambda: self._replace_operator(operator))

    async def _resign_again_and_again(self) -> None:
        chance = random.Random(f"resign {self.seed}")
        while True:
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            leaders = [o for o in self.operators if o.leads]
            if leaders and self.world.faults:
                self._resign(leaders[0])

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
        if self.world.chance(0.5):
            # As kubelet says it: by the place and the time; and once more, when the next process works perhaps.
            gone = WorkerGone(key=worker.key, before_ms=self.world.now_ms() + 1)
            self._tell(gone)
            self.world.later(1.5, lambda: self._tell(gone))
        self.world.later(self.world.random.uniform(0.05, 4.0), lambda: self._replace_worker(worker))

    def _tell(self, gone: WorkerGone) -> None:
        for operator in self.operators:
            operator.post(gone)

    def _replace_worker(self, worker: Worker) -> None:
        worker.node.crash()
        if worker in self.workers:
            self.workers[self.workers.index(worker)] = self._worker(worker.key.name)

    def _edit(self) -> None:
        chance, truth, say = self.world.random, self.truth, self.world.record.say
        spec = chance.choice(list(truth.tasks.values()))
        match chance.randrange(10):
            case 0 if len(truth.tasks) < 8:
                say("user", f"creates t{self._uids}")
                self._create_task(f"t{self._uids}")
            case 1 if len(truth.tasks) > 1:
                say("user", f"deletes {spec.name} ({spec.uid})")
                del truth.tasks[spec.uid]
                truth.invalid.discard(spec.uid)
                for operator in self.operators:
                    operator.tell(lambda catalog: catalog.deleted(spec.uid))
                if chance.random() < 0.5:
                    say("user", f"creates {spec.name} again")
                    self._create_task(spec.name)
            case 3 if draw_calendar(spec) != spec:
                say("user", f"changes the calendar of {spec.name}")
                self.world.record.steady.discard(spec.uid)
                self._apply(draw_calendar(spec))
            case 2:
                say("user", f"makes {spec.name} invalid")
                self._apply(msgspec.structs.replace(spec, generation=spec.generation + 1), invalid=True)
            case _:
                changed = draw_edit(chance, spec, self.world.now_ms())
                if changed.trigger != spec.trigger:
                    self.world.record.steady.discard(spec.uid)
                verb = "edits" if changed.suspend == spec.suspend else "suspends" if changed.suspend else "resumes"
                if (changed.overlap, changed.jitter_ms) != (spec.overlap, spec.jitter_ms):
                    verb = "limits"
                say("user", f"{verb} {spec.name}: {changed.schedule}")
                self._apply(changed)

    # --- users ---

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
            other = chance.choice((b"", b"", b'{"customer":"b"}'))
            delay_ms = chance.choice((0, 0, 0, 40, 300, 1_500))
            wanted = Submission(
                key=key, scheduled_ms=self.world.now_ms(), parameters=other, delay_ms=delay_ms,
                front=delay_ms > 0 and chance.random() < 0.5,
            )  # fmt: skip
            submit = Submit(request=0, namespace=POOL.namespace, name=spec.name, runs=[wanted])
            await self._ask(leaders, submit, spec.name, [key])

    async def _flood_now_and_then(self) -> None:
        """A user who asks for many runs at once."""
        chance, number = random.Random(f"flood {self.seed}"), 0
        while True:
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            leaders, specs = [o for o in self.operators if o.leads], list(self.truth.tasks.values())
            if not leaders or not specs:
                continue
            spec, number = chance.choice(specs), number + 1
            keys = [f"flood-{number}-{n}" for n in range(12)]
            runs = [Submission(key=key, scheduled_ms=self.world.now_ms()) for key in keys]
            await self._ask(
                leaders, Submit(request=0, namespace=POOL.namespace, name=spec.name, runs=runs), spec.name, keys
            )

    async def _backfill_now_and_then(self) -> None:
        """A user who makes up for the past: spans overlap, and one key comes again."""
        chance, world = self.world.random, self.world
        while True:
            await asyncio.sleep(chance.uniform(0.8, 4.0))
            leaders = [o for o in self.operators if o.leads]
            if not leaders or not self.truth.tasks:
                continue
            spec = chance.choice(list(self.truth.tasks.values()))
            number = chance.randrange(4)
            key = f"past-{number}{chance.choice(('', '', '-again'))}"
            start = EPOCH_MS - 1_000 * (20 - 3 * number)
            command = StartBackfill(
                request=0, namespace=POOL.namespace, name=spec.name, key=key, from_ms=start, to_ms=start + 7_000,
                max_parallel=chance.choice((1, 2, 5)),
            )  # fmt: skip
            world.record.say("user", f"asks for the past {number} of {spec.name}")
            await self._ask(leaders, command, spec.name, [key])

    async def _ask(
        self, leaders: Sequence[Operator], command: Submit | StartBackfill, name: str, keys: Sequence[str]
    ) -> None:
        """Ask one of those that lead for runs of the task of this name, and note what it promises."""
        record = self.world.record
        try:
            answer = await self.world.random.choice(leaders).call(command, 1.0)
        except (Lost, NotLeading):
            return
        if isinstance(answer.effect, Submitted):
            for key, run in zip(keys, answer.effect.runs, strict=True):
                ids = {keyed_run_id(uid, key) for uid, known in record.specs.items() if known.name == name}
                record.accepted(run.run_id if run.run_id in ids else "?", run)

    async def _cancel_now_and_then(self) -> None:
        """A user who changes their mind."""
        chance, record = self.world.random, self.world.record
        while True:
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            leaders = [o for o in self.operators if o.leads]
            runs = list(record.state.runs.values())
            if not leaders or not runs:
                continue
            run_id = chance.choice(runs).id
            try:
                answer = await chance.choice(leaders).call(
                    CancelRun(request=0, run_id=run_id, message="not needed"), 1.0
                )
            except (Lost, NotLeading):
                continue
            if isinstance(answer.effect, Submitted):
                record.say("user", f"cancelled {run_id}")
                record.accepted(run_id, answer.effect.runs[0])

    # --- the end ---

    async def _heal(self) -> None:
        """No more faults. Soon somebody leads, and whatever is due is settled."""
        world, record = self.world, self.world.record
        record.say("world", "heals")
        world.heal()
        for spec in list(self.truth.tasks.values()):
            if spec.uid in self.truth.invalid:
                self._apply(msgspec.structs.replace(spec, generation=spec.generation + 1))
        await self._pass(2.2)  # The latest message of the storm arrives, and whoever was killed is back.
        await self._pass(10, until=lambda: len(self._fresh_leaders()) == 1)
        for leader in self._fresh_leaders():
            mark, mark_ms = record.state.next_run, leader.clock.now_ms()
            await self._pass(1.0)
            check_punctual(record, self.truth.tasks.values(), leader.clock.now_ms())
            host = leader.leadership.host
            if host is not None:
                check_unstarved(record, mark, mark_ms, host.engine.state)
            break
        else:
            record.violated("nobody leads, though nothing fails any more")

    def _fresh_leaders(self) -> list[Operator]:
        return [o for o in self.operators if o.leads and o.epoch == self.world.record.epoch]

    async def _settle(self) -> None:
        """Nothing fires any more; all that is open must end."""
        record = self.world.record
        record.say("world", "is quiet from now on")
        self.workers.append(self._worker("strong", slots=50))
        for spec in list(self.truth.tasks.values()):
            self._apply(msgspec.structs.replace(spec, suspend=True, generation=spec.generation + 1))
        await self._pass(0.5)  # Whatever is on its way arrives
        await self._pass(LEASE_MS / 1_000 + POOL.silence_ms / 1_000, until=lambda: not record.state.runs)
        record.healed = True  # Whoever was killed is known to be lost by now, and clocks that are set lose nobody.
        for leader in self._fresh_leaders():
            # An early lease whose answer is on its way says its start by the clock as it was.
            await self._pass(5.0, until=functools.partial(self._none_is_early, leader))
            leader.clock.jump(self.world.random.choice((-60_000, -2_000, 0, 3_000, 60_000)))
            record.say(leader.node.name, f"its wall clock is off by {leader.clock.offset_ms} ms now")
        await self._pass(400.0 if self.jumpy else _QUIET_S, until=lambda: not record.state.runs)

    def _none_is_early(self, leader: Operator) -> bool:
        host = leader.leadership.host
        attempts = host.engine.state.attempts.values() if host is not None else ()
        return all(dispatch.ready_ms + 200 < leader.clock.now_ms() for dispatch in attempts)

    async def _pass(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(int(seconds / 0.1)):
            if until():
                return
            await asyncio.sleep(0.1)

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
        try:
            await fold(opened, engine)
        except LedgerCorrupt as error:
            self.world.record.violated(f"checkpoint and tail do not fit: {error!r}")
        return engine.state


def run_seed(seed: int) -> Scenario:
    """Run one story to its end. Raises `Violated`; the scenario's record has the history either way."""
    scenario = Scenario(seed)
    world = scenario.world
    asyncio.set_event_loop(world.loop)
    try:
        try:
            with patched(scenario.kind, lambda text: world.record.say("leader", text)):
                world.loop.run_until_complete(scenario.run())
        finally:
            if world.record.violation:  # Whoever noticed it may have been a callback.
                raise Violated(world.record.violation) from None
    except Exception as error:
        error.add_note(world.record.told(last=200))
        raise
    finally:
        world.end()
        asyncio.set_event_loop(None)
    return scenario
