"""What the catalog tells engines, and what it finds wrong."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.builders import a_pool, a_task

from tickwheel_operator.controllers.catalog import KINDS, Catalog
from tickwheel_operator.controllers.observe import Fault
from tickwheel_operator.engine.messages import Command, PoolApplied, PoolRemoved, TaskApplied, TaskRemoved


class Leading:
    """A catalog that a leader listens to."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.posted: list[Command] = []
        self.catalog.attach(self.posted.append)


def kinds(commands: Any) -> list[str]:
    return [type(command).__name__ for command in commands]


def test_a_task_is_applied_when_its_pool_is_there() -> None:
    leading = Leading()
    leading.catalog.pool_seen(a_pool())
    leading.catalog.task_seen(a_task())
    assert kinds(leading.posted) == ["PoolApplied", "TaskApplied"]


def test_a_task_without_its_pool_is_not_and_says_why() -> None:
    leading = Leading()
    leading.catalog.task_seen(a_task())
    assert leading.posted == [TaskRemoved(uid="u-1", forget=False)]
    entry = leading.catalog.task("u-1")
    assert entry is not None and entry.fault is not None
    assert entry.fault.reason == "PoolNotFound"
    assert "spec.pool" in entry.fault.message and "create it" in entry.fault.message


def test_a_pool_that_comes_arms_its_tasks_and_one_that_goes_disarms_them() -> None:
    leading = Leading()
    leading.catalog.task_seen(a_task())
    leading.catalog.task_seen(a_task("u-2", pool="other"))
    leading.posted.clear()
    leading.catalog.pool_seen(a_pool())
    assert kinds(leading.posted) == ["PoolApplied", "TaskApplied"]
    leading.posted.clear()
    leading.catalog.pool_gone("ns", "p", "pool-1")
    assert leading.posted == [PoolRemoved(namespace="ns", name="p"), TaskRemoved(uid="u-1", forget=False)]


def test_an_invalid_generation_disarms_and_a_valid_one_arms_again() -> None:
    leading = Leading()
    leading.catalog.pool_seen(a_pool())
    leading.catalog.task_seen(a_task())
    leading.posted.clear()
    leading.catalog.task_seen(a_task(generation=2, fault=Fault("InvalidSpec", "spec.trigger.cron: no")))
    assert leading.posted == [TaskRemoved(uid="u-1", forget=False)]
    leading.catalog.task_seen(a_task(generation=3))
    assert kinds(leading.posted) == ["TaskRemoved", "TaskApplied"]


def test_a_change_of_status_posts_nothing() -> None:
    leading = Leading()
    leading.catalog.pool_seen(a_pool())
    leading.catalog.task_seen(a_task())
    leading.posted.clear()
    leading.catalog.task_seen(a_task(stored="written"))
    leading.catalog.pool_seen(a_pool())
    assert leading.posted == []


def test_a_task_that_is_being_deleted_fires_no_more_and_is_forgotten_at_its_end() -> None:
    leading = Leading()
    leading.catalog.pool_seen(a_pool())
    leading.catalog.task_seen(a_task())
    leading.posted.clear()
    leading.catalog.task_seen(a_task(deleting=True))
    leading.catalog.task_gone("u-1")
    assert leading.posted == [TaskRemoved(uid="u-1", forget=False), TaskRemoved(uid="u-1", forget=True)]


def test_the_late_deletion_of_an_old_object_spares_the_new_one_of_the_same_name() -> None:
    leading = Leading()
    leading.catalog.pool_seen(a_pool(uid="new"))
    leading.catalog.task_seen(a_task("new", name="t"))
    leading.posted.clear()
    leading.catalog.pool_gone("ns", "p", "old")
    leading.catalog.task_gone("old")
    assert leading.posted == []
    assert leading.catalog.task_named("ns", "t") is not None


def test_a_snapshot_is_what_was_posted() -> None:
    leading = Leading()
    leading.catalog.pool_seen(a_pool())
    leading.catalog.task_seen(a_task())
    leading.catalog.task_seen(a_task("u-2", pool="missing"))
    leading.catalog.task_seen(a_task("u-3", fault=Fault("InvalidSpec", "no")))
    assert list(leading.catalog.snapshot()) == leading.posted


def test_changes_while_nobody_leads_are_in_the_next_snapshot() -> None:
    catalog = Catalog()
    catalog.pool_seen(a_pool())
    catalog.task_seen(a_task())
    commands = list(catalog.snapshot())
    assert isinstance(commands[0], PoolApplied)
    assert isinstance(commands[1], TaskApplied)
    posted: list[Command] = []
    catalog.attach(posted.append)
    catalog.task_seen(a_task(stored="new"))
    assert posted == [], "the snapshot had it already"


def test_it_is_synced_when_all_kinds_are() -> None:
    catalog = Catalog()
    for kind in KINDS:
        assert not catalog.synced
        catalog.mark_synced(kind)
    assert catalog.synced


def test_an_engine_that_breaks_down_does_not_break_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    catalog = Catalog()

    def sink(command: Command) -> None:
        raise RuntimeError("broken")

    catalog.pool_seen(a_pool())
    catalog.attach(sink)
    catalog.task_seen(a_task())

    assert catalog.task("u-1") is not None
    assert "the engine broke down at the change of u-1" in caplog.text
