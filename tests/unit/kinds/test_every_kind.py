"""What holds for the descriptor of each kind, and for the store of what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator import api
from tickwheel_operator.api.resource import Resource
from tickwheel_operator.kinds import AWAITED, KINDS
from tickwheel_operator.kinds.calendar import CALENDAR, SeenCalendar
from tickwheel_operator.kinds.descriptor import AnyKind
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.reasons import INTERNAL_ERROR

MODELS: dict[str, type[Resource]] = {model.kind_name(): model for model in api.KINDS}


def raw(kind: str, **more: Any) -> dict[str, Any]:
    metadata = {"uid": "u", "namespace": "ns", "name": "x", "generation": 3}
    return {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": {"no": 1}, **more}


def test_each_kind_with_a_status_has_a_descriptor() -> None:
    assert set(KINDS) == {name for name, model in MODELS.items() if model.status_model is not None}
    assert set(KINDS) == {kind.name for kind in AWAITED} | set(api.UNSUPPORTED_KINDS)
    assert {kind.name for kind in AWAITED}.isdisjoint(api.UNSUPPORTED_KINDS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_a_kind_writes_is_in_its_status_and_stands_in_one_section(kind: AnyKind) -> None:
    model = MODELS[kind.name].status_model
    assert model is not None
    fields = {field.alias or name for name, field in model.model_fields.items()}
    written = [name for section in kind.sections for name in section]
    assert set(written) <= fields and len(written) == len(set(written))
    assert {"observedGeneration", "conditions"} <= set(kind.sections[0]), "they are written together"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_manifest_with_a_fault_is_seen_with_it(kind: AnyKind) -> None:
    seen = kind.observe(raw(kind.name))
    assert (seen.kind, seen.uid, seen.namespace, seen.name, seen.generation) == (kind.name, "u", "ns", "x", 3)
    assert seen.fault is not None
    assert seen.fault.reason == ("InvalidSpec" if kind in AWAITED else "NotSupported")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_object_that_cannot_be_read_is_seen_as_such_with_what_is_stored(kind: AnyKind) -> None:
    conditions = [{"type": "Stalled", "status": "True", "reason": INTERNAL_ERROR}]
    seen = kind.unreadable(raw(kind.name, status={"conditions": conditions}), "it broke")
    assert seen.fault == Fault(INTERNAL_ERROR, "it broke")
    assert seen.stored.stalled == INTERNAL_ERROR
    assert kind.unreadable(raw(kind.name, status=1), "it broke").stored.stalled == ""


def a_calendar(uid: str, generation: int = 1) -> SeenCalendar:
    return SeenCalendar(kind="Calendar", uid=uid, namespace="ns", name="x", generation=generation)


def test_a_name_leads_to_the_object_that_has_it_now() -> None:
    objects = Objects()
    objects.put(a_calendar("first"))
    objects.put(a_calendar("first", 2))
    objects.put(a_calendar("second"))
    assert objects.named(CALENDAR, "ns", "x") == a_calendar("second")
    assert objects.uids(CALENDAR) == {"first", "second"}
    objects.remove(a_calendar("first"))
    assert objects.named(CALENDAR, "ns", "x") == a_calendar("second")
    objects.remove(a_calendar("second"))
    assert objects.named(CALENDAR, "ns", "x") is None and not objects.names(CALENDAR)


def test_an_object_that_is_told_of_late_and_then_gone_leaves_its_name_to_the_one_after_it() -> None:
    objects = Objects()
    for uid in ("first", "second", "first"):  # the watch has a queue for each uid
        objects.put(a_calendar(uid))
    objects.remove(a_calendar("first"))
    assert objects.named(CALENDAR, "ns", "x") == a_calendar("second")


def test_objects_of_different_kinds_have_nothing_in_common() -> None:
    objects = Objects()
    objects.put(a_calendar("u"))
    assert objects.get(SCHEDULED_TASK, "u") is None and objects.named(SCHEDULED_TASK, "ns", "x") is None
    assert [seen.kind for seen in objects.every()] == ["Calendar"]
