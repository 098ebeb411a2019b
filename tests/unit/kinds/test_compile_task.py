"""Resources become the engine's values, or say which field is at fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tickwheel_operator.api import InvalidManifest, ScheduledTask, parse
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.api.trigger import SOURCES
from tickwheel_operator.engine.cron import parse as parse_cron
from tickwheel_operator.engine.sources import ByHand, Completion, FixedDelay, Outcome, Source
from tickwheel_operator.engine.spec import (
    Backoff,
    CalendarUse,
    Guarantee,
    MisfirePolicy,
    Overlap,
    OverlapPolicy,
    TaskSpec,
)
from tickwheel_operator.engine.triggers import (
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
)
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.kinds.calendar import compile_calendar
from tickwheel_operator.kinds.compile_task import NeverFires, bind_calendars, compile_task

CREATED_MS = 1_767_225_600_000


def compiled(**spec: Any) -> TaskSpec:
    task = parse(
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "ScheduledTask",
            "metadata": {
                "name": "sync", "namespace": "shops", "uid": "u-1", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"pool": "shops", "handler": "h", **spec},
        }
    )  # fmt: skip
    assert isinstance(task, ScheduledTask)
    return compile_task(task)


def test_a_task_keeps_who_it_is() -> None:
    spec = compiled(parameters={"region": "north"}, suspend=True)
    assert (spec.uid, spec.namespace, spec.name, spec.generation) == ("u-1", "shops", "sync", 3)
    assert spec.created_ms == CREATED_MS
    assert (spec.pool, spec.handler, spec.parameters, spec.suspend) == ("shops", "h", b'{"region":"north"}', True)


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({"cron": "0 4 * * *", "timeZone": "Asia/Shanghai"}, CronTrigger("0 4 * * *", "Asia/Shanghai")),
        ({"fixedRate": "500ms"}, FixedRateTrigger(500, CREATED_MS)),
        ({"fixedRate": "1s", "anchor": "2026-01-01T00:00:01Z"}, FixedRateTrigger(1_000, CREATED_MS + 1_000)),
        ({"once": {"at": "2026-01-01T00:01:00Z"}}, OnceTrigger(CREATED_MS + 60_000)),
        ({"once": {"after": "10m"}}, OnceTrigger(CREATED_MS + 600_000)),
        (
            {"dailyInterval": {"every": "15m", "from": "08:00", "to": "18:00"}, "timeZone": "Asia/Shanghai"},
            DailyIntervalTrigger(900_000, 28_800_000, 64_800_000, 127, "Asia/Shanghai"),
        ),
        (
            {"dailyInterval": {"every": "1s", "from": "22:00", "to": "24:00", "days": ["Sun", "Mon"]}},
            DailyIntervalTrigger(1_000, 79_200_000, 86_400_000, 0b1000001, "UTC"),
        ),
        ({}, None),
    ],
)
def test_triggers(trigger: dict[str, Any], expected: object) -> None:
    assert compiled(trigger=trigger).trigger == expected


def test_every_source_of_the_resource_is_compiled() -> None:
    examples = {
        "cron": "@daily",
        "fixedRate": "1s",
        "fixedDelay": "30s",
        "dailyInterval": {"every": "15m", "from": "08:00", "to": "18:00"},
        "once": {"after": "10m"},
        "completion": {"task": "other"},
    }
    assert set(examples) == set(SOURCES)
    for field, value in examples.items():
        assert compiled(trigger={field: value}).source != ByHand(), field


def test_a_hashed_schedule_depends_on_namespace_and_name_only() -> None:
    trigger = compiled(trigger={"cron": "H H * * *"}).trigger
    assert isinstance(trigger, CronTrigger)
    assert trigger.identity == "shops/sync"


def test_policies() -> None:
    spec = compiled(
        misfire={"policy": "FireAll", "startingDeadline": "5m", "maxCatchUp": 7},
        delivery={"guarantee": "AtMostOnce", "timeout": "10m", "dispatchTimeout": "30s", "gracePeriod": "3s"},
        retry={"limit": 5, "backoff": {"fixed": {"delay": "5s"}}},
        history={"succeeded": 1, "failed": 2},
    )
    assert spec.misfire.policy is MisfirePolicy.FIRE_ALL
    assert (spec.misfire.starting_deadline_ms, spec.misfire.max_catch_up) == (300_000, 7)
    assert spec.guarantee is Guarantee.AT_MOST_ONCE
    assert (spec.timeout_ms, spec.dispatch_timeout_ms, spec.grace_ms) == (600_000, 30_000, 3_000)
    assert spec.retry.limit == 5
    assert spec.retry.backoff == Backoff(initial_ms=5_000, factor=1.0, max_ms=5_000)
    assert (spec.keep_succeeded, spec.keep_failed) == (1, 2)


def test_the_default_backoff_is_the_resources_own() -> None:
    assert compiled().retry.backoff == Backoff(initial_ms=1_000, factor=2.0, max_ms=300_000, jitter=0.2)


def test_equal_policies_are_one_object_so_that_20000_tasks_stay_small() -> None:
    assert compiled().retry is compiled().retry
    assert compiled().misfire is compiled().misfire


def test_a_date_that_never_comes_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidManifest) as refused:
        compiled(trigger={"cron": "0 0 30 2 *"})
    assert refused.value.faults[0].path == "spec.trigger.cron"


# --- after a run ---


@pytest.mark.parametrize(
    ("trigger", "source"),
    [
        ({"fixedDelay": "30s"}, FixedDelay(30_000)),
        ({"completion": {"task": "other"}}, Completion("other", Outcome.SUCCEEDED)),
        ({"completion": {"task": "other", "outcome": "Any"}}, Completion("other", Outcome.ANY)),
    ],
)
def test_what_follows_a_run_is_no_trigger_of_time(trigger: dict[str, Any], source: Source) -> None:
    spec = compiled(trigger=trigger)
    assert spec.source == source
    window = compiled(trigger={**trigger, "window": {"notAfter": "2026-02-01T00:00:00Z"}})
    assert window.source == source.within(Filter(not_after_ms=at("2026-02-01T00:00:00Z")))


# --- windows, jitter, overlap ---


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_a_window_filters_the_trigger() -> None:
    trigger = compiled(
        trigger={
            "fixedRate": "1s",
            "window": {"notBefore": "2026-01-02T00:00:00Z", "notAfter": "2026-01-02T00:00:05Z"},
        }
    ).trigger
    begin = at("2026-01-02T00:00:00Z")
    assert trigger == FilteredTrigger(
        FixedRateTrigger(1_000, CREATED_MS), Filter(not_before_ms=begin, not_after_ms=begin + 5_000)
    )
    assert trigger.next_after(CREATED_MS) == begin
    assert compiled(trigger={"fixedRate": "1s", "window": {}}).trigger == FixedRateTrigger(1_000, CREATED_MS)


def test_jitter() -> None:
    assert compiled(trigger={"cron": "0 4 * * *", "jitter": "10s"}).jitter_ms == 10_000
    assert compiled(trigger={"cron": "0 4 * * *"}).jitter_ms == compiled().jitter_ms == 0


@pytest.mark.parametrize(
    ("concurrency", "overlap"),
    [
        (None, Overlap(policy=OverlapPolicy.ALLOW, max_concurrent=None, queue_limit=100)),
        ({"maxConcurrent": 3}, Overlap(policy=OverlapPolicy.ALLOW, max_concurrent=3)),
        ({"policy": "Forbid"}, Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1)),
        ({"policy": "Replace", "key": "/shop"}, Overlap(policy=OverlapPolicy.REPLACE, max_concurrent=1, key="/shop")),
        (
            {"policy": "Queue", "maxConcurrent": 2, "queueLimit": 7},
            Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=2, queue_limit=7),
        ),
    ],
)
def test_only_allow_has_no_limit_by_default(concurrency: dict[str, Any] | None, overlap: Overlap) -> None:
    spec = compiled() if concurrency is None else compiled(concurrency=concurrency)
    assert spec.overlap == overlap
    assert compiled().overlap is compiled().overlap


@pytest.mark.parametrize("concurrency", [{"key": "/shop"}, {"policy": "Allow", "key": "/shop"}])
def test_a_key_without_a_limit_is_refused_since_nothing_would_count_by_it(concurrency: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest, match=r"spec\.concurrency\.key: has nothing to limit.*maxConcurrent"):
        compiled(concurrency=concurrency)
    assert compiled(concurrency=concurrency | {"maxConcurrent": 2}).overlap.key == "/shop"


# --- calendars ---


def calendar(name: str = "holidays", **spec: Any) -> CalendarDates:
    resource = parse(
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "Calendar",
            "metadata": {"name": name, "namespace": "shops", "uid": f"c-{name}"},
            "spec": spec,
        }
    )
    assert isinstance(resource, Calendar)
    return compile_calendar(resource)


def known(*calendars: CalendarDates) -> Callable[[str], CalendarDates | None]:
    return {calendar.name: calendar for calendar in calendars}.get


DAILY = {"cron": "0 9 * * *", "calendars": [{"name": "holidays"}]}


def test_a_calendar_keeps_dates_ranges_weekdays_and_crons_in_its_zone() -> None:
    dates = calendar(
        timeZone="Asia/Shanghai",
        dates=["2026-10-01", "2026-10-02/2026-10-07"],
        weekdays=["Sat", "Sun"],
        crons=["* * 0-6 * * *"],
    )
    inside = ("2026-09-30T16:00:00Z", "2026-10-07T15:59:59Z", "2026-10-09T16:00:00Z", "2026-10-12T22:59:59Z")
    outside = ("2026-09-30T15:59:59Z", "2026-10-07T23:00:00Z", "2026-10-09T15:59:59Z", "2026-10-12T23:00:00Z")
    assert [dates.covers(at(text))[0] for text in inside] == [True] * 4
    assert [dates.covers(at(text))[0] for text in outside] == [False] * 4


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"timeZone": "Mars/Olympus", "weekdays": ["Sat"]}, "spec.timeZone"),
        ({"crons": ["* * 0-6 * * *", "* * 25 * * *"]}, "spec.crons[1]"),
        ({"crons": ["0 0 30 2 *"]}, "spec.crons[0]"),
    ],
)
def test_a_calendar_that_cannot_be_read_names_its_field(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        calendar(**spec)
    assert refused.value.faults[0].path == path


def test_the_dates_of_calendars_are_bound_to_the_trigger() -> None:
    spec = compiled(
        trigger={
            "cron": "0 9 * * *",
            "window": {"notBefore": "2026-03-01T00:00:00Z"},
            "calendars": [{"name": "holidays"}, {"name": "workdays", "rule": "Include"}],
        }
    )
    assert spec.calendars == (CalendarUse("holidays"), CalendarUse("workdays", exclude=False))
    holidays = calendar(dates=["2026-03-02"])
    workdays = calendar("workdays", weekdays=["Mon", "Tue", "Wed", "Thu", "Fri"])
    bound = bind_calendars(spec, known(holidays, workdays))
    assert isinstance(bound.trigger, FilteredTrigger)
    assert bound.trigger.base == CronTrigger("0 9 * * *")
    assert bound.trigger.filter == Filter(
        not_before_ms=at("2026-03-01T00:00:00Z"), exclude=(holidays,), include=(workdays,)
    )
    assert bound.trigger.next_after(CREATED_MS) == at("2026-03-03T09:00:00Z")
    assert (bound.uid, bound.calendars) == (spec.uid, spec.calendars)


def test_a_task_can_be_bound_again_when_a_calendar_changes() -> None:
    spec = compiled(trigger=DAILY)
    first = bind_calendars(spec, known(calendar(dates=["2026-01-01"])))
    again = bind_calendars(first, known(calendar(dates=["2026-01-02"])))
    assert again == bind_calendars(spec, known(calendar(dates=["2026-01-02"])))
    assert again != first
    # Its instants change, and it is not armed anew: the identity names the calendar only.
    assert again.schedule == first.schedule
    assert first.schedule == '["clock",["filtered",["cron","0 0 9 * * *","UTC",""],[null,null,["holidays"],[]]]]'
    assert spec.schedule != first.schedule


def test_a_task_without_calendars_is_bound_as_it_is() -> None:
    spec = compiled(trigger={"cron": "0 9 * * *"})
    assert bind_calendars(spec, known()) is spec


def test_tasks_that_share_calendars_share_their_filter() -> None:
    holidays = calendar(dates=["2026-01-01"])
    first, second = (bind_calendars(compiled(trigger=DAILY), known(holidays)).trigger for _ in range(2))
    assert isinstance(first, FilteredTrigger)
    assert isinstance(second, FilteredTrigger)
    assert first.filter is second.filter


def test_what_follows_a_run_is_bound_by_its_filter() -> None:
    spec = compiled(
        trigger={
            "fixedDelay": "30s",
            "window": {"notAfter": "2026-02-01T00:00:00Z"},
            "calendars": [{"name": "holidays"}],
        }
    )
    holidays = calendar(dates=["2026-01-01"])
    bound = bind_calendars(spec, known(holidays))
    assert isinstance(bound.source, FixedDelay)
    assert bound.source.filter == Filter(not_after_ms=at("2026-02-01T00:00:00Z"), exclude=(holidays,))
    assert bind_calendars(bound, known(holidays)) == bound


def test_each_missing_calendar_is_named() -> None:
    uses = [{"name": "a"}, {"name": "holidays"}, {"name": "b"}]
    with pytest.raises(InvalidManifest) as refused:
        bind_calendars(compiled(trigger={**DAILY, "calendars": uses}), known(calendar(dates=["2026-01-01"])))
    assert [fault.path for fault in refused.value.faults] == [
        "spec.trigger.calendars[0].name",
        "spec.trigger.calendars[2].name",
    ]
    assert "Calendar a in namespace shops" in str(refused.value)


# --- what can never fire ---


@pytest.mark.parametrize(
    ("trigger", "field"),
    [
        ({"cron": "* 2 * 3 SUN#2", "timeZone": "America/New_York"}, "cron"),
        ({"cron": "0 9 * * *", "window": {"notAfter": "2025-12-31T23:59:59Z"}}, "window"),
        (
            {
                "cron": "0 9 * * *",
                "window": {"notBefore": "2026-02-01T10:00:00Z", "notAfter": "2026-02-02T08:00:00Z"},
            },
            "window",
        ),
        ({"fixedDelay": "30s", "window": {"notAfter": "2025-12-31T23:59:59Z"}}, "window"),
        ({"once": {"at": "2026-03-01T00:00:00Z"}, "window": {"notAfter": "2026-02-01T00:00:00Z"}}, "window"),
        (
            {
                "dailyInterval": {"every": "15m", "from": "02:00", "to": "03:00", "days": ["Sun"]},
                "timeZone": "America/New_York",
                "window": {"notBefore": "2026-03-08T00:00:00-05:00", "notAfter": "2026-03-09T00:00:00-04:00"},
            },
            "window",
        ),
    ],
)
def test_a_schedule_without_an_instant_is_refused_with_its_field(trigger: dict[str, Any], field: str) -> None:
    with pytest.raises(NeverFires) as refused:
        compiled(trigger=trigger)
    assert refused.value.faults[0].path == f"spec.trigger.{field}"
    assert "can never fire" in refused.value.faults[0].message


@pytest.mark.parametrize(
    ("trigger", "dates", "rule"),
    [
        ({"cron": "0 9 * * *"}, {"dates": ["2020-01-01/2025-12-31"]}, "Include"),
        ({"cron": "0 9 * * MON"}, {"weekdays": ["Mon"]}, "Exclude"),
        ({"fixedRate": "10ms"}, {"crons": ["* * * * * *"]}, "Exclude"),
        ({"once": {"at": "2026-03-01T00:00:00Z"}}, {"dates": ["2026-03-01"]}, "Exclude"),
        ({"fixedDelay": "30s"}, {"dates": ["2020-01-01/2025-12-31"]}, "Include"),
        (
            {"cron": "0 9 * * *", "window": {"notAfter": "2026-12-31T00:00:00Z"}},
            {"dates": ["2027-01-01/2027-12-31"]},
            "Include",
        ),
    ],
)
def test_calendars_that_leave_no_instant_are_refused(trigger: dict[str, Any], dates: dict[str, Any], rule: str) -> None:
    spec = compiled(trigger={**trigger, "calendars": [{"name": "holidays", "rule": rule}]})
    with pytest.raises(NeverFires) as refused:
        bind_calendars(spec, known(calendar(**dates)))
    assert refused.value.faults[0].path == "spec.trigger.calendars"
    assert "can never fire" in refused.value.faults[0].message


class CountingDates(CalendarDates):
    """A calendar that knows how often it was asked."""

    questions = 0

    def covers(self, instant_ms: int) -> tuple[bool, int]:
        self.questions += 1
        return super().covers(instant_ms)


MINUTELY = {"cron": "* * * * *", "calendars": [{"name": "some"}]}


def created(spec: TaskSpec, at: str) -> TaskSpec:
    return msgspec.structs.replace(spec, created_ms=int(datetime.fromisoformat(at).timestamp() * 1000))


def test_calendars_that_refuse_very_much_are_no_reason_to_refuse_the_task() -> None:
    august = CalendarDates("some", crons=[parse_cron("* * * 8 *")])
    spec = created(compiled(trigger=MINUTELY), "2026-08-01T00:00:00Z")
    trigger = bind_calendars(spec, known(august)).trigger
    assert isinstance(trigger, FilteredTrigger)
    assert trigger.next_after(spec.created_ms) is None, "the search gives up, and goes on later"
    tiles = [
        CalendarDates(name, crons=[parse_cron(f"{text} * * 8 *")]) for name, text in (("a", "*/2 *"), ("b", "1/2 *"))
    ]
    both = [{"name": "a"}, {"name": "b"}]
    spec = created(compiled(trigger={"fixedDelay": "30s", "calendars": both}), "2026-08-01T00:00:00Z")
    assert bind_calendars(spec, known(*tiles)).source.filter is not None


def test_tasks_that_share_schedule_and_calendars_share_the_search() -> None:
    calendar = CountingDates("some", crons=[parse_cron("* * * * *")])
    spec = compiled(trigger=MINUTELY)
    bind_calendars(spec, known(calendar))
    assert calendar.questions > 1_000
    calendar.questions = 0
    for day in range(1, 9):
        bind_calendars(created(spec, f"2026-01-0{day}T00:00:00Z"), known(calendar))
    assert calendar.questions == 0


@pytest.mark.parametrize(
    ("calendar", "rule", "fires"),
    [
        (CalendarDates("nine o'clock", crons=[parse_cron("* * 9 * * *")]), "Exclude", [False, False, False]),
        (CalendarDates("early", dates=[(date(2020, 1, 1), date(2026, 1, 2))]), "Include", [False, True, False]),
        (CalendarDates("late", dates=[(date(2026, 1, 3), date(2026, 1, 3))]), "Include", [True, True, True]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_one_search_found_of_a_schedule_is_right_for_tasks_of_other_age(
    calendar: CalendarDates, rule: str, fires: list[bool]
) -> None:
    spec = compiled(trigger={"cron": "0 9 * * *", "calendars": [{"name": "some", "rule": rule}]})
    found = []
    for at in ("2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-02T10:00:00Z"):
        try:
            bind_calendars(created(spec, at), lambda _: calendar)
        except NeverFires:
            found.append(False)
        else:
            found.append(True)
    assert found == fires


@pytest.mark.parametrize(
    "trigger",
    [
        {"once": {"at": "2020-01-01T00:00:00Z"}},
        {"once": {"at": "2020-01-01T00:00:00Z"}, "window": {"notAfter": "2021-01-01T00:00:00Z"}},
        {"fixedRate": "1h", "anchor": "2199-01-01T00:00:00Z"},
        {"cron": "0 0 29 2 *"},
        {"cron": "0 0 * 2 FRI#5"},
    ],
)
def test_a_once_in_the_past_and_an_instant_far_ahead_are_not_refused(trigger: dict[str, Any]) -> None:
    assert compiled(trigger=trigger).trigger is not None


# --- what makes no sense ---


@pytest.mark.parametrize(
    ("trigger", "path"),
    [
        ({"cron": "0 9 * * *", "timeZone": "Mars/Olympus"}, "timeZone"),
        ({"dailyInterval": {"every": "15m", "from": "08:00", "to": "18:00"}, "timeZone": "Mars/Olympus"}, "timeZone"),
        ({"dailyInterval": {"every": "9ms", "from": "08:00", "to": "18:00"}}, "dailyInterval.every"),
        ({"dailyInterval": {"every": "25h", "from": "08:00", "to": "18:00"}}, "dailyInterval.every"),
        ({"dailyInterval": {"every": "15m", "from": "24:00", "to": "00:00"}}, "dailyInterval.to"),
        ({"dailyInterval": {"every": "15m", "from": "08:00", "to": "08:00:00"}}, "dailyInterval"),
        ({"window": {"notAfter": "2027-01-01T00:00:00Z"}}, "window"),
        ({"calendars": [{"name": "holidays"}]}, "calendars"),
        ({"jitter": "10s"}, "jitter"),
    ],
)
def test_a_trigger_that_makes_no_sense_is_refused_with_its_field(trigger: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        compiled(trigger=trigger)
    assert refused.value.faults[0].path == f"spec.trigger.{path}"
    assert not isinstance(refused.value, NeverFires)


def test_a_whole_day_may_be_written_from_midnight_to_midnight() -> None:
    trigger = compiled(trigger={"dailyInterval": {"every": "15m", "from": "00:00", "to": "24:00"}}).trigger
    assert trigger == DailyIntervalTrigger(900_000, 0, 86_400_000)


# --- the documentation ---


def test_every_example_of_the_documentation_compiles() -> None:
    text = (Path(__file__).parents[3] / "docs" / "triggers.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    examples = [document for block in blocks for document in yaml.safe_load_all(block)]
    assert len(examples) > 8
    for example in examples:
        if "kind" in example:
            calendar(**example["spec"])
        else:
            spec = compiled(**example)
            holidays, trading_days = (
                calendar("cn-holidays", weekdays=["Sat"]),
                calendar("trading-days", weekdays=["Mon"]),
            )
            assert bind_calendars(spec, known(holidays, trading_days)).schedule != '["manual"]'
