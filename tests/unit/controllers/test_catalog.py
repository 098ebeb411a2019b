"""What the catalog tells engines, and what it finds wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.kinds.builders import a_calendar, a_follower, a_pool, a_task, a_timed_task

from tickwheel_operator.controllers import catalog as catalog_module
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.engine.messages import Command, PoolApplied, PoolRemoved, TaskApplied, TaskRemoved
from tickwheel_operator.kinds import AWAITED
from tickwheel_operator.kinds.calendar import CALENDAR
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.kinds.workerpool import WORKER_POOL

SEPTEMBER_ENDS_MS = 1_790_812_799_999


class Leading:
    """A catalog that a leader listens to."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.posted: list[Command] = []
        self.catalog.attach(self.posted.extend)

    def fault(self, uid: str) -> tuple[str, str]:
        """Reason and message; empty: it is armed."""
        entry = self.catalog.task(uid)
        assert entry is not None
        return ("", "") if entry.fault is None else (entry.fault.reason, entry.fault.message)

    def next_day(self, uid: str) -> int:
        """Its first instant after September 2026, as a day of October, by the spec that was posted last."""
        specs = [c.spec for c in self.posted if isinstance(c, TaskApplied) and c.spec.uid == uid]
        trigger = specs[-1].trigger
        assert trigger is not None
        instant_ms = trigger.next_after(SEPTEMBER_ENDS_MS)
        assert instant_ms is not None
        return (instant_ms - SEPTEMBER_ENDS_MS) // 86_400_000 + 1


def kinds(commands: Any) -> list[str]:
    return [type(command).__name__ for command in commands]


def test_a_task_is_applied_when_its_pool_is_there() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_task())
    assert kinds(leading.posted) == ["PoolApplied", "TaskApplied"]


def test_a_task_without_its_pool_is_not_and_says_why() -> None:
    leading = Leading()
    leading.catalog.seen(a_task())
    assert leading.posted == [TaskRemoved(uid="u-1", forget=False)]
    entry = leading.catalog.task("u-1")
    assert entry is not None and entry.fault is not None
    assert entry.fault.reason == "PoolNotFound"
    assert "spec.pool" in entry.fault.message and "create it" in entry.fault.message


def test_a_pool_that_comes_arms_its_tasks_and_one_that_goes_disarms_them() -> None:
    leading = Leading()
    leading.catalog.seen(a_task())
    leading.catalog.seen(a_task("u-2", pool="other"))
    leading.posted.clear()
    leading.catalog.seen(a_pool())
    assert kinds(leading.posted) == ["PoolApplied", "TaskApplied"]
    leading.posted.clear()
    leading.catalog.gone(WORKER_POOL, "pool-1")
    assert leading.posted == [PoolRemoved(namespace="ns", name="p"), TaskRemoved(uid="u-1", forget=False)]


def test_an_invalid_generation_disarms_and_a_valid_one_arms_again() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_task())
    leading.posted.clear()
    leading.catalog.seen(a_task(generation=2, fault=Fault("InvalidSpec", "spec.trigger.cron: no")))
    assert leading.posted == [TaskRemoved(uid="u-1", forget=False)]
    leading.catalog.seen(a_task(generation=3))
    assert kinds(leading.posted) == ["TaskRemoved", "TaskApplied"]


def test_a_change_of_status_posts_nothing() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_task())
    leading.posted.clear()
    leading.catalog.seen(a_task(stored="written"))
    leading.catalog.seen(a_pool())
    assert leading.posted == []


def test_a_task_that_is_being_deleted_fires_no_more_and_is_forgotten_at_its_end() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_task())
    leading.posted.clear()
    leading.catalog.seen(a_task(deleting=True))
    leading.catalog.gone(SCHEDULED_TASK, "u-1")
    assert leading.posted == [TaskRemoved(uid="u-1", forget=False), TaskRemoved(uid="u-1", forget=True)]


def test_the_late_deletion_of_an_old_object_spares_the_new_one_of_the_same_name() -> None:
    leading = Leading()
    for uid in ("old", "new"):
        leading.catalog.seen(a_pool(uid=uid))
        leading.catalog.seen(a_task(uid, name="t"))
    leading.posted.clear()
    leading.catalog.gone(WORKER_POOL, "old")
    leading.catalog.gone(SCHEDULED_TASK, "old")
    assert leading.posted == [TaskRemoved(uid="old", forget=True)]
    found = leading.catalog.task_named("ns", "t")
    assert found is not None and found.seen.uid == "new"
    leading.catalog.gone(WORKER_POOL, "unknown")
    assert leading.fault("new") == ("", "")


