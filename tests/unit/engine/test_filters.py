"""Windows and calendars over a trigger: which instants are left, found without a walk, and what can never be."""

from datetime import date, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.cron import parse
from tickwheel_operator.engine.triggers import (
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
    counted_until,
    latest,
    looked_until,
)
from tickwheel_operator.engine.triggers.calendar import FOREVER_MS, CalendarDates
from tickwheel_operator.engine.triggers.filters import ANSWERS, HORIZON_MS, Budget, Filter, Search
from tickwheel_operator.ledger import facts as f

DAY_MS = 86_400_000
NOW = 1_780_000_000_000


class CountingDates(CalendarDates):
    """A calendar that knows how often it was asked, and for how many expressions of it."""

    questions = 0

    def covers(self, instant_ms: int) -> tuple[bool, int]:
        self.questions += max(1, self.crons)
        return super().covers(instant_ms)


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def days(*ranges: str, name: str = "days", zone: str = "UTC") -> CalendarDates:
    """Return a calendar of dates, each `2026-10-01` or `2026-10-02/2026-10-07`."""
    pairs = [(text.split("/")[0], text.split("/")[-1]) for text in ranges]
    return CalendarDates(
        name, zone_name=zone, dates=[(date.fromisoformat(first), date.fromisoformat(last)) for first, last in pairs]
    )


WEEKENDS = CalendarDates("weekends", weekdays=[5, 6])
NIGHTS = CalendarDates("nights", zone_name="Europe/Berlin", crons=[parse("* * 0-6 * * *")])
EVEN = CalendarDates("even", crons=[parse("*/2 * * * * *")])
ODD = CalendarDates("odd", crons=[parse("1/2 * * * * *")])
YEAR = days("2026-05-01/2027-04-30", name="year")
PAST = days("2000-01-01/2001-12-31", name="past")
CALENDARS = [WEEKENDS, NIGHTS, EVEN, YEAR, PAST, CalendarDates("hours", crons=[parse("* */20 9-17 * * *")])]

FILTERS = st.builds(
    Filter,
    not_before_ms=st.one_of(st.none(), st.integers(NOW - DAY_MS, NOW + DAY_MS)),
    not_after_ms=st.one_of(st.none(), st.integers(NOW, NOW + 2 * DAY_MS)),
    exclude=st.lists(st.sampled_from(CALENDARS), max_size=2, unique=True).map(tuple),
    include=st.lists(st.sampled_from(CALENDARS), max_size=2, unique=True).map(tuple),
)
BASES = st.one_of(
    st.builds(FixedRateTrigger, st.integers(50_000, 10**7), st.integers(NOW - 10**7, NOW + DAY_MS)),
    st.builds(OnceTrigger, st.integers(NOW - DAY_MS, NOW + DAY_MS)),
    st.sampled_from(["0 */7 * * * *", "*/45 * * * * *", "0 9 * * *", "17 0-40 3 * * *"]).map(
        lambda expression: CronTrigger(expression, "Europe/Berlin")
    ),
    st.builds(DailyIntervalTrigger, st.integers(10**5, 10**7), st.just(0), st.integers(1, DAY_MS), st.integers(1, 127)),
)


def says(filter: Filter, at: int) -> bool:
    """Return what the manifest says of one instant."""
    return (
        (filter.not_before_ms is None or at >= filter.not_before_ms)
        and (filter.not_after_ms is None or at <= filter.not_after_ms)
        and not any(calendar.covers(at)[0] for calendar in filter.exclude)
        and (not filter.include or any(calendar.covers(at)[0] for calendar in filter.include))
    )


