"""Wherever the engine raises, the task that it was deciding for is known afterwards, and no other is blamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.dispatch.failures import Failures
from tickwheel_operator.engine.dispatch.leasing import Leasing
from tickwheel_operator.engine.dispatch.waiting import Waiting
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.schedule.backfilling import Backfills
from tickwheel_operator.engine.schedule.overlap import Overlaps
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.spec import Overlap, OverlapPolicy, TaskSpec
from tickwheel_operator.engine.triggers import FixedRateTrigger

BAD, GOOD = "bad", "good"
Act = Callable[[Driver], object]


class Broken(Exception):
    """What a fault of the engine's own raises."""


def concerns(value: Any) -> bool:
    """Whether a value is of the task `bad`."""
    match value:
        case TaskSpec():
            return value.name == BAD
        case str() | int() | bytes() | None:
            return False
    for name in ("spec", "task", "run", "entry"):
        if (inner := getattr(value, name, None)) is not None:
            return concerns(inner)
    return getattr(value, "name", "") == BAD


def break_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    """The method raises for the task `bad`, from a frame that knows nothing of it."""
    whole = getattr(owner, method)

    def broken(*arguments: Any, **options: Any) -> Any:
        if any(concerns(argument) for argument in arguments[1:]):
            raise Broken(method)
        return whole(*arguments, **options)

    monkeypatch.setattr(owner, method, broken)


def specs(**of_bad: Any) -> list[TaskSpec]:
    """Equal triggers, so that both fire by one timer and with one fact."""
    return [task_spec(GOOD), task_spec(BAD, **of_bad)]


def fire(driver: Driver) -> None:
    driver.at(1_000)


def lease(driver: Driver) -> None:
    driver.at(1_000)
    driver.pull()


def end(driver: Driver) -> None:
    driver.at(1_000)
    driver.pull()
    for dispatch in list(driver.engine.state.attempts.values()):
        driver.report(failed=[m.FailedAttempt(token=dispatch.token, error_type="E")])


def renew(driver: Driver) -> None:
    driver.at(1_000)
    driver.pull()
    driver.report(renew=[dispatch.token for dispatch in driver.engine.state.attempts.values()])


def cancel(driver: Driver) -> None:
    driver.at(1_000)
    for name in (GOOD, BAD):
        driver.cancel(driver.open_runs(name)[0].id)


def edit(driver: Driver) -> None:
    for name in (GOOD, BAD):
        driver.do(m.TaskApplied(spec=task_spec(name, generation=2, trigger=FixedRateTrigger(2_000, T0))))


def delete(driver: Driver) -> None:
    driver.at(1_000)
    for name in (GOOD, BAD):
        driver.do(m.TaskRemoved(uid=f"uid-{name}"))


def submit(driver: Driver) -> None:
    for name in (GOOD, BAD):
        driver.submit("key", name)


def backfill(driver: Driver) -> None:
    driver.at(10_000)
    for name in (GOOD, BAD):
        driver.backfill(1_000, 5_000, name)


@pytest.mark.parametrize(
    ("owner", "method", "act", "of_bad"),
    [
        (Run, "__init__", fire, {}),
        (Scheduler, "is_full", fire, {}),
        (Overlaps, "verdict", fire, {"overlap": Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1)}),
        (Waiting, "ready", fire, {}),
        (Leasing, "_delivery", lease, {}),
        (Failures, "fail", end, {}),
        (Leasing, "_lease_end", renew, {}),
        (Leasing, "cancel", cancel, {}),
        (Leasing, "end_now", delete, {}),
        (Scheduler, "_adopt", edit, {}),
        (Scheduler, "_leave", edit, {}),
        (Scheduler, "_forget", delete, {}),
        (Backfills, "start", backfill, {}),
        (Backfills, "advance", backfill, {}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:20],
)
def test_the_task_at_hand_is_the_one_that_is_blamed(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, act: Act, of_bad: dict[str, Any]
) -> None:
    driver = Driver.leading(*specs(**of_bad))
    break_at(monkeypatch, owner, method)
    with pytest.raises(Broken) as raised:
        act(driver)
    assert driver.engine.culprits(raised.value) == (f"uid-{BAD}",)


class BrokenTrigger(FixedRateTrigger, frozen=True):
    """Fails from its first instant on."""

    def next_after(self, instant_ms: int) -> int | None:
        if instant_ms >= self.anchor_ms:
            raise Broken
        return super().next_after(instant_ms)


def test_tasks_that_share_a_trigger_that_fails_are_blamed_together() -> None:
    trigger = BrokenTrigger(1_000, T0 + 1_000)
    driver = Driver.leading(task_spec(GOOD), task_spec(BAD, trigger=trigger), task_spec("worse", trigger=trigger))
    with pytest.raises(Broken) as raised:
        driver.at(1_000)
    assert set(driver.engine.culprits(raised.value)) == {"uid-bad", "uid-worse"}


def test_nobody_is_blamed_for_a_fault_that_is_of_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver.leading(*specs())

    def broken(*_: Any) -> None:
        raise Broken

    monkeypatch.setattr(Leasing, "sweep", broken)
    with pytest.raises(Broken) as raised:
        driver.at(60_000)
    assert driver.engine.culprits(raised.value) == ()


def test_runs_of_an_abandoned_task_are_ended_before_anything_else_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver.leading(*specs())
    driver.at(10_000)
    driver.backfill(1_000, 5_000, BAD)
    driver.pull(free=3)
    break_at(monkeypatch, Waiting, "ready")
    break_at(monkeypatch, Backfills, "advance")

    successor = Driver(now_ms=driver.now_ms)
    successor.engine.replay(driver.facts)
    successor.do(m.TaskAbandoned(uid=f"uid-{BAD}", why="the engine failed at it"))
    successor.do(m.TaskRemoved(uid=f"uid-{BAD}", forget=False))
    successor.do(m.TaskApplied(spec=task_spec(GOOD)))
    successor.do(m.CatalogSynced())

    assert driver.open_runs(BAD) and not successor.open_runs(BAD)
    assert successor.open_runs(GOOD)
    assert {ended.state for ended in successor.engine.state.by_uid["uid-bad"].history_failed} == {m.RunState.CANCELLED}
    for offset_ms in range(11_000, 60_000, 1_000):
        successor.at(offset_ms)
    assert not successor.open_runs(BAD)