def test_an_old_pool_that_is_told_of_late_and_then_gone_leaves_the_new_one_as_it_is() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool(uid="old"))
    leading.catalog.seen(a_pool(uid="new", silence_ms=5_000))
    leading.catalog.seen(a_task())
    leading.catalog.seen(a_pool(uid="old"))  # its last event: the watch has a queue for each uid
    leading.posted.clear()
    leading.catalog.gone(WORKER_POOL, "old")
    assert [command.spec.silence_ms for command in leading.posted if isinstance(command, PoolApplied)] == [5_000]
    assert kinds(leading.posted) == ["PoolApplied"]
    assert leading.fault("u-1") == ("", "")
    assert [c.spec.silence_ms for c in leading.catalog.snapshot() if isinstance(c, PoolApplied)] == [5_000]


def test_an_old_task_that_is_told_of_late_and_then_gone_leaves_its_followers_armed() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_follower("load", "extract"))
    for uid in ("old", "new", "old"):
        leading.catalog.seen(a_task(uid, name="extract"))
    leading.posted.clear()
    leading.catalog.gone(SCHEDULED_TASK, "old")
    assert leading.posted == [TaskRemoved(uid="old", forget=True)]
    assert leading.fault("load") == ("", "")
    leading.catalog.gone(SCHEDULED_TASK, "new")
    assert leading.fault("load")[0] == "TaskNotFound"


def test_a_snapshot_is_what_was_posted() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_task())
    leading.catalog.seen(a_task("u-2", pool="missing"))
    leading.catalog.seen(a_task("u-3", fault=Fault("InvalidSpec", "no")))
    assert list(leading.catalog.snapshot()) == leading.posted


def test_changes_while_nobody_leads_are_in_the_next_snapshot() -> None:
    catalog = Catalog()
    catalog.seen(a_pool())
    catalog.seen(a_task())
    commands = list(catalog.snapshot())
    assert isinstance(commands[0], PoolApplied)
    assert isinstance(commands[1], TaskApplied)
    posted: list[Command] = []
    catalog.attach(posted.extend)
    catalog.seen(a_task(stored="new"))
    assert posted == [], "the snapshot had it already"


def test_it_is_synced_when_all_kinds_are() -> None:
    catalog = Catalog()
    for kind in AWAITED:
        assert not catalog.synced
        catalog.mark_synced(kind)
    assert catalog.synced


def test_an_engine_that_breaks_down_does_not_break_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    catalog = Catalog()

    def sink(commands: Sequence[Command]) -> None:
        raise RuntimeError("broken")

    catalog.seen(a_pool())
    catalog.attach(sink)
    catalog.seen(a_task())

    assert catalog.task("u-1") is not None
    assert "the engine failed at the change of u-1" in caplog.text


# --- calendars ---


def test_a_task_gets_the_dates_of_its_calendars() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar())
    leading.catalog.seen(a_timed_task("u-1", "holidays"))
    leading.catalog.seen(a_timed_task("u-2"))
    assert (leading.next_day("u-1"), leading.next_day("u-2")) == (2, 1)


def test_a_calendar_that_changes_posts_its_tasks_again_and_no_others() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar())
    leading.catalog.seen(a_timed_task("u-1", "holidays"))
    leading.catalog.seen(a_timed_task("u-2"))
    leading.posted.clear()
    leading.catalog.seen(a_calendar(generation=2, dates=["2026-10-01/2026-10-03"]))
    assert kinds(leading.posted) == ["TaskApplied"]
    assert leading.next_day("u-1") == 4
    leading.posted.clear()
    leading.catalog.seen(a_calendar(generation=2, dates=["2026-10-01/2026-10-03"]))
    leading.catalog.seen(a_timed_task("u-1", "holidays", stored="written"))
    assert leading.posted == []