@settings(max_examples=100, deadline=None)
@given(base=BASES, filter=FILTERS, after=st.integers(NOW - DAY_MS, NOW + 2 * DAY_MS), span=st.integers(0, 2 * DAY_MS))
@example(base=FixedRateTrigger(1000, NOW), filter=Filter(exclude=(EVEN,)), after=NOW, span=600_000)
@example(base=FixedRateTrigger(700, NOW), filter=Filter(exclude=(YEAR,), include=(EVEN,)), after=NOW, span=DAY_MS)
def test_the_instants_are_those_of_the_base_that_are_admitted(
    base: Trigger, filter: Filter, after: int, span: int
) -> None:
    until = after + span
    expected = []
    at = base.next_after(after)
    while at is not None and at <= until:
        if says(filter, at):
            expected.append(at)
        at = base.next_after(at)
    trigger = FilteredTrigger(base, filter)
    found = []
    at = trigger.next_after(after)
    while at is not None and at <= until:
        found.append(at)
        at = trigger.next_after(at)
    assert found == expected
    assert trigger.last_at_or_before(until, after) == (expected[-1] if expected else None)
    assert latest(trigger, after, until, 7) == expected[-7:]
    if counted_until(trigger, after, until) == until:
        assert trigger.count_between(after, until, 10**9) == len(expected)
        assert trigger.count_between(after, until, 3) == min(3, len(expected))
    else:
        assert trigger.count_between(after, until, 10**9) <= len(expected)
    for place in range(0, len(expected), 40):
        earlier = expected[place - 1] if place else None
        assert trigger.last_at_or_before(expected[place] - 1, after) == earlier


@settings(max_examples=70, deadline=None)
@given(filter=FILTERS, at=st.integers(NOW - DAY_MS, NOW + 2 * DAY_MS), back=st.integers(0, 3 * DAY_MS))
def test_the_nearest_admitted_instants_are_found_in_both_directions(filter: Filter, at: int, back: int) -> None:
    assert filter.admits(at) is says(filter, at)
    after = at - back
    forward, backward = filter.next_admitted(at), filter.previous_admitted(at, after, Budget(10**7))
    if forward is not None:
        assert forward >= at
        assert says(filter, forward)
        assert forward == at or not says(filter, forward - 1)
        assert filter.previous_admitted(forward - 1, at) is None
    if backward is not None:
        assert after < backward <= at
        assert says(filter, backward)
        assert backward == at or not says(filter, backward + 1)
        found = filter.next_admitted(backward + 1)
        assert backward == at or found is None or found > at
    else:
        found = filter.next_admitted(after + 1)
        assert found is None or found > at


def test_the_ends_of_a_window_are_in_it() -> None:
    window = Filter(not_before_ms=1_000, not_after_ms=3_000)
    assert [window.admits(at) for at in (999, 1_000, 3_000, 3_001)] == [False, True, True, False]
    every = FilteredTrigger(FixedRateTrigger(1_000, 0), window)
    assert every.next_after(-(10**15)) == 1_000
    assert every.next_after(2_999) == 3_000
    assert every.next_after(3_000) is None
    assert every.last_at_or_before(10**15, 0) == 3_000
    assert every.last_at_or_before(10**15, 3_000) is None
    assert every.count_between(-(10**15), 10**15, 10) == 3


def test_a_window_far_in_the_future_is_found_at_once() -> None:
    late = Filter(not_before_ms=instant("2199-01-01T00:00:00Z"))
    assert FilteredTrigger(CronTrigger("0 9 * * *"), late).next_after(NOW) == instant("2199-01-01T09:00:00Z")
    assert FilteredTrigger(FixedRateTrigger(10, 7), late).next_after(NOW) == instant("2199-01-01T00:00:00.007Z")


def test_exclude_means_in_none_and_include_means_in_at_least_one() -> None:
    both = Filter(exclude=(WEEKENDS, YEAR))
    assert not both.admits(instant("2026-04-04T12:00:00Z"))  # a Saturday
    assert not both.admits(instant("2026-06-01T12:00:00Z"))
    assert both.admits(instant("2026-04-03T12:00:00Z"))
    either = Filter(include=(WEEKENDS, YEAR))
    assert either.admits(instant("2026-04-04T12:00:00Z"))
    assert either.admits(instant("2026-06-01T12:00:00Z"))
    assert not either.admits(instant("2026-04-03T12:00:00Z"))
    mixed = Filter(exclude=(WEEKENDS,), include=(YEAR,))
    assert [mixed.admits(instant(f"2026-06-0{day}T12:00:00Z")) for day in (5, 6)] == [True, False]


