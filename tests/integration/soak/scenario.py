"""Two operators, three workers and many tasks on a real API server, under a plan of kills.

`run` applies the tasks, lets them fire, carries out the faults as they fall due, replaces what it killed as a
Deployment would, then suspends all tasks, waits until the last run has ended, and audits. Used by the test in short and
by `python -m tests.integration.soak` in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.integration.installation import apply, create_namespace, edit, get, install_operator, wait_until_served
from tests.integration.processes import Crew, OperatorProcess, WorkerProcess
from tests.integration.soak.account import Audit, Book, audit, read_records
from tests.integration.soak.load import ACCOUNT, POOL, instants, manifests
from tests.integration.soak.tail import LedgerTail, TailSegment

from tickwheel_cluster import Access, ControlPlane

__all__ = ["HANDLERS", "Fault", "Outcome", "Plan", "all_segments", "leader_of", "run", "until"]

HANDLERS = Path(__file__).with_name("handlers.py")
_OPERATORS, _WORKERS = 2, 3
_QUIET_S = 120.0
_SILENCE_MS = 4_000
"""How long the last runs may take to end: a lost attempt's lease, and a busy machine."""


@dataclass(frozen=True)
class Fault:
    """`kind` is `leader`, `worker` or `api-server`; it strikes `at_s` seconds after the tasks were applied."""

    at_s: float
    kind: str


@dataclass(frozen=True)
class Plan:
    rate_tasks: int
    cron_tasks: int
    seconds: float
    faults: tuple[Fault, ...]
    checkpoint_segments: int = 1_000
    operator_settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Struck:
    """A fault that was carried out, and what it did to the firing."""

    kind: str
    what: str
    at_ms: int
    last_fire_ms: int = 0
    first_fire_ms: int = 0
    epochs: tuple[int, int] = (0, 0)
    """The epoch that ruled at the last fire before, and at the first after."""

    @property
    def takeover_ms(self) -> int:
        """From the last fire before the fault to the first fire after it."""
        return self.first_fire_ms - self.last_fire_ms


@dataclass(frozen=True)
class Outcome:
    audit: Audit
    book: Book
    struck: tuple[Struck, ...]


def run(
    cluster: ControlPlane, folder: Path, plan: Plan, *, name: str, say: Callable[[str], None] = lambda text: None
) -> Outcome:
    """Carry the plan out in namespaces of its own, `name` and `name`-system. Raises AssertionError where it sticks."""
    system = f"{name}-system"
    install_operator(cluster, system)
    create_namespace(cluster, name)
    records = folder / "records"
    records.mkdir()
    with LedgerTail(cluster, system) as tail, Crew(cluster, folder, system=system, namespace=name) as crew:
        scene = _Scene(cluster, crew, tail, plan, records)
        tasks = manifests(name, rate_tasks=plan.rate_tasks, cron_tasks=plan.cron_tasks)
        apply(cluster, *tasks[:2])
        for _ in range(_OPERATORS):
            scene.start_operator()
        for operator in crew.operators:
            operator.wait_ready()
        for number in range(_WORKERS):
            scene.start_worker(f"worker-{number}")
        say(f"applying {len(tasks) - 2} tasks")
        apply(cluster, *tasks[2:])
        until("the first fire", lambda: scene.book().fires)
        struck = scene.strike(say)
        say("suspending all tasks")
        suspended_ms: dict[str, int] = {}
        for task in tasks[2:]:
            suspended_ms[task["metadata"]["name"]] = time.time_ns() // 1_000_000
            edit(cluster, "ScheduledTask", name, task["metadata"]["name"], _suspend)
        # One that fires each second has one between: where nobody leads, it is quiet as well.
        last_ms = {task: at_ms - 1_000 for task, at_ms in suspended_ms.items() if task.startswith("rate-")}
        until(
            "the last instants, and the end of all runs",
            lambda: _is_quiet(scene.book()) and scene.has_fired_since(last_ms),
            _QUIET_S,
        )
        for operator in crew.operators:
            if operator.alive:
                code = operator.terminate()
                assert code == 0, f"{operator.name} ended with {code}"
        segments = all_segments(cluster, tail, system)
        objects = get(cluster, "ScheduledTask", name)["items"]
        result = audit(segments, read_records(records), objects, instants, suspended_ms)
        return Outcome(result, scene.book(), tuple(_measured(one, scene.book()) for one in struck))


