"""What the projection fails at itself: one object says so, and the others are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from tickwheel_operator.engine.read.views import ViewFault
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.projection.failing import Failing
from tickwheel_operator.projection.history import History
from tickwheel_operator.projection.lanes import Key
from tickwheel_operator.projection.writer import Writer
from tickwheel_operator.reasons import INTERNAL_ERROR


class Lister:
    """A writer that lists these."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self._items = items

    async def views(self, selector: str) -> AsyncIterator[Mapping[str, Any]]:
        for item in self._items:
            yield item


def view(name: str, status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name, "namespace": "ns", "uid": f"uid-{name}", "labels": {"tickwheel.io/view": "true"},
            "ownerReferences": [{"kind": "ScheduledTask", "controller": True, "uid": "task"}],
        },
        "status": status,
    }  # fmt: skip


async def test_a_taskrun_that_cannot_be_read_hides_no_other() -> None:
    failed: list[str] = []
    history = History(
        cast("Writer", Lister(view("a", {}), view("b", "no status"), {"kind": "TaskRun"}, view("c", {}))),
        lambda item, error: failed.append(item.get("metadata", {}).get("name", "")),
    )
    await history.load()
    assert history.listed and len(history) == 2
    assert failed == ["b", ""]


def failing(faults: ObjectFaults, heard: list[tuple[str, ...]]) -> Failing:
    return Failing(faults, Objects(), None, lambda *which: heard.append(which))


def an_object(kind: str, name: str) -> Seen:
    return Seen(kind=kind, uid=f"uid-{name}", namespace="ns", name=name, generation=3)


def test_a_standing_fault_goes_over_what_the_status_says_until_it_is_mended() -> None:
    faults, heard = ObjectFaults(), []
    objects = failing(faults, heard)
    status = {"observedGeneration": 3, "replicas": 2, "conditions": [{"type": "Ready", "status": "True"}]}
    assert objects.over(an_object("WorkerPool", "p"), status) is status

    faults.stand(Layer.POOLS, "WorkerPool", "ns", "p", RuntimeError("x"))
    shown = objects.over(an_object("WorkerPool", "p"), status)
    assert shown["replicas"] == 2
    words = {c["type"]: (c["status"], c["reason"], c["observedGeneration"]) for c in shown["conditions"]}
    assert words == {
        "Ready": ("False", INTERNAL_ERROR, 3),
        "Reconciling": ("False", "Settled", 3),
        "Stalled": ("True", INTERNAL_ERROR, 3),
    }
    assert objects.over(an_object("WorkerPool", "other"), status) is status

    faults.mended(Layer.AUTOSCALING, "WorkerPool", "ns", "p")
    assert objects.at(an_object("WorkerPool", "p"))
    faults.mended(Layer.POOLS, "WorkerPool", "ns", "p")
    assert objects.over(an_object("WorkerPool", "p"), status) is status
    assert heard == [("WorkerPool", "ns", "p")] * 2


def test_a_run_that_the_operator_fails_at_has_not_succeeded() -> None:
    faults = ObjectFaults()
    faults.stand(Layer.PROJECTION, "TaskRun", "ns", "r", RuntimeError("x"))
    shown = failing(faults, []).over(an_object("TaskRun", "r"), {"observedGeneration": 1})
    words = {c["type"]: c["status"] for c in shown["conditions"]}
    assert words == {"Running": "False", "Succeeded": "False", "Stalled": "True"}


def test_that_one_way_to_look_works_mends_nothing_of_the_other() -> None:
    faults = ObjectFaults()
    known, task = Objects(), an_object("ScheduledTask", "t")
    known.put(task)
    objects = Failing(faults, known, None, print)
    objects.not_viewed([ViewFault("uid-t", RuntimeError("x"))])
    objects.look(Layer.COMPARISON, "uid-t", lambda: None)
    assert objects.at(task)
    objects.look(Layer.VIEWS, "uid-t", lambda: None)
    assert not objects.at(task)


async def test_a_status_that_can_be_made_again_is_written_again() -> None:
    faults, works = ObjectFaults(), [False]
    known, run = Objects(), an_object("TaskRun", "r")
    known.put(run)
    objects = Failing(faults, known, None, lambda *which: None)
    patched: list[str] = []

    async def write(key: Key) -> float | None:
        if not works[0]:
            raise RuntimeError("x")
        return None

    async def patch(seen: Seen, status: dict[str, object]) -> bool | None:
        patched.append(seen.kind)
        return True

    key = (run.kind, run.uid)
    assert await objects.work(key, write, patch) == 60.0
    assert patched == ["TaskRun"] and objects.at(run)
    works[0] = True
    assert await objects.work(key, write, patch) == 1.0
    assert not objects.at(run)
    assert await objects.work(key, write, patch) is None
