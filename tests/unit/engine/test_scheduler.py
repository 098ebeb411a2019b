"""Arming and firing: watermarks, edits, downtime, deletion."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.cron import parse
from tickwheel_operator.engine.schedule import deleted
from tickwheel_operator.engine.schedule.groups import AT_ONCE
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy, Overlap, OverlapPolicy, RetryPolicy, TaskSpec
from tickwheel_operator.engine.triggers import FilteredTrigger, FixedRateTrigger, OnceTrigger
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.ledger import facts as f


def _instants(driver: Driver) -> list[int]:
    return [fired.scheduled_ms - T0 for fired in driver.of(f.Fired) for _ in fired.tasks]


def _skips(driver: Driver) -> list[tuple[int, f.SkipReason]]:
    return [(skip.count, skip.reason) for skip in driver.of(f.Skipped)]


def _closed_on(day: int) -> Filter:
    """A calendar with one day, years ahead."""
    return Filter(exclude=(CalendarDates("c", dates=[(date(2030, 1, day), date(2030, 1, day))]),))


def test_listing_new_tasks_decides_nothing() -> None:
    driver = Driver.leading(*(task_spec(f"t{n}") for n in range(1_000)))

    assert driver.facts == []


CHANGES = st.lists(
    st.one_of(
        st.builds(
            lambda number, period, suspend, limit, edit: m.TaskApplied(
                spec=task_spec(
                    f"t{number}", trigger=FixedRateTrigger(period * 1_000, T0), suspend=suspend, generation=edit,
                    created_ms=T0 + 5_000,  # nothing is due before: what would be leased between two of them is not
                    overlap=Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=limit) if limit else Overlap(),
                )
            ),
            st.integers(0, 5), st.integers(1, 3), st.booleans(), st.integers(0, 2), st.integers(1, 4),
        ),
        st.builds(
            lambda number, forget: m.TaskRemoved(uid=f"uid-t{number}", forget=forget), st.integers(0, 5), st.booleans()
        ),
    ),
    max_size=30,
)  # fmt: skip


@given(CHANGES, CHANGES)
def test_what_the_catalog_says_together_is_as_if_it_said_it_one_by_one(
    first: list[m.Command], then: list[m.Command]
) -> None:
    facts = []
    for together in (True, False):
        driver = Driver.leading()
        for commands, after_ms in ((first, 500), (then, 3_500)):
            driver.pull()
            driver.at(after_ms)
            if together:
                driver.facts += driver.engine.handle_all(commands, driver.now_ms).facts
            else:
                for command in commands:
                    driver.do(command)
        for after_ms in (5_000, 6_000, 8_000):
            driver.at(after_ms)
        facts.append([fact for fact in driver.facts if not isinstance(fact, f.Clock)])
    assert facts[0] == facts[1]


def test_what_is_overdue_when_the_catalog_tells_of_it_is_leased_with_it() -> None:
    driver = Driver.leading()
    driver.pull()
    overdue = [m.TaskApplied(spec=task_spec(f"t{number}", trigger=OnceTrigger(T0 - 5))) for number in range(3)]
    assert len(deliveries(driver.engine.handle_all(overdue, driver.now_ms).effects)) == 3


def test_tasks_with_one_trigger_fire_as_one_fact() -> None:
    driver = Driver.leading(*(task_spec(f"t{n}") for n in range(50)))

    driver.at(1_000)

    [fired] = driver.of(f.Fired)
    assert len(fired.tasks) == 50


def test_a_new_leader_goes_on_after_the_last_instant_that_was_fired() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(2_000)

    new = driver.successor(task_spec(), now_ms=T0 + 2_900)
    new.at(3_000)

    assert _instants(new) == [1_000, 2_000, 3_000]


def test_instants_of_a_downtime_follow_the_misfire_policy() -> None:
    wanted = {
        MisfirePolicy.SKIP: [10_000],
        MisfirePolicy.FIRE_ONCE: [8_000, 10_000],
        MisfirePolicy.FIRE_ALL: [6_000, 7_000, 8_000, 10_000],
    }
    for policy, instants in wanted.items():
        spec = task_spec(misfire=Misfire(policy=policy, max_catch_up=3))
        driver = Driver.leading(spec)
        driver.at(1_000)

        new = driver.successor(spec, now_ms=T0 + 10_000)

        late = [9_000] if 9_000 >= 10_000 - 1_000 else []
        assert sorted(_instants(new)) == sorted([1_000, *instants, *late]), policy
        skipped = sum(skip.count for skip in new.of(f.Skipped))
        assert skipped + len(_instants(new)) == 10, "every instant is fired or accounted for"


def test_instants_beyond_the_starting_deadline_never_fire() -> None:
    spec = task_spec(misfire=Misfire(policy=MisfirePolicy.FIRE_ALL, starting_deadline_ms=2_500))
    driver = Driver.leading(spec)
    driver.at(1_000)

    new = driver.successor(spec, now_ms=T0 + 10_000)

    assert _instants(new) == [1_000, 8_000, 9_000, 10_000]
    assert [skip.reason for skip in new.of(f.Skipped)] == [f.SkipReason.DEADLINE]


def test_an_edited_trigger_takes_effect_at_once_without_past_instants() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_500, m.TaskApplied(spec=task_spec(generation=2, trigger=FixedRateTrigger(100, T0))))

    driver.at(1_600)
    driver.at(1_700)

    assert _instants(driver) == [1_000, 1_600, 1_700]


def test_an_edit_of_something_else_keeps_the_schedule_and_its_place() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_500, m.TaskApplied(spec=task_spec(generation=2, parameters=b'{"a":1}')))

    new = driver.successor(task_spec(generation=2, parameters=b'{"a":1}'), now_ms=T0 + 2_100)

    assert _instants(new) == [1_000, 2_000]


def test_a_suspended_task_does_not_fire_and_its_misfire_policy_settles_what_passed_meanwhile() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_500, m.TaskApplied(spec=task_spec(generation=2, suspend=True)))
    driver.at(5_500, m.TaskApplied(spec=task_spec(generation=3)))

    driver.at(6_000)

    assert _instants(driver) == [1_000, 4_000, 5_000, 6_000], "4,000 stands for what was missed, 5,000 is merely late"
    assert [(skip.count, skip.reason) for skip in driver.of(f.Skipped)] == [(2, f.SkipReason.COALESCED)]


def test_a_task_edited_to_be_invalid_stops_firing_and_keeps_its_history() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_500, m.TaskRemoved(uid="uid-hello", forget=False))

    driver.at(5_000)

    assert _instants(driver) == [1_000]
    assert driver.engine.state.by_uid["uid-hello"].last_scheduled_ms == T0 + 1_000


def test_a_deleted_task_ends_its_open_runs_and_is_forgotten() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)

    driver.at(1_500, m.TaskRemoved(uid="uid-hello"))

    assert driver.engine.state.runs == {}
    assert len(driver.of(f.Cancelled)) == 1
    driver.forget()
    assert driver.engine.state.by_uid == {}


def test_a_leader_that_hears_late_that_a_task_is_deleted_fires_none_of_its_instants_again() -> None:
    spec = task_spec(misfire=Misfire(policy=MisfirePolicy.FIRE_ALL))
    driver = Driver.leading(spec)
    driver.at(1_000)
    driver.at(1_500, m.TaskRemoved(uid=spec.uid))

    late = driver.successor(spec)
    late.at(2_000)

    assert _instants(late) == [1_000, 2_000]
    late.at(2_500, m.TaskRemoved(uid=spec.uid))
    late.forget()
    assert late.engine.state.by_uid == {}


def test_what_a_late_leader_has_heard_of_again_is_not_forgotten() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_500, m.TaskRemoved(uid=task_spec().uid))
    driver.at(1_600, m.TaskApplied(spec=task_spec()))

    driver.forget()

    assert not driver.of(f.TaskForgotten)


def test_of_many_deleted_tasks_the_first_ones_are_forgotten_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleted, "_MOST", 2)
    driver = Driver.leading(*[task_spec(name) for name in ("a", "b", "c")])
    driver.at(1_000)
    for name in ("a", "b", "c"):
        driver.do(m.TaskRemoved(uid=task_spec(name).uid))

    assert [task.name for task in driver.engine.state.by_uid.values()] == ["b", "c"]


def test_a_failure_of_a_task_that_a_leader_has_not_heard_of_is_decided_once_it_has() -> None:
    driver = Driver.leading(task_spec(retry=RetryPolicy(limit=2)))
    driver.at(1_000)
    [first] = deliveries(driver.pull())
    late = driver.successor()
    late.pull(received=first.token)

    [refused] = late.do(
        m.Report(request="r", worker=late.seen("w0"), failed=[m.FailedAttempt(token=first.token, error_type="E")])
    )
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.NOT_READY
    assert "ScheduledTask shops/hello" in refused.detail
    late.do(m.WorkerGone(key=late.seen("w0").key))
    late.do(m.Tick())
    assert not late.of(f.Failed)

    late.do(m.TaskApplied(spec=task_spec(retry=RetryPolicy(limit=2))))
    late.now_ms += 60_000
    late.do(m.Tick())

    assert [(failed.reason, bool(failed.retry_ms)) for failed in late.of(f.Failed)] == [(f.FailureReason.LOST, True)]


def test_a_task_deleted_while_no_leader_watched_is_forgotten_by_the_next_one() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)

    new = driver.successor()
    new.do(m.TaskRemoved(uid=task_spec().uid))
    new.forget()

    assert new.engine.state.by_uid == {}
    assert new.engine.scheduler.unheard == set()


def test_a_task_that_a_new_leader_has_not_heard_of_keeps_its_runs_and_its_watermark() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    [run] = driver.open_runs()

    new = driver.successor()
    assert new.engine.scheduler.unheard == {task_spec().uid}
    assert [kept.number for kept in new.open_runs()] == [run.number]
    assert not deliveries(new.pull()), "its handler is not known"
    new.at(1_500, m.TaskApplied(spec=task_spec()))

    assert new.engine.scheduler.unheard == set()
    assert [delivery.task.name for delivery in deliveries(new.pull())] == ["hello"]
    assert _instants(new) == [1_000], "it has fired, and does not fire again"


def test_a_clock_that_goes_back_fires_nothing_twice() -> None:
    driver = Driver.leading(task_spec())
    driver.at(3_000)
    fired = _instants(driver)

    driver.at(1_000)
    driver.at(3_000)

    assert _instants(driver) == fired


def test_an_edit_seen_by_a_leader_whose_clock_is_behind_fires_nothing_twice() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(2_000)
    edited = task_spec(generation=2, trigger=FixedRateTrigger(500, T0))

    new = driver.successor(edited, now_ms=T0 + 400)
    for offset in (1_000, 1_500, 2_000, 2_500):
        new.at(offset)

    assert _instants(new) == [1_000, 2_000, 2_500]


def test_a_task_that_is_settled_ahead_does_not_hold_back_the_others_of_its_trigger() -> None:
    ahead = task_spec("ahead", created_ms=T0 + 5_000)
    driver = Driver.leading(ahead, task_spec("due"))

    for offset in (1_000, 2_000):
        driver.at(offset)

    assert _instants(driver) == [1_000, 2_000]


@pytest.mark.parametrize("before_ms", [0, 300, 60_000])
def test_a_once_that_had_passed_when_its_task_was_created_is_overdue(before_ms: int) -> None:
    once = task_spec(trigger=OnceTrigger(T0 - before_ms))
    driver = Driver.leading(once)
    driver.at(10_000)
    assert _instants(driver) == [-before_ms]
    new = driver.successor(once)
    assert _instants(new) == [-before_ms], "it is settled"
    late = Driver.leading(once, now_ms=T0 + 3_600_000)
    assert _instants(late) == [-before_ms]

    strict = Driver.leading(task_spec(trigger=OnceTrigger(T0 - 60_000), misfire=Misfire(policy=MisfirePolicy.SKIP)))
    assert _instants(strict) == []
    assert _skips(strict) == [(1, f.SkipReason.MISFIRED)]
    closed = Filter(not_before_ms=T0)
    outside = Driver.leading(task_spec(trigger=FilteredTrigger(OnceTrigger(T0 - 60_000), closed)))
    assert outside.facts == []


def test_a_run_by_hand_does_not_settle_a_once_that_is_overdue() -> None:
    once = task_spec(trigger=OnceTrigger(T0 - 60_000))
    driver = Driver(once)
    driver.do(m.IntakeHeld(reason="full"))
    driver.do(m.CatalogSynced())
    driver.engine.scheduler.name(driver.engine.scheduler.entries[once.uid])
    driver.do(m.IntakeHeld(reason=""))
    assert _instants(driver) == [-60_000]


def test_what_was_due_of_a_task_that_was_edited_before_anything_was_written_of_it_is_counted() -> None:
    hourly = FixedRateTrigger(3_600_000, T0)
    driver = Driver.leading(task_spec(trigger=hourly))
    driver.at(3_599_000)

    edited = task_spec(trigger=hourly, generation=2, handler="other")
    new = driver.successor(edited, now_ms=T0 + 2 * 3_600_000 + 5)

    assert _instants(new) == []
    assert _skips(new) == [(2, f.SkipReason.EDITED)]
    new.at(3 * 3_600_000)
    assert _instants(new) == [3 * 3_600_000]
    assert _skips(new.successor(edited)) == [(2, f.SkipReason.EDITED)], "once"


def test_a_task_that_was_edited_before_anything_was_due_fires_at_its_first_instant() -> None:
    edited = task_spec(trigger=FixedRateTrigger(3_600_000, T0), generation=2)
    driver = Driver.leading(edited, now_ms=T0 + 5_000)
    new = driver.successor(edited, now_ms=T0 + 3_600_000 + 60_000)
    assert _instants(new) == [3_600_000]
    assert _skips(new) == []


def _set_back() -> Driver:
    """A leader whose clock was an hour ahead, and was set to T0."""
    driver = Driver.leading(task_spec("old", trigger=FixedRateTrigger(60_000, T0)))
    driver.do(m.LeadSet(lead_ms=20))
    driver.at(3_600_000)
    driver.now_ms, driver.boot_ms = T0, T0 + 3_600_000
    driver.do(m.Tick())
    driver.facts.clear()
    return driver


def _pass(driver: Driver, until_ms: int, step_ms: int = 100) -> None:
    assert driver.boot_ms is not None
    while driver.now_ms < T0 + until_ms:
        driver.now_ms += step_ms
        driver.boot_ms += step_ms
        driver.do(m.Tick())


@pytest.mark.parametrize("trigger", [OnceTrigger(T0 + 60_000), FixedRateTrigger(60_000, T0)])
def test_a_task_that_is_created_after_the_clock_was_set_back_fires_at_its_instant(
    trigger: OnceTrigger | FixedRateTrigger,
) -> None:
    driver = _set_back()
    catching_up = Misfire(policy=MisfirePolicy.FIRE_ALL)
    driver.do(m.TaskApplied(spec=task_spec("new", trigger=trigger, misfire=catching_up)))
    _pass(driver, 59_900)
    assert driver.of(f.Fired) == [], "nor ahead: facts are of an instant that never goes back"
    assert driver.engine.pause_ms(driver.now_ms, driver.boot_ms) <= 100
    driver.now_ms = T0 + 60_000

    driver.do(m.Tick())

    assert _instants(driver) == [60_000]
    assert driver.of(f.Skipped) == []
    assert "new" in {delivery.task.name for delivery in deliveries(driver.pull())}


def test_a_delay_of_a_task_that_is_created_after_the_clock_was_set_back_is_waited_for() -> None:
    driver = _set_back()
    driver.do(m.TaskApplied(spec=task_spec("new", source=FixedDelay(60_000))))
    _pass(driver, 59_900)
    assert driver.of(f.Fired) == []
    _pass(driver, 60_400)
    assert len(driver.of(f.Fired)) == 1


def test_an_edit_after_the_clock_was_set_back_counts_from_now_and_fires_nothing_twice() -> None:
    driver = _set_back()
    driver.do(m.TaskApplied(spec=task_spec("idle", trigger=FixedRateTrigger(86_400_000, T0))))
    driver.do(m.TaskApplied(spec=task_spec("idle", trigger=FixedRateTrigger(40_000, T0), generation=2)))
    driver.do(m.TaskApplied(spec=task_spec("old", trigger=FixedRateTrigger(40_000, T0), generation=2)))
    _pass(driver, 100_000)
    idle = driver.engine.state.by_uid["uid-idle"]
    assert [run.scheduled_ms - T0 for run in idle.runs.values()] == [40_000, 80_000]
    assert all(fact.tasks == [idle.number] for fact in driver.of(f.Fired)), "the old one had fired until the hour"


def test_a_fixed_delay_fires_however_often_a_calendar_that_it_names_changes() -> None:
    spec = task_spec(source=FixedDelay(3_600_000, _closed_on(1)))
    driver = Driver.leading(spec)
    for number in range(1, 5):
        changed = task_spec(source=FixedDelay(3_600_000, _closed_on(number + 1)))
        driver.at(number * 1_000_000, m.TaskApplied(spec=changed))
    assert _instants(driver) == [3_600_000]


def test_other_dates_of_a_calendar_arm_nothing_anew_and_what_was_passed_over_is_settled_by_policy() -> None:
    def spec(day: int, **changes: object) -> TaskSpec:
        return task_spec(trigger=FilteredTrigger(FixedRateTrigger(60_000, T0), _closed_on(day)), **changes)

    driver = Driver.leading(spec(1))
    for day in range(2, 5):
        driver.do(m.TaskApplied(spec=spec(day)))
    assert driver.facts == []
    driver.at(1_000, m.TaskApplied(spec=spec(4, generation=2, suspend=True)))
    driver.at(600_000, m.TaskApplied(spec=spec(5, generation=2, suspend=True)))
    driver.at(1_200_500, m.TaskApplied(spec=spec(5, generation=3)))
    assert _skips(driver) == [(18, f.SkipReason.COALESCED)]
    assert _instants(driver) == [1_140_000, 1_200_000]


def test_a_starting_deadline_under_a_second_is_kept() -> None:
    strict = Misfire(starting_deadline_ms=100)
    driver = Driver.leading(task_spec("strict", misfire=strict), task_spec("patient"))
    driver.at(1_900)
    assert _skips(driver) == [(1, f.SkipReason.DEADLINE)]
    assert [run.scheduled_ms - T0 for run in driver.open_runs("patient")] == [1_000]
    assert driver.open_runs("strict") == []
    driver.at(2_100)
    assert len(driver.open_runs("strict")) == 1, "no more than that is not over it"


def test_other_dates_of_a_calendar_count_for_the_next_instant_though_the_task_was_not_edited() -> None:
    closed, opened = (
        task_spec(trigger=FilteredTrigger(FixedRateTrigger(60_000, T0), Filter(exclude=(CalendarDates("c", dates=d),))))
        for d in ([(date(2023, 11, 14), date(2023, 11, 14))], [])
    )
    driver = Driver.leading(opened)
    driver.at(60_000)
    driver.at(70_000, m.TaskApplied(spec=closed))
    driver.at(120_000)
    assert _instants(driver) == [60_000]
    driver.at(130_000, m.TaskApplied(spec=opened))
    driver.at(180_000)
    assert _instants(driver)[-1] == 180_000


def _refused_one_by_one_until_midnight() -> tuple[int, TaskSpec]:
    """A task of each second; two calendars refuse one after another up to then, far more than one search asks for."""
    calendars = tuple(
        CalendarDates(name, crons=[parse(f"{seconds} * * 14 11 *")]) for name, seconds in (("a", "*/2"), ("b", "1/2"))
    )
    trigger = FilteredTrigger(FixedRateTrigger(1_000, T0), Filter(exclude=calendars))
    return 86_400_000 - T0 % 86_400_000, task_spec(trigger=trigger)


def test_who_is_woken_late_after_a_search_that_gave_up_settles_what_has_passed() -> None:
    midnight, spec = _refused_one_by_one_until_midnight()
    driver = Driver.leading(spec)
    assert not driver.of(f.Fired)
    driver.at(midnight + 5_500)
    assert _instants(driver)[-1] == midnight + 5_000
    driver.at(midnight + 6_000)
    assert _instants(driver)[-1] == midnight + 6_000


@pytest.mark.parametrize("held", [False, True])
def test_what_is_missed_after_searches_that_gave_up_is_counted(held: bool) -> None:
    midnight, spec = _refused_one_by_one_until_midnight()
    driver = Driver.leading(spec)
    while (wakes_ms := driver.now_ms + driver.engine.pause_ms(driver.now_ms, driver.now_ms)) < T0 + midnight - 1_000:
        driver.at(max(wakes_ms - T0, driver.now_ms - T0 + 1))
    assert not driver.of(f.Fired)
    if held:
        driver.do(m.IntakeHeld(reason="full"))
        driver.at(midnight)
    driver.at(midnight + 5_500)
    if held:
        driver.do(m.IntakeHeld(reason=""))
    assert _skips(driver) == [(4, f.SkipReason.COALESCED)], "of the five that were missed, the latest runs"
    assert _instants(driver) == [midnight + 4_000, midnight + 5_000]


def test_who_fires_in_several_steps_fires_at_the_next_instant_too() -> None:
    driver = Driver.leading(*(task_spec(f"t{number}") for number in range(AT_ONCE + 1)))
    for offset in (1_000, 1_001, 1_002, 2_000, 2_001, 2_002):
        driver.at(offset)
    assert Counter(_instants(driver)) == {1_000: AT_ONCE + 1, 2_000: AT_ONCE + 1}