def test_ten_years_that_are_excluded_cost_as_little_as_a_day() -> None:
    decade = CountingDates("decade", dates=[(date(2026, 1, 1), date(2035, 12, 31))])
    trigger = FilteredTrigger(FixedRateTrigger(10, 0), Filter(exclude=(decade,)))
    start, end = instant("2026-01-01T00:00:00Z"), instant("2036-01-01T00:00:00Z")
    assert trigger.next_after(start) == end
    assert trigger.count_between(start - 100, end, 10**12) == 10
    assert trigger.last_at_or_before(end - 1, 0) == start - 10
    assert decade.questions < 200


@pytest.mark.parametrize(
    ("base", "filter"),
    [
        (CronTrigger("0 9 * * *"), Filter(include=(PAST,))),
        (CronTrigger("0 9 * * *"), Filter(exclude=(CalendarDates("always", weekdays=range(7)),))),
        (CronTrigger("0 9 * * *"), Filter(not_after_ms=NOW)),
        (CronTrigger("0 9 * * *"), Filter(not_after_ms=NOW + 1, not_before_ms=NOW)),
        (CronTrigger("0 9 * * MON"), Filter(include=(WEEKENDS,))),
        (CronTrigger("0 9 * * MON"), Filter(exclude=(CalendarDates("mondays", weekdays=[0]),))),
        (FixedRateTrigger(2_000, NOW + 1_000), Filter(include=(EVEN,))),
        (FixedRateTrigger(10, NOW), Filter(exclude=(EVEN, ODD))),
        (DailyIntervalTrigger(60_000, 7 * 3_600_000, DAY_MS, 127, "Europe/Berlin"), Filter(include=(NIGHTS,))),
        (OnceTrigger(NOW + 5), Filter(not_before_ms=NOW + 6)),
    ],
    ids=lambda value: value.describe(),
)
def test_what_can_never_fire_is_known(base: Trigger, filter: Filter) -> None:
    trigger = FilteredTrigger(base, filter)
    assert trigger.next_after(NOW) is None
    assert trigger.count_between(NOW, NOW + 3_600_000, 10) == 0
    assert trigger.last_at_or_before(NOW + 3_600_000, NOW) is None


def test_a_search_ends_after_forty_years() -> None:
    near = instant("2060-01-01T00:00:00Z")
    assert Filter(include=(days("2060-01-01"),)).next_admitted(instant("2026-01-01T00:00:00Z")) == near
    assert Filter(include=(days("2099-01-01"),)).next_admitted(instant("2026-01-01T00:00:00Z")) is None
    assert Filter(include=(days("2099-01-01"),)).next_admitted(instant("2099-01-01T00:00:00Z") - HORIZON_MS) is not None


# --- searches that give up ---


AUGUST = "2026-08-01T00:00:00Z"
SEPTEMBER = "2026-09-01T00:00:00Z"


def without_august() -> FilteredTrigger:
    """Every minute, but in August: as one writes it who forgot the field of the seconds. It refuses one by one."""
    august = CountingDates("august", crons=[parse("* * * 8 *")])
    return FilteredTrigger(CronTrigger("* * * * *"), Filter(exclude=(august,)))


def questions(trigger: FilteredTrigger) -> int:
    asked = 0
    for calendar in trigger.filter.exclude:
        assert isinstance(calendar, CountingDates)
        asked += calendar.questions
        calendar.questions = 0
    return asked


