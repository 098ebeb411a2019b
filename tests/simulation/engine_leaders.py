"""The leaders of a story: what they decide is appended, checkpointed, restored, and compared as whole states."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.simulation.engine_fold import Broken
from tests.simulation.engine_record import Account
from tests.simulation.engine_sound import unsound
from tests.simulation.record import EPOCH_MS
from tests.simulation.whole import differences

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.model.snapshot import Snapshot
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.spec import EngineConfig, PoolSpec, TaskSpec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.codec import decode_facts
from tickwheel_operator.ledger.splitting import encoded

__all__ = ["HANDLERS", "NAMESPACE", "Leaders", "Process"]

NAMESPACE = "shops"
HANDLERS = ("work", "other")


class Process:
    """A worker, as it is."""

    def __init__(self, key: m.WorkerKey, number: int, chance: random.Random) -> None:
        self.key = key
        self.instance = f"i{number}"
        self.started_ms = number if number % 3 else 0
        """Some do not say when they began."""
        self.handlers = chance.choice((HANDLERS, HANDLERS, HANDLERS, ("work",), ("other",)))
        self.slots = chance.choice((1, 3, 20))
        self.error_us = chance.choice((None, 3_000, 3_000, 3_000, 25_000))
        self.held: dict[int, m.Delivery] = {}
        self.received = 0
        self.draining = False
        self.pulls: list[m.Pull] = []
        """All that it ever sent."""

    def seen(self) -> m.WorkerSeen:
        return m.WorkerSeen(
            key=self.key, instance=self.instance, started_ms=self.started_ms, handlers=self.handlers, slots=self.slots,
            draining=self.draining,
            clock_error_us=self.error_us,
        )  # fmt: skip


class Leaders:
    """One story, from its seed: one engine after the other, and all that is durable."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.config = EngineConfig(
            lease_ms=chance.choice((1_200, 15_000)),
            max_leases_per_pull=chance.choice((1, 3, 500)),
            max_backlog=chance.choice((6, 100_000, 100_000)),
            max_keys=chance.choice((3, 200_000)),
        )
        self.account = Account(self.config, max(50, self.config.lease_ms // 15))
        self.gathers = chance.random() < 0.5
        self.max_bytes = chance.choice((256, 300, 100_000))
        self.jumpy = chance.random() < 0.3
        self.wall_ms, self.boot_ms = EPOCH_MS, chance.randrange(10**6)
        self.durable: list[f.Fact] = []
        self.shadow = State(max_keys=self.config.max_keys)
        """The fold of all that is durable; it was never restored."""
        self.checkpoint: tuple[list[bytes], int] | None = None
        """The newest complete one, and how many facts it stands for."""
        self.pruned_at: list[int] = []
        """Where complete checkpoints began."""
        self._writing: tuple[Iterator[bytes], list[bytes], int] | None = None
        self.facts: list[f.Fact] = []
        self.effects: list[m.Effect] = []
        self.history: list[str] = []
        self.tasks: dict[str, TaskSpec] = {}
        self.invalid: set[str] = set()
        self.processes: list[Process] = []
        self.gone: list[Process] = []
        """Processes whose late words may still come."""
        self.requests: dict[object, Process] = {}
        """Pulls whose connection is open."""
        self.ended: list[int] = []
        self._numbers = 0
        self.checkpoints = self.takeovers = 0
        self._rare = random.Random(f"rare {seed}")
        self.engine = self._engine()

    def _engine(self) -> Engine:
        engine = Engine(self.config, now_ms=self.wall_ms, boot_ms=self.boot_ms)
        if self.gathers:
            engine.gather()
        return engine

    def _lead(self) -> None:
        """The catalog of a new leader."""
        abandoned = self._abandoned()
        self.invalid.update(uid for uid in abandoned if uid in self.tasks)
        commands: list[m.Command] = []
        for uid in abandoned:
            commands += (m.TaskAbandoned(uid=uid, why="the engine failed at it"), m.TaskRemoved(uid=uid, forget=False))
        commands.append(m.PoolApplied(spec=PoolSpec(namespace=NAMESPACE, name="pool", silence_ms=2_500)))
        for uid, spec in self.tasks.items():
            applied = m.TaskApplied(spec=spec, record=self._record(spec))
            if uid not in self.invalid:
                commands.append(applied)
            elif uid in abandoned or self._rare.random() < 0.5:
                commands.append(m.TaskRemoved(uid=uid, forget=False))
            # Else the watch has not told of it yet.
        for command in commands:
            self.do(command)
        self.do(m.LeadSet(lead_ms=self.chance.choice((0, 20, 250, 250))))
        self.do(m.CatalogSynced())
        self._hear_of_deleted()
        if abandoned and self._rare.random() < 0.5:
            self.do(m.TaskAbandoned(uid=self._rare.choice(sorted(self.tasks)), why="it comes too late"))

    def _hear_of_deleted(self) -> None:
        """The API server says which of the tasks that are unheard of are deleted, perhaps much later."""
        for uid in sorted(self.engine.scheduler.unheard - self.tasks.keys()):
            if self._rare.random() < 0.7:
                self.do(m.TaskRemoved(uid=uid))

    def _abandoned(self) -> list[str]:
        """Uids of tasks at which the engine failed in the terms before, as this leader believes: now and then one, and
        rather one with a backfill, of whose runs each end makes the next."""
        if not self.takeovers:
            return []
        whole = {run.task.uid for run in self.shadow.runs.values() if not run.dispatches}
        known = [uid for uid in self.shadow.by_uid if self._rare.random() < (0.3 if uid in whole else 0.03)]
        return [*known, "u-unheard-of"] if known else []

    def _record(self, spec: TaskSpec) -> m.StatusRecord | None:
        """What the object's status says: now and then it is ahead of the ledger, which was restored from a backup."""
        chance, task = self.chance, self.shadow.by_uid.get(spec.uid)
        if task is None or chance.random() < 0.7:
            return None
        more = chance.choice((0, 0, 1, 3))
        return m.StatusRecord(
            generation=spec.generation,
            settled_ms=task.watermark_ms + chance.choice((0, -500, 500 * more)),
            last_ended_ms=task.last_ended_ms,
            succeeded=task.succeeded + more,
            failed=max(0, task.failed - 1),
            cancelled=task.cancelled + chance.choice((0, more)),
            skips=tuple((reason, count + more, until_ms) for reason, (count, until_ms) in (task.skips or {}).items()),
        )

    def take_over(self) -> None:
        """The leader dies, perhaps between two segments of an append; another restores and goes on."""
        self.takeovers += 1
        self._commit(dies=self.chance.random() < 0.5)
        self._writing = None
        self.facts, self.effects = [], []
        self.requests.clear()
        self.wall_ms += self.chance.choice((0, 0, 3, 700, 20_000, -40, -3_000))
        self.boot_ms = self.chance.randrange(10**6)
        self._say("takes over")
        engine = self._engine()
        chunks, count = self.checkpoint or ([], 0)
        engine.restore(chunks)
        engine.replay(self.durable[count:])
        self.shadow = self._fold()
        self._compare("a new leader", engine.state, self.shadow)
        self.engine = engine
        self.account.take_over(self.durable, self.wall_ms, self.boot_ms)
        self.account.remembered = set(engine.state.workers)
        self._lead()

    def _fold(self) -> State:
        """All durable facts from an empty state, which forgets workers where a complete checkpoint did."""
        state = State(max_keys=self.config.max_keys)
        pruned = set(self.pruned_at)
        for number in range(len(self.durable) + 1):
            if number in pruned:
                Snapshot(state).end()
            if number < len(self.durable):
                state.apply(self.durable[number])
        return state

    # --- a command ---

    def do(self, command: m.Command) -> m.Output:
        """Handle it, and look at what came of it."""
        self._say(command)
        if isinstance(command, m.TaskApplied | m.TaskRemoved | m.IntakeHeld | m.LeadSet | m.CatalogSynced):
            self._catch_up()
        now_ms, boot_ms = self.wall_ms, self.boot_ms
        if isinstance(command, m.Pull):
            self.account.pulled(command, now_ms, boot_ms)
        output = self.engine.handle(command, now_ms, boot_ms)
        for fact in output.facts:
            self._say(fact)
        self.account.handled(command, output, now_ms, boot_ms)
        if isinstance(command, m.Report):
            self.account.reported(command.worker, boot_ms, command.leaving)
        elif isinstance(command, m.Pull):
            for effect in output.effects:
                if isinstance(effect, m.Pulled):
                    self.account.resent(delivery.token for delivery in effect.deliveries)
        self.facts += output.facts
        self.effects += output.effects
        if wrong := unsound(self.engine):
            raise Broken(wrong)
        return output

    def _catch_up(self) -> None:
        """What was due is decided before anything else changes."""
        for _ in range(1_000):
            if self.engine.pause_ms(self.wall_ms, self.boot_ms) > 0:
                return
            self.do(m.Tick())
        raise Broken("the engine is behind after a thousand ticks")

    def _advance(self, ms: int) -> None:
        self.wall_ms += ms
        self.boot_ms += ms
        self.do(m.Tick())

    def _commit(self, *, dies: bool = False) -> None:
        """Append what was decided, and release what waits for it; or only a part of it, and nothing."""
        answers = self.engine.answers()
        self.account.gathered(answers)
        facts, effects = self.facts, [*self.effects, *answers]
        self.facts, self.effects = [], []
        bodies = list(encoded(facts, max_bytes=self.max_bytes)) if facts else []
        if dies:
            bodies = bodies[: self.chance.randint(0, len(bodies))]
        for body in bodies:
            for fact in decode_facts(body, where="here"):
                self.durable.append(fact)
                try:
                    self.shadow.apply(fact)
                except KeyError as error:
                    raise Broken(f"{fact} does not fit what is durable before it: {error!r}") from error
        if dies:
            return
        self._say("commits")
        if self.chance.random() < 0.5:
            self._compare("the leader", self.engine.state, self.shadow)
        for effect in effects:
            self._release(effect)

    def _release(self, effect: m.Effect) -> None:
        process = self.requests.pop(effect.request, None)
        if process is None or not isinstance(effect, m.Pulled) or self.chance.random() < 0.1:
            return  # nobody is there any more, or the answer is lost
        for delivery in effect.deliveries:
            if delivery.token not in process.held:
                process.held[delivery.token] = delivery
            process.received = max(process.received, delivery.token)

    def _compare(self, who: str, one: State, other: State) -> None:
        if found := differences(one, other):
            raise Broken(f"{who} holds another state than all facts make:\n" + "\n".join(found))

    # --- checkpoints ---

    def write_on(self) -> None:
        """Begin a checkpoint, or write some more of it."""
        if self._writing is None:
            self._commit()
            taken = self.engine.snapshot()
            self.account.remembered = set(self.engine.state.workers)
            self._writing = (iter(taken), [], len(self.durable))
            Snapshot(self.shadow).end()  # which forgets the same workers
            self._say("begins a checkpoint")
            return
        coming, chunks, count = self._writing
        for _ in range(self.chance.randint(1, 6)):
            chunk = next(coming, None)
            if chunk is None:
                break
            chunks.append(chunk)
        else:
            return
        self._writing = None
        self.checkpoints += 1
        self._say(f"completes the checkpoint of {count} facts")
        self.checkpoint = (chunks, count)
        self.pruned_at.append(count)
        self.compare_checkpoint()

    def compare_checkpoint(self) -> None:
        """The newest checkpoint is the state of its moment, and with its tail that of now."""
        if self.checkpoint is None:
            return
        chunks, count = self.checkpoint
        engine = Engine(self.config, now_ms=self.wall_ms)
        engine.restore(chunks)
        then = State(max_keys=self.config.max_keys)
        pruned = set(self.pruned_at)
        for number, fact in enumerate(self.durable[:count]):
            if number in pruned:
                Snapshot(then).end()
            then.apply(fact)
        Snapshot(then).end()
        self._compare("a checkpoint", engine.state, then)
        engine.replay(self.durable[count:])
        if self._writing is None:
            self._compare("a checkpoint with its tail", engine.state, self.shadow)

    def _say(self, what: object) -> None:
        if isinstance(what, m.TaskApplied):
            what = (
                f"TaskApplied({what.spec.uid} {what.spec.name}: {what.spec.schedule}, {what.spec.overlap}, {what.spec})"
            )
        self.history.append(f"{self.wall_ms - EPOCH_MS:>7} {self.boot_ms:>7} {what}")