async def test_what_changes_with_a_calendar_is_posted_together_in_its_order() -> None:
    catalog = Catalog()
    posted: list[Sequence[Command]] = []
    catalog.attach(posted.append)
    catalog.seen(a_pool())
    catalog.seen(a_calendar())
    uids = [f"u-{number}" for number in range(250)]
    for uid in uids:
        catalog.seen(a_timed_task(uid, "holidays"))
    assert [len(together) for together in posted] == [1] * 251, "nobody waits for another object"
    posted.clear()
    catalog.seen(a_calendar(generation=2, dates=["2026-10-01/2026-10-03"]))
    while sum(map(len, posted)) < 250:
        await asyncio.sleep(0)
    assert max(map(len, posted)) <= 200
    assert len(posted) < 125
    told = [command.spec.uid for together in posted for command in together if isinstance(command, TaskApplied)]
    assert told == uids


async def test_a_calendar_of_many_tasks_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "_AT_ONCE_S", 0.0)
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar())
    for number in range(20):
        leading.catalog.seen(a_timed_task(f"u-{number}", "holidays"))
    leading.posted.clear()
    leading.catalog.seen(a_calendar(generation=2, dates=["2026-10-01/2026-10-03"]))
    assert len(leading.posted) < 20
    leading.catalog.gone(SCHEDULED_TASK, "u-19")
    leading.catalog.seen(a_calendar(generation=3, dates=["2026-10-01/2026-10-04"]))
    turns = 0
    while len({command.spec.uid for command in leading.posted if isinstance(command, TaskApplied)}) < 19:
        await asyncio.sleep(0)
        turns += 1
        assert turns < 100
    assert turns > 10
    async with asyncio.timeout(30):
        while {leading.next_day(f"u-{number}") for number in range(19)} != {5}:
            await asyncio.sleep(0)
    assert len(leading.posted) <= 21, "one of them was judged by both edits"
    assert leading.posted.count(TaskRemoved(uid="u-19", forget=True)) == 1


def test_a_task_without_its_calendar_is_stalled_until_it_comes_and_when_it_goes() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar("weekends", uid="c-2"))
    leading.catalog.seen(a_timed_task("u-1", "weekends", "holidays"))
    reason, message = leading.fault("u-1")
    assert reason == "CalendarNotFound"
    assert message.startswith("spec.trigger.calendars[1].name: there is no Calendar holidays in namespace ns")
    assert leading.posted[-1] == TaskRemoved(uid="u-1", forget=False)
    leading.catalog.seen(a_calendar())
    assert leading.fault("u-1") == ("", "")
    assert leading.next_day("u-1") == 2
    leading.posted.clear()
    leading.catalog.gone(CALENDAR, "another object")
    assert leading.posted == []
    leading.catalog.gone(CALENDAR, "c-1")
    assert leading.posted == [TaskRemoved(uid="u-1", forget=False)]
    assert leading.fault("u-1")[0] == "CalendarNotFound"


def test_a_calendar_with_a_fault_stalls_its_tasks_until_it_is_mended() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar())
    leading.catalog.seen(a_timed_task("u-1", "holidays"))
    leading.catalog.seen(a_calendar(generation=2, fault=Fault("InvalidSpec", "spec.timeZone: no")))
    assert leading.fault("u-1")[0] == "CalendarNotFound"
    leading.posted.clear()
    leading.catalog.seen(a_calendar(generation=3))
    assert kinds(leading.posted) == ["TaskApplied"]


def test_calendars_that_leave_no_instant_stall_the_task_with_another_reason() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar(weekdays=["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]))
    leading.catalog.seen(a_timed_task("u-1", "holidays"))
    reason, message = leading.fault("u-1")
    assert reason == "NeverFires"
    assert "spec.trigger.calendars" in message
    leading.catalog.seen(a_calendar(generation=2))
    assert leading.fault("u-1") == ("", "")


def test_a_task_that_no_longer_names_a_calendar_does_not_hear_of_it() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar())
    leading.catalog.seen(a_timed_task("u-1", "holidays"))
    leading.catalog.seen(a_timed_task("u-1", generation=2))
    assert leading.next_day("u-1") == 1
    leading.posted.clear()
    leading.catalog.gone(CALENDAR, "c-1")
    assert leading.posted == []


def test_a_task_that_is_gone_is_forgotten_with_its_calendars() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_timed_task("u-1", "holidays"))
    leading.catalog.gone(SCHEDULED_TASK, "u-1")
    leading.posted.clear()
    leading.catalog.seen(a_calendar())
    assert leading.posted == []


