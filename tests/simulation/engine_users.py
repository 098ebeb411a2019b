"""The users of a story: they edit, suspend, delete, submit, cancel and ask for the past."""

from __future__ import annotations

import msgspec
from tests.simulation.engine_leaders import HANDLERS, NAMESPACE
from tests.simulation.engine_workers import Workers
from tests.simulation.record import EPOCH_MS
from tests.simulation.tasks import draw_calendar, draw_edit, draw_task

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.identity import keyed_run_id
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec

__all__ = ["Users"]


class Users(Workers):
    """The story, with its users."""

    def _create(self, name: str = "") -> None:
        self._numbers += 1
        number = self._numbers
        names = [spec.name for spec in self.tasks.values()]
        spec = draw_task(self.chance, number, name or f"t{len(names)}", self.wall_ms)
        spec = msgspec.structs.replace(
            spec, handler=self.chance.choice(HANDLERS), pool=self.chance.choice(("pool", "pool", "pool", "second"))
        )
        if spec.name not in names:
            self._apply(spec)

    def _apply(self, spec: TaskSpec) -> None:
        self.tasks[spec.uid] = spec
        if self.engine.scheduler.synced:
            self.do(m.TaskApplied(spec=spec))

    def _edit(self) -> None:
        self._hear_of_deleted()
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
                        spec, handler=chance.choice(HANDLERS), pool=chance.choice(("pool", "second")),
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
        self.do(m.Submit(request=f"submit {self._numbers}", namespace=NAMESPACE, name=name, runs=runs))

    def _flood(self) -> None:
        """So many runs at once that one fact about them fits no segment."""
        free = [s for uid, s in self.tasks.items() if s.overlap.max_concurrent is None and uid not in self.invalid]
        if self.config.max_backlog < 1_000 or self.config.max_leases_per_pull < 500 or not free:
            return
        spec = self.chance.choice(free)
        self._numbers += 1
        runs = [m.Submission(key=f"flood {self._numbers} {number}", scheduled_ms=self.wall_ms) for number in range(300)]
        self.do(m.Submit(request=f"submit {self._numbers}", namespace=NAMESPACE, name=spec.name, runs=runs))
        self._start_worker(m.WorkerKey(NAMESPACE, spec.pool, "strong"))
        strong = self.processes[-1]
        strong.handlers, strong.slots = HANDLERS, 500
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
                request=f"backfill {self._numbers}", namespace=NAMESPACE, name=name,
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
            self.do(m.PoolRemoved(namespace=NAMESPACE, name=name))
        else:
            silence_ms = self.chance.choice((1_000, 2_500, 30_000))
            self.do(m.PoolApplied(spec=PoolSpec(namespace=NAMESPACE, name=name, silence_ms=silence_ms)))

    def _hold(self) -> None:
        self.do(m.IntakeHeld(reason=self.chance.choice(("the store is full", "", ""))))

    def _lead_time(self) -> None:
        self.do(m.LeadSet(lead_ms=self.chance.choice((0, 20, 250, 250))))
