"""Calls one engine after the other at random, as no host would dare, and compares whole states.

Workers pull twice at once; they report tokens that are old, foreign, made up or named twice, and late.
Users edit, suspend, delete, cancel and ask for the past; the wall clock jumps and the boot clock makes steps;
checkpoints begin at any moment and are written in slices while facts go on; leaders die between two segments of one
append. `engine_record.Account` says what was wrong. After each append the state of the leader must equal, in every
field, the fold of all durable facts; and each checkpoint with its tail must give the same.
"""

from __future__ import annotations

import msgspec
import pytest
from tests.simulation.engine_fold import Broken
from tests.simulation.engine_leaders import HANDLERS, NAMESPACE
from tests.simulation.engine_users import Users
from tests.simulation.record import EPOCH_MS

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.dispatch import queues
from tickwheel_operator.engine.model import snapshot
from tickwheel_operator.engine.schedule import deleted

__all__ = ["EngineStory", "small_bounds"]


def small_bounds(patch: pytest.MonkeyPatch) -> None:
    """Checkpoints are written row by row, and forget all workers but one that hold nothing; queues are tidied soon,
    and deleted tasks forgotten."""
    patch.setattr(snapshot, "_ROWS_PER_CHUNK", 1)
    patch.setattr(snapshot, "_WORKER_MEMORY", 1)
    patch.setattr(queues, "_STALE_KEPT", 2)
    patch.setattr(deleted, "_KEPT_MS", 2_000)


class EngineStory(Users):
    """One story, from its seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        chance = self.chance
        for _ in range(chance.randint(2, 4)):
            self._create()
        for _ in range(chance.randint(2, 5)):
            self._start_worker()
        self._lead()

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
        for uid in sorted(self.engine.scheduler.unheard - self.tasks.keys()):
            self.do(m.TaskRemoved(uid=uid))
        for uid, spec in list(self.tasks.items()):
            self.invalid.discard(uid)
            self._apply(msgspec.structs.replace(spec, suspend=True, generation=spec.generation + 1))
        self.processes = []
        for pool in ("pool", "second"):
            self._start_worker(m.WorkerKey(NAMESPACE, pool, "strong"))
            self.processes[-1].handlers, self.processes[-1].slots = HANDLERS, 500
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

    def take_over(self) -> None:
        """The leader dies, perhaps between two segments of an append; another restores and goes on."""
        super().take_over()
        for process in list(self.processes):  # of some the leader hears that they are gone before they have spoken
            fate = self.chance.random()
            if fate < 0.15:
                self.processes.remove(process)
                self.gone.append(process)
                self.do(m.WorkerGone(key=process.key, instance=self.chance.choice((process.instance, ""))))
            elif fate < 0.35:
                self._start_worker(process.key)

    # --- time ---

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
            known = self.account.ended_as.union(map(self.account.shown_as, open_runs))
            ids = {run_id for run_id, *_ in known}
            for run in view.runs:
                if run.run_id in ids and (run.run_id, run.attempts, run.worker) not in known:
                    raise Broken(f"{view.name} is shown with {run}, which the account has as "
                                 f"{[shown for shown in known if shown[0] == run.run_id]}")  # fmt: skip

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