def test_what_gave_up_is_told_from_what_never_comes() -> None:
    trigger = without_august()
    at = instant(AUGUST) - 60_000
    assert trigger.next_after(at) is None
    assert trigger.search(at) is Search.GAVE_UP
    looks = 0
    while (found := trigger.next_after(at)) is None:
        further = looked_until(trigger, at)
        assert further is not None
        assert further > at
        at, looks = further, looks + 1
    assert found == instant(SEPTEMBER)
    assert 1 < looks < 20
    assert looked_until(trigger, found - 60_001) == found - 1
    never = FilteredTrigger(CronTrigger("0 9 * * MON"), Filter(include=(WEEKENDS,)))
    assert never.search(NOW) is Search.NEVER
    assert looked_until(never, NOW) is None


@pytest.mark.parametrize(
    ("base", "calendars"),
    [
        ("* * * * *", [["* * * * *"]]),
        ("0 1 */2 * * *", [["*/2 * * * * *"], ["1-59/2 1-59 * * * *", "1-59/2 0 1-23/2 * * *"]]),
        ("* * * * * *", [["*/2 * * * * *"], ["1/2 * * * * *"]]),
        ("* * * * *", [[f"{second} {second} 1 1 1 *" for second in range(60)], ["* * * * *"]]),
    ],
    ids=["minutes", "seconds in turn", "every second", "many expressions"],
)
def test_no_answer_takes_more_than_so_many_questions(base: str, calendars: list[list[str]]) -> None:
    refused = (CountingDates("some", crons=[parse(text) for text in texts]) for texts in calendars)
    trigger = FilteredTrigger(CronTrigger(base), Filter(exclude=tuple(refused)))
    until = NOW + 400 * DAY_MS
    for ask in (
        lambda: trigger.next_after(NOW),
        lambda: trigger.last_at_or_before(until, NOW),
        lambda: trigger.count_between(NOW, until, 10**9),
        lambda: latest(trigger, NOW, until, 10),
    ):
        ask()
        assert questions(trigger) <= 2 * ANSWERS


def test_tasks_that_share_a_trigger_share_its_long_searches() -> None:
    trigger = without_august()
    begins, ends = instant(AUGUST) - 60_000, instant("2026-08-04T12:00:00Z")
    for ask in (
        lambda ahead: trigger.next_after(begins + ahead * 60_000),
        lambda _: trigger.count_between(begins, ends, 10**9),
        lambda _: latest(trigger, begins, ends, 10),
    ):
        ask(0)
        assert questions(trigger) > 1_000
        ask(100)
        assert questions(trigger) < 300


def test_a_count_that_gave_up_says_how_many_there_are_at_least() -> None:
    trigger = FilteredTrigger(CronTrigger("* * * * * *"), Filter(exclude=(EVEN,)))
    counted = trigger.count_between(NOW, NOW + DAY_MS, 10**9)
    until = counted_until(trigger, NOW, NOW + DAY_MS)
    assert NOW < until < NOW + DAY_MS
    assert 1_000 < counted == trigger.count_between(NOW, until, 10**9)
    assert counted_until(trigger, NOW, NOW + 600_000) == NOW + 600_000
    assert trigger.count_between(NOW, NOW + 600_000, 10**9) == 300


def test_the_last_is_a_late_one_where_it_lies_too_far_back() -> None:
    trigger = without_august()
    assert trigger.last_at_or_before(instant("2026-08-20T00:00:00Z"), instant("2026-07-20T00:00:00Z")) == (
        instant(AUGUST) - 60_000
    )


def test_a_task_whose_calendars_refused_very_much_goes_on_when_they_are_over() -> None:
    begin = instant(AUGUST) - 600_000
    spec = task_spec(trigger=without_august(), created_ms=begin)
    driver = Driver.leading(spec, now_ms=begin)

    def tick(at: int) -> None:
        driver.now_ms = at
        driver.do(m.Tick())

    for at in range(begin, instant(SEPTEMBER), 3 * DAY_MS):
        tick(at)
    driver = driver.successor(spec)
    for minute in range(-2, 4):
        tick(instant(SEPTEMBER) + minute * 60_000)
    fired = [fact.scheduled_ms for fact in driver.of(f.Fired)]
    assert fired[-4:] == [instant(SEPTEMBER) + minute * 60_000 for minute in range(4)]
    skipped = sum(skip.count for skip in driver.of(f.Skipped))
    assert len(fired) + skipped == 9 + 4


