"""Malformed objects that the API server lets in, against an operator process that has work to do meanwhile.

`test_crds.py` shows what the API server refuses of `manifests/bad`; this creates the rest of it at once, with more that
only the operator can tell (a pool that is not there, a handler that nobody registered), under a task that fires ten
times a second. Each must say in a condition which field to mend, and the task must not miss an instant.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.integration.installation import (
    apply,
    create_namespace,
    custom_object,
    edit,
    get,
    install_operator,
    service_account,
)
from tests.integration.processes import PATIENT_LEASE, Crew, OperatorProcess
from tests.integration.soak.account import Book, Record, Task, order_faults, read_records
from tests.integration.soak.scenario import HANDLERS, until
from tests.integration.soak.tail import LedgerTail

from tickwheel_cluster import Access
from tickwheel_operator.api import KINDS, documents

NAMESPACE = "bad-input"
SYSTEM = "bad-input-system"
STEADY, TURNING = "steady", "turning"
PERIOD_MS = 100
PLURALS = {kind.kind_name(): kind.presentation.plural for kind in KINDS}
_BAD = Path(__file__).parent / "manifests" / "bad"
_TASK = {"pool": "shops", "handler": "quick"}
_RARELY = {"cron": "0 4 1 1 *"}


@dataclass(frozen=True)
class Bad:
    """An object, and what its `Stalled` condition has to say."""

    kind: str
    name: str
    spec: dict[str, Any] = field(repr=False)
    words: str
    """In the message; it names the field."""
    reasons: tuple[str, ...] = ("InvalidSpec", "NotSupported")
    ready: str = "False"
    """The Ready condition beside it."""


def _corpus() -> Iterator[Bad]:
    for path in sorted(_BAD.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        _, _, by, words = text.splitlines()[0].split(maxsplit=3)
        if by == "stalled":
            document = next(documents(text)).body
            yield Bad(document["kind"], path.stem, document["spec"], words)


# What only a cluster can tell, or what is worse of its kind than the corpus.
_MORE = (
    Bad(
        "ScheduledTask", "pool-unknown", {**_TASK, "pool": "shoops", "trigger": _RARELY},
        "spec.pool: there is no WorkerPool shoops in namespace bad-input", ("PoolNotFound",),
    ),
    Bad(
        "ScheduledTask", "pool-stalled", {**_TASK, "pool": "pool-lanes", "trigger": _RARELY},
        "spec.pool: the WorkerPool pool-lanes is itself stalled", ("PoolNotFound",),
    ),
    Bad(
        # It is armed, since a worker that knows the handler may come: its runs wait for one.
        "ScheduledTask", "handler-unknown", {**_TASK, "handler": "qiuck", "trigger": _RARELY},
        "spec.handler: 'qiuck' is not registered by the live worker of pool shops; registered: quick, slow",
        ("HandlerNotRegistered",), ready="True",
    ),
    Bad(
        "ScheduledTask", "cron-never-in-short-months", {**_TASK, "trigger": {"cron": "0 0 0 31 2,4,6,9,11 ?"}},
        "spec.trigger.cron: '0 0 0 31 2,4,6,9,11 ?' never fires", ("InvalidSpec",),
    ),
    Bad(
        "ScheduledTask", "parameters-of-a-megabyte", {**_TASK, "parameters": {"items": ["x" * 10] * 80_000}},
        "spec.parameters: has ", ("InvalidSpec",),
    ),
    Bad("WorkflowRun", "workflow-run", {"workflow": "close-books"}, "kind: WorkflowRun is not supported"),
    Bad(
        "AlertChannel", "ops", {"urlsFrom": {"secretKeyRef": {"name": "ops", "key": "urls"}}},
        "kind: AlertChannel is not supported",
    ),
)  # fmt: skip
BAD = (*_corpus(), *_MORE)


@dataclass
class Scene:
    """A leader, a worker and a task at work, and all of `BAD` created beside them."""

    cluster: Access
    operator: OperatorProcess
    tail: LedgerTail
    records: Path
    began_ms: int = 0
    """When the first malformed object was about to be created."""

    def stored(self, bad: Bad) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.request("GET", f"{_path(bad.kind)}/{bad.name}")
        return found

    def task(self, name: str) -> Task:
        """As the ledger has it by now."""
        return next(task for task in Book(self.tail.segments()).tasks.values() if task.name == name)

    def fires(self, name: str) -> int:
        return sum(self.task(name).runs.values())

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = get(self.cluster, "ScheduledTask", NAMESPACE, name).get("status", {})
        return found

    def events(self, uid: str) -> list[dict[str, Any]]:
        listed = self.cluster.request("GET", f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")
        return [event for event in listed["items"] if event["regarding"].get("uid") == uid]

    def begun(self, name: str) -> list[Record]:
        """What the worker wrote down of a task."""
        uid = self.task(name).uid
        return [r for r in read_records(self.records) if r.what == "begin" and r.run.startswith(f"{uid}.")]


@pytest.fixture(scope="module")
def scene(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("bad-input")
    records = folder / "records"
    records.mkdir()
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    account = service_account(NAMESPACE, "shop-worker")  # fmt: skip
    # A machine that stands still for some seconds deposes nobody, loses no worker, and gives no instant up.
    often = {"trigger": {"fixedRate": f"{PERIOD_MS}ms"}, "misfire": {"policy": "FireAll", "maxCatchUp": 10_000}}
    with (
        LedgerTail(cluster, SYSTEM) as tail,
        Crew(cluster, folder, system=SYSTEM, namespace=NAMESPACE) as crew,
    ):
        operator = crew.operator("leader", **PATIENT_LEASE)
        apply(cluster, account, _object("WorkerPool", "shops", {"slots": 8, "silence": "120s"}))
        operator.wait_ready()
        environment = {"TICKWHEEL_TEST_RECORDS": str(records)}
        crew.worker("w-0", pool="shops", account="shop-worker", handlers=HANDLERS, environment=environment)
        apply(cluster, *(_object("ScheduledTask", name, {**_TASK, **often}) for name in (STEADY, TURNING)))
        scene = Scene(cluster, operator, tail, records)
        until("the tasks to be known", lambda: len(Book(tail.segments()).tasks) == 2)
        until(
            "a second of peace for both, to compare with",
            lambda: min(len(_in_time(scene.begun(name))) for name in (STEADY, TURNING)) >= 10,
        )
        scene.began_ms = _now_ms()
        # A task names this one: it is known before, or the task would be told of as one without a pool.
        lanes = next(bad for bad in BAD if bad.name == "pool-lanes")
        _create(cluster, lanes)
        until(f"{lanes.name} to be stalled", partial(_is_stalled, scene, lanes))
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(partial(_create, cluster), (bad for bad in BAD if bad is not lanes)))
        yield scene


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_malformed_object_is_stalled_in_words_that_name_the_field(scene: Scene, bad: Bad) -> None:
    until(f"{bad.name} to be stalled", partial(_is_stalled, scene, bad))
    stored = scene.stored(bad)
    stalled = _condition(stored, "Stalled")
    assert bad.words in stalled["message"]
    assert stalled["reason"] in bad.reasons
    if bad.kind in ("TaskRun", "WorkflowRun"):
        succeeded = _condition(stored, "Succeeded")
        assert (succeeded["status"], succeeded["message"]) == ("False", stalled["message"])
    else:
        ready = _condition(stored, "Ready")
        assert ready["status"] == bad.ready
        if bad.ready == "False":
            assert (ready["reason"], ready["message"]) == (stalled["reason"], stalled["message"])
            assert "nextScheduleTime" not in stored["status"]
    generation = stored["metadata"]["generation"]
    assert stored["status"]["observedGeneration"] == generation == 1
    assert {condition["observedGeneration"] for condition in stored["status"]["conditions"]} == {generation}


@pytest.mark.parametrize("bad", [b for b in BAD if b.kind == "ScheduledTask"], ids=lambda bad: bad.name)
def test_an_event_tells_of_a_task_that_is_stalled(scene: Scene, bad: Bad) -> None:
    uid = scene.stored(bad)["metadata"]["uid"]
    until(f"an Event of {bad.name}", lambda: scene.events(uid))
    (event,) = scene.events(uid)
    assert event["type"] == "Warning"
    assert event["reason"] in bad.reasons
    assert bad.words in event["note"]


def test_a_task_that_an_edit_breaks_stops_and_keeps_its_history_and_fires_again_when_mended(scene: Scene) -> None:
    def broken(task: dict[str, Any]) -> None:
        task["spec"]["trigger"] = {"cron": "61 * * * *"}

    def mended(task: dict[str, Any]) -> None:
        task["spec"]["trigger"] = {"fixedRate": f"{PERIOD_MS}ms"}

    until("a first success to be shown", lambda: scene.status(TURNING).get("counters", {}).get("succeeded", 0))
    uid = scene.task(TURNING).uid
    before = scene.status(TURNING)["counters"]["succeeded"]

    edit(scene.cluster, "ScheduledTask", NAMESPACE, TURNING, broken)
    until("it to be stalled", lambda: _stalled(scene.status(TURNING)) == "True", pause_s=0.05)
    stalled_ms = _now_ms()
    # The ledger is in order: what was fired of it until now is known when a later instant of the other task is.
    until("the ledger to be read so far", lambda: max(scene.task(STEADY).runs) > stalled_ms)
    until("its runs to end", lambda: not any(r.task == uid for r in Book(scene.tail.segments()).open_runs))
    fired = scene.fires(TURNING)
    begun = len(scene.begun(TURNING))
    steady = scene.fires(STEADY)
    until("another task to fire on", lambda: scene.fires(STEADY) >= steady + 15)
    assert scene.fires(TURNING) == fired
    assert len(scene.begun(TURNING)) == begun == fired
    until("all of it to be shown", lambda: scene.status(TURNING)["counters"]["succeeded"] == fired)
    status = scene.status(TURNING)
    assert status["observedGeneration"] == 2
    message = _condition({"status": status}, "Stalled")["message"]
    assert "spec.trigger.cron: minute field: '61' is out of range" in message
    assert "nextScheduleTime" not in status
    assert status["counters"]["succeeded"] >= before
    assert status["lastRun"]["state"] == "Succeeded"
    until("its last TaskRun to be there to be looked at", lambda: status["lastRun"]["name"] in _views(scene, TURNING))

    edit(scene.cluster, "ScheduledTask", NAMESPACE, TURNING, mended)
    until("it to fire again", lambda: scene.fires(TURNING) >= fired + 10)
    until("this to be shown", lambda: scene.status(TURNING)["counters"]["succeeded"] > fired)
    status = scene.status(TURNING)
    assert _stalled(status) == "False"
    assert _condition({"status": status}, "Ready")["reason"] == "Armed"
    assert status["observedGeneration"] == 3
    assert scene.task(TURNING).uid == uid, "the ledger knows it as the same task"
    until("both Events", lambda: {e["reason"] for e in scene.events(uid)} >= {"InvalidSpec", "Armed"})


def test_through_all_of_it_the_same_leader_fires_every_instant_of_a_good_task(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in BAD:
        until(f"{bad.name} to be stalled", partial(_is_stalled, scene, bad))
    until_ms = _now_ms()
    until("the instants of this time to be fired", lambda: max(scene.task(STEADY).runs) > until_ms)
    due = {instant for instant in scene.task(STEADY).runs if instant <= until_ms}
    until("the worker to have them", lambda: {r.scheduled_ms for r in scene.begun(STEADY)} >= due)

    assert scene.operator.alive
    segments = scene.tail.segments()
    assert order_faults(segments) == []
    book = Book(segments)
    assert [epoch for epoch, _, _ in book.epochs] == [1]
    assert scene.operator.metrics()['tickwheel_leader{partition="0"}'] == 1

    steady = scene.task(STEADY)
    instants = sorted(steady.runs)
    assert instants[0] < scene.began_ms < until_ms < instants[-1]
    assert {b - a for a, b in pairwise(instants)} == {PERIOD_MS}
    assert set(steady.runs.values()) == {1}
    assert steady.skipped == 0
    begun = sorted(scene.begun(STEADY), key=lambda record: record.scheduled_ms)
    done = [record.scheduled_ms for record in begun if record.scheduled_ms <= until_ms]
    assert done == [instant for instant in instants if instant <= until_ms], "executed once each, all of them"

    peace = [r.wall_ms - r.scheduled_ms for r in _in_time(begun) if r.scheduled_ms < scene.began_ms]
    storm = [r.wall_ms - r.scheduled_ms for r in begun if scene.began_ms <= r.scheduled_ms <= until_ms]
    with capsys.disabled():
        print(f"\nlateness of a start before the malformed objects: {_spread(peace)}; beside them: {_spread(storm)}")


# --- objects ---------------------------------------------------------------------------------------------------------


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return custom_object(kind, NAMESPACE, name, spec)


def _create(cluster: Access, bad: Bad) -> None:
    cluster.request("POST", _path(bad.kind), _object(bad.kind, bad.name, bad.spec))


def _path(kind: str) -> str:
    return f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/{PLURALS[kind]}"


def _views(scene: Scene, task: str) -> list[str]:
    """The TaskRuns that show the task's runs."""
    runs = get(scene.cluster, "TaskRun", NAMESPACE)["items"]
    return [run["metadata"]["name"] for run in runs if run["spec"].get("task") == task]


def _in_time(begun: list[Record]) -> list[Record]:
    """Without those that waited for the worker's first call."""
    served_ms = min((record.wall_ms for record in begun), default=0)
    return [record for record in begun if record.scheduled_ms > served_ms]


def _condition(stored: dict[str, Any], kind: str) -> dict[str, Any]:
    """The condition of this type, or nothing."""
    conditions = stored.get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _stalled(status: dict[str, Any]) -> str:
    return str(_condition({"status": status}, "Stalled").get("status", ""))


def _is_stalled(scene: Scene, bad: Bad) -> bool:
    return _stalled(scene.stored(bad).get("status", {})) == "True"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _spread(lateness: list[int]) -> str:
    ordered = sorted(lateness)
    return f"p50 {ordered[len(ordered) // 2]} ms, worst {ordered[-1]} ms of {len(ordered)}"
