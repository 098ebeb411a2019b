"""Which schemas the live workers of a pool have: the engine passes on their hashes."""

from __future__ import annotations

from tests.unit.engine.driver import Driver, task_spec

from tickwheel_operator.engine.read.views import pool_views


def _seen(driver: Driver) -> tuple[str, ...]:
    (view,) = pool_views(driver.engine.state, driver.engine.router)
    return view.schemas


def test_a_pools_view_has_the_schemas_of_its_live_workers() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    assert _seen(driver) == ()
    driver.pull("w0", schemas="old")
    driver.pull("w1", schemas="old")
    driver.pull("w2", schemas="new")
    driver.pull("w3")
    assert _seen(driver) == ("", "new", "old")
    driver.report("w0", leaving=True)
    driver.pull("w3", schemas="new")
    assert _seen(driver) == ("new", "old")
    driver.pull("w1", schemas="new")
    assert _seen(driver) == ("new",)