@pytest.mark.parametrize("successor", [False, True], ids=["asleep", "down"])
def test_who_wakes_long_after_a_search_gave_up_settles_what_came_meanwhile(successor: bool) -> None:
    begin, late = instant(AUGUST) - 30_000, instant(SEPTEMBER) + 600_500
    spec = task_spec(trigger=without_august(), created_ms=begin)
    driver = Driver.leading(spec, now_ms=begin)
    if successor:
        driver = driver.successor(spec, now_ms=late)
    driver.now_ms = late
    driver.do(m.Tick())
    driver.do(m.Tick())
    # The last of those that were missed, and the one that is merely late.
    assert [fact.scheduled_ms - instant(SEPTEMBER) for fact in driver.of(f.Fired)] == [540_000, 600_000]


def test_who_fired_its_last_instant_ahead_sleeps_for_good() -> None:
    driver = Driver(task_spec(trigger=OnceTrigger(T0 + 1_000)))
    driver.do(m.LeadSet(lead_ms=40))
    driver.do(m.CatalogSynced())
    driver.at(960)
    assert [fact.scheduled_ms for fact in driver.of(f.Fired)] == [T0 + 1_000]
    group = driver.engine.scheduler.entries["uid-hello"].group
    assert group is not None
    assert not group.armed


def test_a_filter_says_how_long_its_answer_stands() -> None:
    assert Filter().stands(5) == (True, FOREVER_MS)
    assert Filter(not_after_ms=10).stands(5) == (True, 11)
    assert Filter(not_after_ms=10).stands(11) == (False, FOREVER_MS)
    assert Filter(not_before_ms=10).stands(5) == (False, 10)
    assert Filter(exclude=(EVEN,)).stands(500) == (False, 1_000)
    assert Filter(exclude=(EVEN,)).stands(1_500) == (True, 2_000)
    assert Filter(include=(EVEN, YEAR)).stands(500) == (True, 1_000)


def test_a_filter_names_its_calendars_and_not_their_dates() -> None:
    window = Filter(not_before_ms=0, not_after_ms=1_500)
    base = FixedRateTrigger(500, 0)
    text = "every 500ms from 1970-01-01T00:00:00Z; not before 1970-01-01T00:00:00Z; not after 1970-01-01T00:00:01.500Z"
    assert FilteredTrigger(base, window).describe() == text
    several = Filter(exclude=(WEEKENDS, NIGHTS), include=(YEAR, EVEN))
    assert several.describe() == "except on nights; except on weekends; only on even or year"
    # The order in a manifest does not matter, nor do the dates: an edit of a Calendar does not re-arm a task.
    assert Filter(exclude=(NIGHTS, WEEKENDS), include=(EVEN, YEAR)).describe() == several.describe()
    assert Filter(exclude=(days("2026-01-01"),)).describe() == Filter(exclude=(days("2027-01-01"),)).describe()


def test_other_windows_and_dates_have_other_keys() -> None:
    base = CronTrigger("0 9 * * *")
    filters = [
        Filter(not_before_ms=1),
        Filter(not_after_ms=1),
        Filter(exclude=(WEEKENDS,)),
        Filter(include=(WEEKENDS,)),
        Filter(exclude=(days("2026-01-01"),)),
        Filter(exclude=(days("2026-01-02"),)),
    ]
    keys = [base.key(), CronTrigger("0 8 * * *").key(), *(FilteredTrigger(base, filter).key() for filter in filters)]
    assert len(set(keys)) == len(keys)
    again = FilteredTrigger(CronTrigger("0 0 9 * * ?"), Filter(exclude=(days("2026-01-01"),)))
    assert again.key() == keys[-2]
    assert hash(again.key()) == hash(keys[-2])
