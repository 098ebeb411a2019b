"""Texts with a meaning: what they accept, what number they are, what they say to whoever wrote them wrong."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from tickwheel_operator.api.text import (
    ClockTime,
    CronExpression,
    DateRange,
    DelayInterval,
    Duration,
    Instant,
    JsonPointer,
    Percent,
    PositiveDuration,
    Quantity,
    RateInterval,
    SuccessRule,
    Text,
    TimeZone,
)
from tickwheel_operator.engine.triggers.instants import FIRST_MS, LAST_MS


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500ms", 500),
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        ("7d", 604_800_000),
        ("0s", 0),
        ("1d2h3m4s5ms", 93_784_005),
    ],
)
def test_a_duration_is_a_number_of_milliseconds(text: str, milliseconds: int) -> None:
    assert Duration.read(text).milliseconds == milliseconds


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["ms", "s", "m", "h", "d"])), min_size=1, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    unit_ms = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    total = sum(number * unit_ms[unit] for number, unit in parts)
    text = "".join(f"{number}{unit}" for number, unit in parts)
    if total <= 3_650 * 86_400_000:
        assert Duration.read(text).milliseconds == total
    else:
        with pytest.raises(PydanticCustomError, match="longer than 3650d"):
            Duration.read(text)


@pytest.mark.parametrize(
    "value", ["-5s", "5", "", "1.5h", "5 s", "5S", "s", "5s\n", "1w", "5sec", 5, None, True, "4000d"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(PydanticCustomError, match="expected a duration of whole numbers"):
        Duration.read(value)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (PositiveDuration, ["1ms", "0s1ms", "10m"], ["0s", "0ms", "00d", "0m0s"]),
        (RateInterval, ["10ms", "500ms", "7d", "5ms5ms"], ["0s", "9ms", "009ms", "4ms5ms"]),
        (DelayInterval, ["1s", "1000ms", "1m"], ["999ms", "0999ms", "0s", "500ms499ms"]),
        (
            TimeZone,
            ["UTC", "Asia/Shanghai", "America/Argentina/Ushuaia", "Etc/GMT+8"],
            ["+08:00", "Asia/", "a b", "UTC\n"],
        ),
        (Percent, ["0%", "100%", "0.5%", "99.99%"], ["101%", "-1%", "5", "5 %", "1.234%"]),
        (SuccessRule, ["All", "Any", "Quorum", "80%"], ["all", "180%", "Most"]),
        (JsonPointer, ["/shop", "/a/b/0", "/a~1b", "/"], ["shop", "", "/a~2"]),
        (ClockTime, ["00:00", "23:59", "24:00", "08:30:15"], ["8:00", "24:01", "12:60", "noon", 800]),
        (DateRange, ["2026-10-01", "2026-10-02/2026-10-07"], ["2026-13-01", "2026-10-07/2026-10-02", "1.10.2026"]),
        (
            Instant,
            ["2026-12-24T18:00:00Z", "2026-12-24T18:00:00.123456789+08:00"],
            ["2026-12-24", "2026-12-24T18:00:00", "2026-02-30T00:00:00Z", "2026-12-24 18:00:00Z"],
        ),
        (
            CronExpression,
            ["* * * * *", "0 */5 * * * *", " @daily ", "0 0 L * ?"],
            ["* * * *", "* * * * * * *", "@ daily"],
        ),
        (Quantity, ["500m", "256Mi", "0.5", 2], ["-1", "1 Gi", 0.5, True, "1e3"]),
    ],
)
def test_each_text_has_its_bounds(kind: type[Text], good: list[object], bad: list[object]) -> None:
    for value in good:
        assert kind.read(value) == str(value)
    for value in bad:
        with pytest.raises(PydanticCustomError):
            kind.read(value)


def test_an_instant_is_milliseconds_of_utc() -> None:
    assert Instant.read("1970-01-01T08:00:01.5+08:00").milliseconds == 1_500
    assert Instant.read("2026-11-01T00:00:00.0009999z").milliseconds == 1_793_491_200_000
    assert Instant.read("1969-12-31T23:59:59.999Z").milliseconds == -1


def test_numbers_are_read_from_their_texts() -> None:
    assert ClockTime.read("24:00").milliseconds == 86_400_000
    assert ClockTime.read("08:30:15").milliseconds == 30_615_000
    assert Percent.read("12.5%").fraction == 0.125
    assert Quantity.read("500m").amount == Decimal("0.5")
    assert Quantity.read("256Mi").amount == 256 * 2**20
    assert Quantity.read(2).amount == 2


@pytest.mark.parametrize(
    "text",
    ["9999-12-31T23:59:59-08:00", "9999-12-31T23:59:59.9999-00:01", "0001-01-01T00:00:00+08:00"],
)
def test_an_instant_that_utc_cannot_write_is_refused(text: str) -> None:
    with pytest.raises(PydanticCustomError, match="in UTC it must be in the years 1 to 9999"):
        Instant.read(text)


@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z", "0001-01-01T08:00:00+08:00"]
)
def test_the_first_and_the_last_instant_are_allowed(text: str) -> None:
    assert Instant.read(text).milliseconds in (FIRST_MS, LAST_MS)