def test_an_edited_task_gets_the_dates_too() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_calendar())
    leading.catalog.seen(a_timed_task("u-1", "holidays"))
    leading.catalog.seen(a_timed_task("u-1", "holidays", cron="0 4 1,5 * *", generation=2))
    assert leading.next_day("u-1") == 5


def test_a_snapshot_has_the_dates_and_what_it_gave_is_not_posted_again() -> None:
    catalog = Catalog()
    catalog.seen(a_pool())
    catalog.seen(a_timed_task("u-1", "holidays"))
    catalog.seen(a_calendar())
    leading = Leading()
    leading.posted = list(catalog.snapshot())
    assert leading.next_day("u-1") == 2
    posted: list[Command] = []
    catalog.attach(posted.extend)
    catalog.seen(a_timed_task("u-1", "holidays", stored="new"))
    assert posted == []
    catalog.seen(a_calendar(generation=2, dates=["2026-10-01/2026-10-03"]))
    assert kinds(posted) == ["TaskApplied"]


# --- tasks that follow others ---


def test_a_task_waits_for_the_task_that_it_follows_and_stalls_when_that_goes() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_follower("load", "extract"))
    reason, message = leading.fault("load")
    assert reason == "TaskNotFound"
    assert message.startswith("spec.trigger.completion.task: there is no ScheduledTask extract in namespace ns")
    leading.posted.clear()
    leading.catalog.seen(a_task("e", name="extract"))
    assert kinds(leading.posted) == ["TaskApplied", "TaskApplied"]
    assert leading.fault("load") == ("", "")
    leading.posted.clear()
    leading.catalog.gone(SCHEDULED_TASK, "e")
    assert leading.posted == [TaskRemoved(uid="e", forget=True), TaskRemoved(uid="load", forget=False)]
    assert leading.fault("load")[0] == "TaskNotFound"


def test_a_task_that_follows_a_stalled_one_is_armed() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_task("e", name="extract", fault=Fault("InvalidSpec", "no")))
    leading.catalog.seen(a_follower("load", "extract"))
    assert leading.fault("load") == ("", "")


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "a", "c")])
def test_all_tasks_of_a_circle_are_stalled_and_spell_it_out_and_no_others_are(order: tuple[str, ...]) -> None:
    after = {"a": "b", "b": "c", "c": "a"}
    leading = Leading()
    leading.catalog.seen(a_pool())
    for name in order:
        leading.catalog.seen(a_follower(name, after[name]))
    leading.catalog.seen(a_follower("far", "beside"))
    leading.catalog.seen(a_follower("beside", "a"))
    assert leading.fault("beside") == leading.fault("far") == ("", "")
    for name, chain in (("a", "a -> b -> c -> a"), ("b", "b -> c -> a -> b"), ("c", "c -> a -> b -> c")):
        reason, message = leading.fault(name)
        assert reason == "CompletionCycle"
        assert chain in message
    leading.posted.clear()
    leading.catalog.seen(a_task("b", name="b", generation=2))
    assert sorted(c.spec.name for c in leading.posted if isinstance(c, TaskApplied)) == ["a", "b", "c"]
    assert [leading.fault(name) for name in "abc"] == [("", "")] * 3


def test_a_task_that_follows_itself_is_a_circle_and_a_deletion_breaks_one() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    leading.catalog.seen(a_follower("self", "self"))
    assert "self -> self is a circle" in leading.fault("self")[1]
    leading.catalog.seen(a_follower("a", "b"))
    leading.catalog.seen(a_follower("b", "a"))
    assert leading.fault("a")[0] == leading.fault("b")[0] == "CompletionCycle"
    leading.catalog.gone(SCHEDULED_TASK, "b")
    assert leading.fault("a")[0] == "TaskNotFound"


def test_an_edit_that_leaves_the_circle_for_another_task_closes_the_new_one_only() -> None:
    leading = Leading()
    leading.catalog.seen(a_pool())
    for name, after in (("a", "b"), ("b", "a"), ("c", "b")):
        leading.catalog.seen(a_follower(name, after))
    leading.catalog.seen(a_follower("b", "c", generation=2))
    assert leading.fault("a") == ("", "")
    assert "b -> c -> b" in leading.fault("b")[1]
    assert "c -> b -> c" in leading.fault("c")[1]
