"""Triggers as values: when they fire, what was missed, and which of them share a timer."""

from datetime import date, datetime
from itertools import pairwise
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwheel_operator.engine.cron import CronError, UnknownZoneError, parse
from tickwheel_operator.engine.triggers import (
    AnyTrigger,
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
    Unfiltered,
    counted_until,
    latest,
    looked_until,
)
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter

DAY = 86_400_000


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


DRAWN: dict[type, st.SearchStrategy[Unfiltered]] = {
    OnceTrigger: st.builds(OnceTrigger, at_ms=st.integers(-5_000, 20_000)),
    FixedRateTrigger: st.builds(
        FixedRateTrigger, period_ms=st.integers(1, 3_000), anchor_ms=st.integers(-5_000, 20_000)
    ),
    CronTrigger: st.sampled_from(["* * * * * *", "*/7 * * * * *", "5,6,50 * * * * *", "0 0 30 2 *"]).map(CronTrigger),
    DailyIntervalTrigger: st.builds(
        DailyIntervalTrigger,
        every_ms=st.integers(100, 5_000),
        from_ms=st.integers(0, 12_000),
        to_ms=st.integers(12_001, 20_000),
        days=st.sampled_from([127, 8, 16]),  # the epoch is a Thursday
    ),
}
PLAIN_TRIGGER = st.one_of(*DRAWN.values())
SECONDS = CalendarDates("seconds", crons=[parse("*/3 * * * * *"), parse("10-14 * * * * *")])
THURSDAYS = CalendarDates("thursdays", dates=[(date(1970, 1, 1), date(1970, 1, 1))])
ANY_TRIGGER = st.one_of(
    PLAIN_TRIGGER,
    st.builds(
        FilteredTrigger,
        PLAIN_TRIGGER,
        st.builds(
            Filter,
            not_before_ms=st.one_of(st.none(), st.integers(-1_000, 9_000)),
            not_after_ms=st.one_of(st.none(), st.integers(9_000, 21_000)),
            exclude=st.sampled_from([(), (SECONDS,)]),
            include=st.sampled_from([(), (SECONDS,), (THURSDAYS,), (SECONDS, THURSDAYS)]),
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(trigger=ANY_TRIGGER, after=st.integers(-6_000, 25_000), span=st.integers(-100, 20_000), limit=st.integers(0, 40))
def test_what_was_missed_is_what_a_walk_would_find(trigger: Trigger, after: int, span: int, limit: int) -> None:
    until = after + span
    walked: list[int] = []
    at = trigger.next_after(after)
    while at is not None and at <= until:
        walked.append(at)
        at = trigger.next_after(at)
    assert all(earlier < later for earlier, later in pairwise([after, *walked]))
    assert trigger.last_at_or_before(until, after) == (walked[-1] if walked else None)
    assert trigger.count_between(after, until, limit) == min(limit, len(walked))
    assert trigger.count_between(after, until, 10**9) == len(walked)


@settings(max_examples=200, deadline=None)
@given(trigger=ANY_TRIGGER, after=st.integers(-6_000, 25_000))
def test_every_trigger_keeps_the_laws(trigger: Trigger, after: int) -> None:
    first = trigger.next_after(after)
    if first is None:
        assert trigger.count_between(after, after + DAY, 10) == 0
        assert trigger.last_at_or_before(after + DAY, after) is None
        return
    assert first > after
    # Nothing lies between, from wherever one looks.
    assert trigger.next_after((after + first) // 2) == first
    assert trigger.next_after(first - 1) == first
    assert trigger.count_between(after, first - 1, 10) == 0
    assert trigger.count_between(after, first, 10) == trigger.count_between(first - 1, first, 10) == 1
    assert trigger.count_between(after, first, 0) == trigger.count_between(first, after, 10) == 0
    assert trigger.last_at_or_before(first, after) == first
    assert trigger.last_at_or_before(first - 1, after) is None
    assert trigger.last_at_or_before(after, first) is None
    second = trigger.next_after(first)
    if second is not None:
        assert second > first
        assert trigger.last_at_or_before(second - 1, after) == first
        assert trigger.last_at_or_before(second, after) == second
        assert trigger.count_between(after, second, 10) == 2
    # Equal triggers are one timer; a description is what re-arms.
    assert trigger.key() == msgspec.structs.replace(trigger).key()  # type: ignore[type-var]
    assert "\n" not in trigger.describe()


def test_a_fixed_rate_fires_at_its_anchor_and_every_period_after_it() -> None:
    trigger = FixedRateTrigger(period_ms=500, anchor_ms=10_000)
    assert trigger.next_after(0) == 10_000
    assert trigger.next_after(9_999) == 10_000
    assert trigger.next_after(10_000) == 10_500
    assert trigger.next_after(10_499) == 10_500
    assert trigger.last_at_or_before(9_999, 0) is None


def test_a_year_of_missed_milliseconds_is_counted_without_a_walk() -> None:
    trigger = FixedRateTrigger(period_ms=1, anchor_ms=0)
    assert trigger.count_between(0, 365 * DAY, 10**12) == 365 * DAY
    assert trigger.last_at_or_before(365 * DAY, 0) == 365 * DAY
    seconds = CronTrigger("* * * * * *", "Asia/Shanghai")
    assert seconds.count_between(1_700_000_000_000, 1_700_000_000_000 + 365 * DAY, 10**12) == 365 * DAY // 1000


def test_a_cron_trigger_fires_in_its_zone() -> None:
    trigger = CronTrigger("0 9 * * MON-FRI", "Asia/Shanghai")
    friday, monday = instant("2026-05-29T09:00:00+08:00"), instant("2026-06-01T09:00:00+08:00")
    assert trigger.next_after(friday - 1) == friday
    assert trigger.next_after(friday) == monday
    assert trigger.last_at_or_before(monday - 1, friday - 1) == friday
    assert trigger.last_at_or_before(monday - 1, friday) is None


def test_a_once_trigger_fires_once() -> None:
    trigger = OnceTrigger(at_ms=1_000)
    assert trigger.next_after(999) == 1_000
    assert trigger.next_after(1_000) is None
    assert trigger.last_at_or_before(1_000, 999) == 1_000
    assert trigger.last_at_or_before(1_000, 1_000) is None


def test_triggers_with_the_same_instants_have_equal_keys() -> None:
    daily = CronTrigger("@daily", "Europe/Berlin", identity="a")
    assert daily.key() == CronTrigger("0  0 0 * * ?", "Europe/Berlin", identity="b").key()
    assert hash(daily.key()) == hash(CronTrigger("0 0 * * *", "Europe/Berlin").key())
    assert FixedRateTrigger(500, 0).key() == FixedRateTrigger(500, 0).key()


DAILY_FIELDS = [
    (500, 0, 1_000, 127, "UTC"),
    (501, 0, 1_000, 127, "UTC"),
    (500, 1, 1_000, 127, "UTC"),
    (500, 0, 1_001, 127, "UTC"),
    (500, 0, 1_000, 126, "UTC"),
    (500, 0, 1_000, 127, "Asia/Shanghai"),
]


def test_only_a_filter_makes_a_search_give_up() -> None:
    fixed = FixedRateTrigger(500, 0)
    assert looked_until(fixed, 700) == 999
    assert counted_until(fixed, 0, 10**15) == 10**15
    assert latest(fixed, 1_000, 2_700, 2) == [2_000, 2_500]
    assert latest(fixed, 2_000, 2_700, 9) == [2_500]
    assert looked_until(OnceTrigger(700), 700) is None


def test_triggers_with_other_instants_have_other_keys() -> None:
    keys = [
        CronTrigger("0 0 * * *", "Europe/Berlin").key(),
        CronTrigger("0 0 * * *", "Asia/Shanghai").key(),
        CronTrigger("0 1 * * *", "Europe/Berlin").key(),
        CronTrigger("0-59 1 * * *", "Europe/Berlin").key(),
        CronTrigger("* 1 * * *", "Europe/Berlin").key(),  # the same minutes, but it follows the clock
        CronTrigger("H 1 * * *", "Europe/Berlin", identity="a").key(),
        CronTrigger("H 1 * * *", "Europe/Berlin", identity="b").key(),
        FixedRateTrigger(500, 0).key(),
        FixedRateTrigger(500, 1).key(),
        OnceTrigger(500).key(),
        *(DailyIntervalTrigger(*fields).key() for fields in DAILY_FIELDS),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        (CronTrigger("0  */5 * * * *", "Asia/Shanghai"), "cron 0 */5 * * * * (Asia/Shanghai)"),
        (FixedRateTrigger(500, 0), "every 500ms from 1970-01-01T00:00:00Z"),
        (FixedRateTrigger(5_400_000, 1_500), "every 1h30m from 1970-01-01T00:00:01.500Z"),
        (OnceTrigger(instant("2026-12-24T18:00:00Z")), "once at 2026-12-24T18:00:00Z"),
        (OnceTrigger(10**18), "once at 9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_trigger_describes_itself_in_one_line(trigger: Trigger, text: str) -> None:
    assert trigger.describe() == text


def test_every_trigger_is_drawn_for_these_tests() -> None:
    assert set(DRAWN) == set(get_args(Unfiltered))


@given(trigger=ANY_TRIGGER, after=st.integers(-6_000, 25_000))
def test_the_normal_form_of_a_trigger_is_its_own_and_has_its_instants(trigger: AnyTrigger, after: int) -> None:
    bare = trigger.base if isinstance(trigger, FilteredTrigger) else trigger
    normal = bare.normal()
    assert normal.key() == bare.key()
    assert normal.normal() == normal
    assert normal.next_after(after) == bare.next_after(after)


@given(trigger=PLAIN_TRIGGER)
def test_a_trigger_survives_the_codec(trigger: Unfiltered) -> None:
    assert msgspec.json.decode(msgspec.json.encode(trigger), type=AnyTrigger) == trigger


def test_a_trigger_that_cannot_be_read_cannot_be_built() -> None:
    with pytest.raises(CronError):
        CronTrigger("0 25 * * *")
    with pytest.raises(UnknownZoneError):
        CronTrigger("0 5 * * *", "Mars/Olympus")
    with pytest.raises(ValueError, match="1 ms or more"):
        FixedRateTrigger(0, 0)
    with pytest.raises(msgspec.ValidationError, match="hour field: '25' is out of range"):
        msgspec.json.decode(b'["cron", "0 25 * * *"]', type=AnyTrigger)


def test_a_trigger_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        OnceTrigger(1).at_ms = 2  # type: ignore[misc]
