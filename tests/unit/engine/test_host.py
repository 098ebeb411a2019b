"""What a host may rely on that calls the engine only when `pause_ms` says so."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, only, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.engine.triggers import FixedRateTrigger


def _sleep(driver: Driver, until_ms: int) -> list[tuple[int, m.Effect]]:
    """What comes out of a host that sleeps as long as it may, with the time of each after T0."""
    found: list[tuple[int, m.Effect]] = []
    while True:
        pause = driver.engine.pause_ms(driver.now_ms)
        driver.now_ms = min(T0 + until_ms, driver.now_ms + max(0, pause))
        found += [(driver.now_ms - T0, effect) for effect in driver.do(m.Tick())]
        if driver.now_ms == T0 + until_ms:
            return found


def test_a_delay_is_over_on_the_millisecond() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k", delay_ms=1_234)
    driver.pull()
    [(at_ms, pulled)] = _sleep(driver, 5_000)
    assert (at_ms, len(deliveries([pulled]))) == (1_234, 1)


def test_an_instant_is_fired_on_the_millisecond() -> None:
    driver = Driver.leading(task_spec(trigger=FixedRateTrigger(1_234, T0)))
    driver.pull()
    [(at_ms, pulled)] = _sleep(driver, 1_500)
    assert (at_ms, len(deliveries([pulled]))) == (1_234, 1)


def test_a_pull_is_answered_within_a_sweep_of_its_end_though_nothing_else_happens() -> None:
    config = EngineConfig(lease_ms=1_500)
    driver = Driver.leading(task_spec(trigger=None), config=config)
    driver.pull()
    [(at_ms, pulled)] = _sleep(driver, 40_000)
    assert only([pulled], m.Pulled).deliveries == []
    assert 20_000 <= at_ms <= 20_000 + config.lease_ms // 15


def test_a_lease_that_is_not_renewed_ends_within_a_sweep_though_nothing_else_happens() -> None:
    config = EngineConfig(lease_ms=1_500)
    driver = Driver.leading(task_spec(trigger=None), config=config)
    driver.submit("k")
    [lost] = deliveries(driver.pull())
    driver.pull("w1", received=0)
    [(at_ms, pulled)] = _sleep(driver, 15_000)
    [again] = deliveries([pulled])
    assert again.run_id == lost.run_id
    assert 1_500 <= at_ms <= 1_500 + 2 * (config.lease_ms // 15)


_RATE: dict[str, Any] = {}
_DELAY: dict[str, Any] = {"source": FixedDelay(500)}


@pytest.mark.parametrize("what", [_RATE, _DELAY])
@pytest.mark.parametrize("forget", [True, False])
def test_a_task_that_is_gone_or_invalid_wakes_nobody(what: dict[str, Any], forget: bool) -> None:
    driver = Driver.leading(task_spec(**what))
    driver.do(m.TaskRemoved(uid="uid-hello", forget=forget))
    assert driver.engine.wheel.next_occupied() is None
    assert driver.engine.delays.next_occupied() is None


@pytest.mark.parametrize("what", [_RATE, _DELAY])
def test_a_suspended_task_wakes_nobody(what: dict[str, Any]) -> None:
    driver = Driver.leading(task_spec(**what))
    driver.do(m.TaskApplied(spec=task_spec(**what, suspend=True, generation=2)))
    assert driver.engine.wheel.next_occupied() is None
    assert driver.engine.delays.next_occupied() is None
