"""Calls one engine after the other at random, as no host would dare, and compares whole states.

Workers pull twice at once; they report tokens that are old, foreign, made up or named twice, and late.
Users edit, suspend, delete, cancel and ask for the past; the wall clock jumps and the boot clock makes steps;
checkpoints begin at any moment and are written in slices while facts go on; leaders die between two segments of one
append. `engine_record.Account` says what was wrong. After each append the state of the leader must equal, in every
field, the fold of all durable facts; and each checkpoint with its tail must give the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
from tests.simulation.engine_record import Account, Broken
from tests.simulation.engine_sound import unsound
from tests.simulation.record import EPOCH_MS
from tests.simulation.tasks import draw_calendar, draw_edit, draw_task
from tests.simulation.whole import differences

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.identity import keyed_run_id
from tickwheel_operator.engine.snapshot import Snapshot
from tickwheel_operator.engine.spec import EngineConfig, PoolSpec, TaskSpec
from tickwheel_operator.engine.state import State
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.codec import decode_facts
from tickwheel_operator.ledger.splitting import encoded

__all__ = ["EngineStory"]

_NAMESPACE = "shops"
_HANDLERS = ("work", "other")


class _Process:
    """A worker, as it is."""

    def __init__(self, key: m.WorkerKey, number: int, chance: random.Random) -> None:
        self.key = key
        self.instance = f"i{number}"
        self.started_ms = number if number % 3 else 0
        """Some do not say when they began."""
        self.handlers = chance.choice((_HANDLERS, _HANDLERS, _HANDLERS, ("work",), ("other",)))
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


class EngineStory:
    """One story, from its seed."""

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
        self.processes: list[_Process] = []
        self.gone: list[_Process] = []
        """Processes whose late words may still come."""
        self.requests: dict[object, _Process] = {}
        """Pulls whose connection is open."""
        self.ended: list[int] = []
        self._numbers = 0
        self.checkpoints = self.takeovers = 0
        self.engine = self._engine()
        for _ in range(chance.randint(2, 4)):
            self._create()
        for _ in range(chance.randint(2, 5)):
            self._start_worker()
        self._lead()

    # --- leaders ---

    def _engine(self) -> Engine:
        engine = Engine(self.config, now_ms=self.wall_ms, boot_ms=self.boot_ms)
        if self.gathers:
            engine.gather()
        return engine

    def _lead(self) -> None:
        """The catalog of a new leader."""
        commands: list[m.Command] = [m.PoolApplied(spec=PoolSpec(namespace=_NAMESPACE, name="pool", silence_ms=2_500))]
        for uid, spec in self.tasks.items():
            applied = m.TaskApplied(spec=spec, record=self._record(spec))
            commands.append(m.TaskRemoved(uid=uid, forget=False) if uid in self.invalid else applied)
        for command in commands:
            self.do(command)
        self.do(m.LeadSet(lead_ms=self.chance.choice((0, 20, 250, 250))))
        self.do(m.CatalogSynced())

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
        for process in list(self.processes):  # of some the leader hears that they are gone before they have spoken
            fate = self.chance.random()
            if fate < 0.15:
                self.processes.remove(process)
                self.gone.append(process)
                self.do(m.WorkerGone(key=process.key, instance=self.chance.choice((process.instance, ""))))
            elif fate < 0.35:
                self._start_worker(process.key)

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

    # --- the story ---

    def run(self, steps: int) -> None:
        """Raises `Broken`, or what the engine raises."""
        actions = [
            (60, self._pass), (60, self._pull), (50, self._report), (50, self._commit), (16, self._submit),
            (8, self._cancel), (6, self._edit), (16, self.write_on), (4, self._backfill), (2, self._lose_worker),
            (3, self._late_word), (4, self._stale_pull),
            (4, self._hang_up), (3, self._jump), (3, self.take_over), (2, self._idle), (1, self._flood),
            (2, self._pool), (1, self._hold), (2, self._lead_time),
            (2, self._renew_long), (4, self._look), (2, self._punctual),
        ]  # fmt: skip
        weights = [weight for weight, _ in actions]
        for _ in range(steps):
            ((_, action),) = self.chance.choices(actions, weights)
            action()
        self._settle()

    def _settle(self) -> None:
        """Nothing fires any more, and somebody takes all that waits: so all of it ends."""
        self.take_over()
        self._commit()
        self.compare_checkpoint()
        self.do(m.IntakeHeld(reason=""))
        for uid, spec in list(self.tasks.items()):
            self.invalid.discard(uid)
            self._apply(msgspec.structs.replace(spec, suspend=True, generation=spec.generation + 1))
        self.processes = []
        for pool in ("pool", "second"):
            self._start_worker(m.WorkerKey(_NAMESPACE, pool, "strong"))
            self.processes[-1].handlers, self.processes[-1].slots = _HANDLERS, 500
        number = last = 0
        while self.account.runs:
            number += 1
            if number - last > 60:
                left = [(r.number, r.origin.name, r.token, r.cancelling) for r in self.account.runs.values()]
                raise Broken(f"runs never end: {left[:10]}")
            for process in self.processes:
                self._send_pull(process, process.received, 400)
                self._commit()
                tokens = list(process.held)
                process.held.clear()
                if tokens:
                    last = number
                    self._send_report(process, succeeded=tokens)
            self._advance(500 if number == last else 10_000)
            self._commit()
        self.compare_checkpoint()

    def _advance(self, ms: int) -> None:
        self.wall_ms += ms
        self.boot_ms += ms
        self.do(m.Tick())

    def _pass(self) -> None:
        pause = self.engine.pause_ms(self.wall_ms, self.boot_ms)
        self._advance(self.chance.choice((0, 1, 7, 40, 100, 250, min(max(0, pause), 1_000), 600)))

    def _idle(self) -> None:
        """Seconds in which only time passes, and then something to do."""
        for _ in range(9):
            self._advance(1_000)
            self._commit()
        self._submit()
        self._commit()
        self._advance(200)
        self._advance(self.config.lease_ms // 15)

    def _jump(self) -> None:
        """Somebody sets the wall clock; or both go on after a pause; or only the one that never jumps."""
        far = (-150_000, -5_000, 150_000) if self.jumpy else ()
        by = self.chance.choice((-300, -5, 300, 2_000, *far))
        match self.chance.randrange(4):
            case 0 | 1:
                self.wall_ms += by
            case 2:
                self.boot_ms += abs(by) // 10
            case _:
                self.boot_ms += abs(by) // 10
                self.wall_ms += abs(by) // 10
        self._say(f"clocks: wall {self.wall_ms - EPOCH_MS}, boot {self.boot_ms}")
        self.do(m.Tick())

    # --- workers ---

    def _start_worker(self, place: m.WorkerKey | None = None) -> None:
        """A new process, in this place or in any."""
        self._numbers += 1
        if place is None:
            pool = self.chance.choice(("pool", "pool", "pool", "second"))
            place = m.WorkerKey(_NAMESPACE, pool, f"w{self.chance.randrange(3)}")
        process = _Process(place, self._numbers, self.chance)
        for before in [p for p in self.processes if p.key == process.key]:
            self.processes.remove(before)
            self.gone.append(before)
        self.processes.append(process)

    def _pull(self) -> None:
        if self.chance.random() < 0.02 or len(self.processes) < 2:
            self._start_worker()
        process = self.chance.choice(self.processes)
        free = max(0, process.slots - len(process.held))
        received = process.received
        if process.draining or self.chance.random() < 0.05:
            process.draining = not process.draining
        if self.chance.random() < 0.05:
            process.handlers = self.chance.choice((_HANDLERS, ("work",), ()))
        self._send_pull(process, received, free)

    def _send_pull(self, process: _Process, received: int, free: int) -> None:
        self._numbers += 1
        pull = m.Pull(
            request=f"pull {self._numbers}", worker=process.seen(), free=free, received=received,
            sequence=len(process.pulls) + 1,
            until_ms=self.wall_ms + self.chance.choice((0, 50, 1_000, 20_000)),
        )  # fmt: skip
        process.pulls.append(pull)
        for request in [r for r, p in self.requests.items() if p is process]:
            del self.requests[request]  # it waits for one answer at a time
        self.requests[pull.request] = process
        self.do(pull)

    def _stale_pull(self) -> None:
        """One that was long on its way, or came twice."""
        process = self.chance.choice([*self.processes, *self.gone[-1:]])
        live = self.account.live.get(process.key)
        known = live is not None and live.seen.instance == process.instance
        if known and (not live.certain or self.account.boot_ms - live.heard_boot_ms > 1_000):
            return  # it may be known to be lost, or not
        if process.pulls:
            self._numbers += 1
            old = msgspec.structs.replace(self.chance.choice(process.pulls), request=f"pull {self._numbers}")
            self.do(old)
            self._commit()

    def _hang_up(self) -> None:
        if self.requests:
            request = self.chance.choice(list(self.requests))
            del self.requests[request]
            self.do(m.PullEnded(request=request))
        self.do(m.PullEnded(request="unheard of"))

    def _lose_worker(self) -> None:
        if not self.processes:
            return
        process = self.chance.choice(self.processes)
        instance = self.chance.choice((process.instance, "", "another"))
        if instance != "another":
            self.processes.remove(process)
            self.gone.append(process)
        before_ms = process.started_ms + 1 if process.started_ms and not instance else 0
        self.do(m.WorkerGone(key=process.key, instance=instance, before_ms=before_ms))
        late = [gone for gone in self.gone if gone.started_ms]
        if late:
            gone = self.chance.choice(late)  # the end of one before, told late
            self.do(m.WorkerGone(key=gone.key, before_ms=gone.started_ms + 1))

    def _late_word(self) -> None:
        """A report of a process whose place another has, or had."""
        if not self.gone:
            return
        process = self.chance.choice(self.gone)
        self._send_report(process, **self._outcomes(process), leaving=self.chance.random() < 0.2)

    def _report(self) -> None:
        if not self.processes:
            return
        process = self.chance.choice(self.processes)
        leaving = self.chance.random() < 0.02
        what = self._outcomes(process)
        if leaving:
            self.processes.remove(process)
            self.gone.append(process)
        self._send_report(process, **what, leaving=leaving)

    def _outcomes(self, process: _Process) -> dict[str, list]:  # type: ignore[type-arg]
        """What it says of its own tokens, and of some that are not its own."""
        chance = self.chance
        what: dict[str, list] = {  # type: ignore[type-arg]
            "succeeded": [], "results": [], "failed": [], "returned": [], "renew": [], "progress": [],
        }  # fmt: skip
        tokens = [token for token in process.held if chance.random() < 0.6]
        foreign = [t for p in (*self.processes, *self.gone) if p is not process for t in p.held]
        if foreign and chance.random() < 0.3:
            tokens.append(chance.choice(foreign))
        if self.ended and chance.random() < 0.3:
            tokens.append(chance.choice(self.ended))
        if chance.random() < 0.1:
            tokens.append(chance.choice((0, 1, 10**6)))
        if tokens and chance.random() < 0.3:
            tokens += chance.choices(tokens, k=2)
        kind = ""
        for token in tokens:
            if not kind or chance.random() < 0.6:
                kind = chance.choices(("succeeded", "results", "failed", "returned", "renew"), (4, 2, 2, 1, 4))[0]
            match kind:
                case "results":
                    what[kind].append((token, b'{"n":%d}' % token))
                case "failed":
                    timeout, text = chance.random() < 0.2, "no" * chance.choice((1, 400))
                    what[kind].append(
                        m.FailedAttempt(token=token, error_type="E", message=text, traceback=text, timeout=timeout)
                    )
                case _:
                    what[kind].append(token)
            if kind != "renew" and process.held.pop(token, None) is not None:
                self.ended.append(token)
            elif chance.random() < 0.2:
                what["progress"].append((token, 0.5, "half"))
        return what

    def _send_report(self, process: _Process, **what: object) -> None:
        self._numbers += 1
        self.do(m.Report(request=f"report {self._numbers}", worker=process.seen(), **what))  # type: ignore[arg-type]
        if self.chance.random() < 0.15:
            self._numbers += 1
            self.do(m.Report(request=f"report {self._numbers}", worker=process.seen(), **what))  # type: ignore[arg-type]

    def _renew_long(self) -> None:
        """Workers that renew for minutes what their time-outs should have ended."""
        pause_ms = 7_000 if self.config.lease_ms > 2_000 else 1_000
        for _ in range(6):
            self._pull()
            self._commit()
        self.do(m.IntakeHeld(reason="so that no thousand runs are made meanwhile"))
        for _ in range(130_000 // pause_ms):
            if not any(process.held for process in self.processes):
                break
            self.wall_ms += pause_ms
            self.boot_ms += pause_ms
            for process in self.processes:
                if process.held:
                    self._send_report(process, renew=list(process.held))
        self.do(m.IntakeHeld(reason=""))

    # --- users ---

    def _create(self, name: str = "") -> None:
        self._numbers += 1
        number = self._numbers
        names = [spec.name for spec in self.tasks.values()]
        spec = draw_task(self.chance, number, name or f"t{len(names)}", self.wall_ms)
        spec = msgspec.structs.replace(
            spec, handler=self.chance.choice(_HANDLERS), pool=self.chance.choice(("pool", "pool", "pool", "second"))
        )
        if spec.name not in names:
            self._apply(spec)

    def _apply(self, spec: TaskSpec) -> None:
        self.tasks[spec.uid] = spec
        if self.engine.scheduler.synced:
            self.do(m.TaskApplied(spec=spec))

    def _edit(self) -> None:
        chance = self.chance
        if not self.tasks:
            self._create()
            return
        spec = chance.choice(list(self.tasks.values()))
        match chance.randrange(8):
            case 0 if len(self.tasks) < 7:
                self._create()
            case 1 if len(self.tasks) > 1:
                del self.tasks[spec.uid]
                self.invalid.discard(spec.uid)
                self.do(m.TaskRemoved(uid=spec.uid))
                if chance.random() < 0.5:
                    self._create(spec.name)
            case 2:
                self.invalid.add(spec.uid)
                self.do(m.TaskRemoved(uid=spec.uid, forget=False))
            case 3 if spec.uid in self.invalid:
                self.invalid.discard(spec.uid)
                self._apply(msgspec.structs.replace(spec, generation=spec.generation + 1))
            case 4:
                self.invalid.discard(spec.uid)
                self._apply(draw_calendar(spec))
            case 5:
                self.invalid.discard(spec.uid)
                self._apply(
                    msgspec.structs.replace(
                        spec, handler=chance.choice(_HANDLERS), pool=chance.choice(("pool", "second")),
                        generation=spec.generation + 1,
                    )
                )  # fmt: skip
            case _:
                self.invalid.discard(spec.uid)
                self._apply(draw_edit(chance, spec, self.wall_ms))

    def _submit(self) -> None:
        chance = self.chance
        name = chance.choice([spec.name for spec in self.tasks.values()] or ["nobody"])
        runs = []
        for _ in range(chance.choice((1, 1, 2, 3))):
            delay_ms = chance.choice((0, 0, 0, 40, 300, 5_000))
            runs.append(
                m.Submission(
                    key=f"order-{chance.randrange(60)}",
                    scheduled_ms=self.wall_ms,
                    delay_ms=delay_ms,
                    parameters=chance.choice((b"", b"", b'{"customer":"b"}')),
                    front=chance.random() < 0.2,
                    object_name=chance.choice(("", "", "mine")),
                )
            )
        runs = list({run.key: run for run in runs}.values())
        self._numbers += 1
        self.do(m.Submit(request=f"submit {self._numbers}", namespace=_NAMESPACE, name=name, runs=runs))

    def _flood(self) -> None:
        """So many runs at once that one fact about them fits no segment."""
        free = [s for uid, s in self.tasks.items() if s.overlap.max_concurrent is None and uid not in self.invalid]
        if self.config.max_backlog < 1_000 or self.config.max_leases_per_pull < 500 or not free:
            return
        spec = self.chance.choice(free)
        self._numbers += 1
        runs = [m.Submission(key=f"flood {self._numbers} {number}", scheduled_ms=self.wall_ms) for number in range(300)]
        self.do(m.Submit(request=f"submit {self._numbers}", namespace=_NAMESPACE, name=spec.name, runs=runs))
        self._start_worker(m.WorkerKey(_NAMESPACE, spec.pool, "strong"))
        strong = self.processes[-1]
        strong.handlers, strong.slots = _HANDLERS, 500
        for kind in ("returned", "succeeded"):
            self._send_pull(strong, strong.received, 400)
            self._commit()
            tokens = list(strong.held)
            strong.held.clear()
            self._send_report(strong, **{kind: tokens})
            self._commit()

    def _backfill(self) -> None:
        chance = self.chance
        name = chance.choice([spec.name for spec in self.tasks.values()] or ["nobody"])
        number = chance.randrange(4)
        lasts_ms = chance.choice((1_000, 7_000))
        start = chance.choice((EPOCH_MS - 1_000 * (20 - 3 * number), self.wall_ms - 500 * (3 + number)))
        self._numbers += 1
        self.do(
            m.StartBackfill(
                request=f"backfill {self._numbers}", namespace=_NAMESPACE, name=name,
                key=f"past-{number}{chance.choice(('', '-again'))}", from_ms=start, to_ms=start + lasts_ms,
                max_parallel=chance.choice((1, 2, 5)),
            )
        )  # fmt: skip

    def _cancel(self) -> None:
        chance, account = self.chance, self.account
        ids = [keyed_run_id(account.uids[r.task], r.key) if r.key else f"{account.uids[r.task]}.{r.scheduled_ms}"
               for r in account.runs.values()]  # fmt: skip
        self._numbers += 1
        run_id = chance.choice([*ids, "u1.unheard-of"]) if chance.random() < 0.95 else "u1.kunheard-of"
        self.do(m.CancelRun(request=f"cancel {self._numbers}", run_id=run_id, message="not needed"))

    def _pool(self) -> None:
        name = self.chance.choice(("pool", "second", "third"))
        if self.chance.random() < 0.3:
            self.do(m.PoolRemoved(namespace=_NAMESPACE, name=name))
        else:
            silence_ms = self.chance.choice((1_000, 2_500, 30_000))
            self.do(m.PoolApplied(spec=PoolSpec(namespace=_NAMESPACE, name=name, silence_ms=silence_ms)))

    def _hold(self) -> None:
        self.do(m.IntakeHeld(reason=self.chance.choice(("the store is full", "", ""))))

    def _lead_time(self) -> None:
        self.do(m.LeadSet(lead_ms=self.chance.choice((0, 20, 250, 250))))

    # --- what people see ---

    def _look(self) -> None:
        """Views show what the account has."""
        numbers = {uid: number for number, uid in self.account.uids.items()}
        for view in self.engine.views(self.chance.choice((1, 100))).tasks:
            number = numbers.get(view.uid)
            open_runs = [run for run in self.account.runs.values() if run.task == number]
            counts = [view.succeeded, view.failed, view.cancelled, view.skipped]
            if number is not None and (view.active != len(open_runs) or counts != self.account.counts[number]):
                raise Broken(f"{view.name} is shown with {view.active} open runs and {counts}, not {len(open_runs)} "
                             f"and {self.account.counts[number]}")  # fmt: skip

    def _punctual(self) -> None:
        """Every instant that is due has been settled."""
        self._catch_up()
        if self.account.held:
            return
        for uid, spec in self.account.specs.items():
            task = self.engine.state.by_uid.get(uid)
            if spec.trigger is None or spec.suspend or task is None:
                continue
            due = spec.trigger.last_at_or_before(self.wall_ms, task.watermark_ms)
            if due is not None:
                raise Broken(f"{spec.name}: the instant {due} is due since {self.wall_ms - due} ms and not settled")

    def _say(self, what: object) -> None:
        if isinstance(what, m.TaskApplied):
            what = (
                f"TaskApplied({what.spec.uid} {what.spec.name}: {what.spec.schedule}, {what.spec.overlap}, {what.spec})"
            )
        self.history.append(f"{self.wall_ms - EPOCH_MS:>7} {self.boot_ms:>7} {what}")