class _Scene:
    """Who runs now, and how each fault is done."""

    def __init__(self, cluster: ControlPlane, crew: Crew, tail: LedgerTail, plan: Plan, records: Path) -> None:
        self._cluster = cluster
        self._crew = crew
        self._tail = tail
        self._plan = plan
        self._records = records
        self._started = 0
        self._victims = 0
        self._book = Book()

    def book(self) -> Book:
        """What the ledger says by now."""
        self._book.read(self._tail.segments())
        return self._book

    def start_operator(self) -> OperatorProcess:
        name = f"operator-{self._started}"
        self._started += 1
        settings = {
            "TICKWHEEL_CHECKPOINT_SEGMENTS": str(self._plan.checkpoint_segments),
            **dict(self._plan.operator_settings),
        }
        return self._crew.operator(name, **settings)

    def start_worker(self, name: str) -> None:
        records = {"TICKWHEEL_TEST_RECORDS": str(self._records)}
        self._crew.worker(name, pool=POOL, account=ACCOUNT, handlers=HANDLERS, slots=32, environment=records)

    def strike(self, say: Callable[[str], None]) -> list[Struck]:
        """Let the load run as long as the plan says, with its faults."""
        began = time.monotonic()
        over_ms = 0
        done = []
        for fault in sorted(self._plan.faults, key=lambda fault: fault.at_s):
            time.sleep(max(0.0, began + fault.at_s - time.monotonic()))
            self._check()
            at_ms = time.time_ns() // 1_000_000
            what = {"leader": self._kill_leader, "worker": self._kill_worker, "api-server": self._restart_api_server}
            struck = Struck(fault.kind, what[fault.kind](), at_ms)
            say(f"{time.monotonic() - began:5.1f} s  {struck.what}")
            done.append(struck)
            over_ms = time.time_ns() // 1_000_000
        time.sleep(max(0.0, began + self._plan.seconds - time.monotonic()))
        self._check()
        # Nothing is owed then: what is overdue of a task that is suspended before somebody leads again never fires.
        each_second = [f"rate-{number}" for number in range(self._plan.rate_tasks)]
        until("the firing to go on", lambda: self.has_fired_since(dict.fromkeys(each_second, over_ms)))
        return done

    def has_fired_since(self, moments_ms: Mapping[str, int]) -> bool:
        """Whether each of these tasks fired an instant that is after its moment."""
        latest = {task.name: max(task.runs, default=0) for task in self.book().tasks.values()}
        return all(latest.get(name, 0) > moment_ms for name, moment_ms in moments_ms.items())

    def _kill_leader(self) -> str:
        epoch, leader = leader_of(self._crew, self._tail)
        leader.kill()
        time.sleep(0.5)
        replacement = self.start_operator()
        until("a new leader", lambda: self._tail.segments()[-1].epoch > epoch)
        return f"{leader.name} (epoch {epoch}) killed, {replacement.name} started"

    def _kill_worker(self) -> str:
        alive = [worker for worker in self._crew.workers if worker.alive]
        victim = alive[0]
        assert victim.process is not None
        file = self._records / f"{victim.name}-{victim.process.pid}.jsonl"
        until(f"{victim.name} to be caught at work", lambda: _is_caught_at_work(victim, file), pause_s=0.01)
        victim.kill()
        time.sleep(0.5)
        # By turns as a Deployment (another name) and as a StatefulSet (the same) would.
        self._victims += 1
        name = victim.name if self._victims % 2 == 0 else f"worker-{_WORKERS - 1 + self._victims}"
        self.start_worker(name)
        return f"{victim.name} killed, {name} started"

    def _restart_api_server(self) -> str:
        self._cluster.kill_api_server()
        time.sleep(1)
        self._cluster.restart_api_server()
        wait_until_served(self._cluster)
        return "API server killed and started again"

    def _check(self) -> None:
        """Nobody ended who was not killed."""
        for process in (*self._crew.operators, *self._crew.workers):
            assert process.process is not None
            assert process.process.poll() in (None, -9), f"{process.name} ended by itself:\n{process.log_tail()}"


def leader_of(crew: Crew, tail: LedgerTail) -> tuple[int, OperatorProcess]:
    """The epoch that rules and the process that began it, as the ledger has it."""
    epoch, _, leader = Book(s for s in tail.segments() if s.kind == "Epoch").epochs[-1]
    return epoch, next(operator for operator in crew.operators if operator.name == leader.rpartition("_")[0])


def until(what: str, condition: Callable[[], object], timeout_s: float = 90.0, pause_s: float = 0.2) -> None:
    """Wait for `condition`; how long is no part of any test."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain for {what}"
        time.sleep(pause_s)


def _is_at_work(file: Path) -> bool:
    """Whether a worker's file has an attempt that began and did not end: a kill now loses it."""
    text = file.read_text() if file.exists() else ""
    return text.count('"begin"') > text.count('"end"')


def _is_caught_at_work(worker: WorkerProcess, file: Path) -> bool:
    """Whether it is at work, and stopped: one that runs may end its attempt, and say so, before it is killed."""
    if not _is_at_work(file):
        return False
    worker.pause()
    if _is_at_work(file):
        return True
    worker.resume()
    return False


def _suspend(task: dict[str, dict[str, object]]) -> None:
    task["spec"]["suspend"] = True


def _is_quiet(book: Book) -> bool:
    """Nothing is open, and nothing fires any more: all tasks have instants each second or two."""
    return not book.open_runs and time.time_ns() // 1_000_000 - max(at_ms for at_ms, _ in book.fires) > _SILENCE_MS


def all_segments(cluster: Access, tail: LedgerTail, system: str) -> list[TailSegment]:
    """All segments, once the tail has the newest one that there is now."""
    items = get(cluster, "LedgerSegment", system)["items"]
    last = max(item["spec"]["sequence"] for item in items)
    until("the tail to be complete", lambda: tail.segments()[-1].sequence >= last)
    return tail.segments()


def _measured(struck: Struck, book: Book) -> Struck:
    """When the firing stopped and went on around the fault."""
    before = max((fire for fire in book.fires if fire[0] <= struck.at_ms), default=(0, 0))
    after = min((fire for fire in book.fires if fire[0] > struck.at_ms), default=(0, 0))
    return replace(struck, last_fire_ms=before[0], first_fire_ms=after[0], epochs=(before[1], after[1]))
