"""What the cron dialect accepts, what it means, and how it refuses."""

from datetime import UTC, datetime, timedelta

import pytest

from tickwheel_operator.engine.cron import CronError, parse


def fires_on(expression: str, *, year: int, month: int) -> list[int]:
    """Return the days of one month on which a schedule fires, in UTC."""
    start = datetime(year, month, 1, tzinfo=UTC)
    end = (start + timedelta(days=32)).replace(day=1)
    after, until = int(start.timestamp() * 1000) - 1, int(end.timestamp() * 1000) - 1
    instants = parse(expression).iterate(after, until, UTC)
    return sorted({datetime.fromtimestamp(instant / 1000, UTC).day for instant in instants})


def bits(mask: int) -> list[int]:
    return [value for value in range(mask.bit_length()) if mask >> value & 1]


@pytest.mark.parametrize(
    ("minute", "expected"),
    [
        ("5", [5]),
        ("05", [5]),
        ("5,7,9", [5, 7, 9]),
        ("5-8", [5, 6, 7, 8]),
        ("5-5", [5]),
        ("57-2", [57, 58, 59, 0, 1, 2]),
        ("50-10/7", [50, 57, 4]),
        ("*/20", [0, 20, 40]),
        ("?/20", [0, 20, 40]),
        ("5/20", [5, 25, 45]),
        ("10-30/10", [10, 20, 30]),
        ("*/90", [0]),
        ("10-12,30,*/25", [10, 11, 12, 30, 0, 25, 50]),
        ("*", list(range(60))),
        ("?", list(range(60))),
    ],
)
def test_a_minute_field_names_these_minutes(minute: str, expected: list[int]) -> None:
    assert bits(parse(f"{minute} 0 * * *").minutes) == sorted(expected)


@pytest.mark.parametrize(
    ("weekday", "expected"),
    [
        ("0", [0]),
        ("7", [0]),
        ("sun", [0]),
        ("Fri-Mon", [0, 1, 5, 6]),
        ("FRI-MON/2", [0, 5]),
        ("5-7", [0, 5, 6]),
        ("0-7", [0, 1, 2, 3, 4, 5, 6]),
        ("1-7", [0, 1, 2, 3, 4, 5, 6]),
        ("7-7", [0]),
        ("7-2", [0, 1, 2]),
        ("6-0", [0, 6]),
        ("MON-FRI", [1, 2, 3, 4, 5]),
        ("*/2", [0, 2, 4, 6]),
        ("mOn,3,SAT", [1, 3, 6]),
    ],
)
def test_a_day_of_week_field_names_these_weekdays(weekday: str, expected: list[int]) -> None:
    # August 2026 begins on a Saturday: day d is weekday (d + 5) % 7 with Sunday as 0.
    days = fires_on(f"0 0 * * {weekday}", year=2026, month=8)
    assert sorted({(day + 5) % 7 for day in days}) == expected


@pytest.mark.parametrize(
    ("day", "year", "month", "expected"),
    [
        ("L", 2026, 2, [28]),
        ("L", 2028, 2, [29]),
        ("L-3", 2026, 4, [27]),
        ("L-30", 2026, 4, []),
        ("L-30", 2026, 5, [1]),
        ("15W", 2026, 8, [14]),  # the 15th is a Saturday
        ("16W", 2026, 8, [17]),  # a Sunday
        ("1W", 2026, 8, [3]),  # a Saturday, and the Friday before is in July
        ("1W", 2026, 3, [2]),  # a Sunday
        ("31W", 2026, 5, [29]),  # a Sunday at the end of its month
        ("31W", 2026, 4, []),
        ("29W", 2026, 2, []),
        ("LW", 2026, 5, [29]),
        ("LW", 2026, 4, [30]),
        ("1,15W,L-1", 2026, 8, [1, 14, 30]),
        ("28-2", 2026, 4, [1, 2, 28, 29, 30]),
        ("30-3/2", 2026, 5, [1, 3, 30]),
    ],
)
def test_a_day_of_month_field_names_these_days(day: str, year: int, month: int, expected: list[int]) -> None:
    assert fires_on(f"0 0 {day} * *", year=year, month=month) == expected
    assert fires_on(f"0 0 {day.lower()} * ?", year=year, month=month) == expected


@pytest.mark.parametrize(
    ("weekday", "month", "expected"),
    [
        ("FRIL", 5, [29]),
        ("5L", 5, [29]),
        ("0L", 5, [31]),
        ("7L", 5, [31]),
        ("FRI#2", 5, [8]),
        ("5#2", 5, [8]),
        ("7#1", 5, [3]),
        ("FRI#5", 5, [29]),
        ("FRI#5", 6, []),
        ("MON,FRI#1,SUNL", 6, [1, 5, 8, 15, 22, 28, 29]),
    ],
)
def test_counted_weekdays_fall_on_these_days(weekday: str, month: int, expected: list[int]) -> None:
    assert fires_on(f"0 0 * * {weekday}", year=2026, month=month) == expected


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ("13 * FRI", [6, 13, 20, 27]),
        ("1 * FRI", [1, 6, 13, 20, 27]),
        ("L * FRI#1", [6, 28]),
        ("15W * MONL", [16, 23]),
        ("*/10 * SUN#1", [1, 11, 21]),
        ("1,2 * *", [1, 2]),
        ("? * MON#1", [2]),
        ("1 * */3", [1, 4, 7, 8, 11, 14, 15, 18, 21, 22, 25, 28]),
    ],
)
def test_either_of_two_restricted_day_fields_matches(days: str, expected: list[int]) -> None:
    # February 2026 begins on a Sunday and has 28 days.
    assert fires_on(f"0 0 {days}", year=2026, month=2) == expected


@pytest.mark.parametrize("day", ["1-31", "1-31/1", "1/1", "*/2,2/2"])
def test_a_range_of_all_days_is_a_restriction(day: str) -> None:
    assert fires_on(f"0 0 {day} * MON", year=2026, month=2) == list(range(1, 29))
    assert fires_on("0 0 1 * 0-6", year=2026, month=2) == list(range(1, 29))


@pytest.mark.parametrize("star", ["*", "?", "*/1", "?/1", "*/01", "*,5", "5,?/1", "5-6,*/1"])
def test_a_wildcard_anywhere_in_a_day_field_restricts_nothing(star: str) -> None:
    assert parse(f"0 9 {star} * MON-FRI") == parse("0 9 * * MON-FRI")
    assert parse(f"0 9 15 * {star}") == parse("0 9 15 * *")
    assert parse(f"0 9 {star} * {star}") == parse("0 9 * * *")


def test_a_wildcard_beside_a_special_day_restricts_nothing() -> None:
    assert parse("0 9 L,* * MON") == parse("0 9 * * MON")
    assert parse("0 9 15 * FRI#2,*") == parse("0 9 15 * *")


@pytest.mark.parametrize(
    ("macro", "fields"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@MIDNIGHT", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @Annually ", "0 0 1 1 *"),
    ],
)
def test_a_macro_equals_its_fields(macro: str, fields: str) -> None:
    assert parse(macro) == parse(fields)
    assert hash(parse(macro)) == hash(parse(fields))


def test_six_fields_begin_with_the_second() -> None:
    assert parse("0 30 4 * * *") == parse("30 4 * * *")
    assert bits(parse("*/15 30 4 * * *").seconds) == [0, 15, 30, 45]


def test_wrapping_months_go_round_the_year() -> None:
    assert bits(parse("0 0 1 nov-Feb *").months) == [1, 2, 11, 12]


def test_white_space_of_a_yaml_block_is_ignored() -> None:
    assert parse("\n  0\t9  * * MON-FRI \r\n") == parse("0 9 * * MON-FRI")


def test_a_hash_is_the_same_for_ever() -> None:
    # The values themselves: another hash function would move every task that was ever applied.
    schedule = parse("H H H H H H", identity="4f0c2c3e-9a43-4c5e-8f0d-0d6ef3a1b1aa")
    fields = (schedule.seconds, schedule.minutes, schedule.hours, schedule.months)
    assert [bits(mask) for mask in fields] == [[0], [25], [11], [4]]
    assert bits(parse("0 0 H * *", identity="x").days[3]) == [8]


def test_hashes_spread_tasks_over_the_whole_field() -> None:
    minutes = [bits(parse("H * * * *", identity=f"task-{number}").minutes)[0] for number in range(2_000)]
    assert set(minutes) == set(range(60))
    assert max(minutes.count(value) for value in range(60)) < 70


def test_a_hash_of_the_day_of_month_exists_in_every_month() -> None:
    for number in range(300):
        schedule = parse("0 0 H * *", identity=f"task-{number}")
        assert all(mask.bit_count() == 1 for mask in schedule.days)


@pytest.mark.parametrize("number", range(40))
def test_a_hash_with_a_step_or_a_range_keeps_within_it(number: int) -> None:
    stepped = bits(parse("H/15 * * * *", identity=str(number)).minutes)
    assert len(stepped) == 4
    assert {value - stepped[0] for value in stepped} == {0, 15, 30, 45}
    assert 10 <= bits(parse("H(10-19) * * * *", identity=str(number)).minutes)[0] <= 19
    ranged = bits(parse("H(50-9)/10 * * * *", identity=str(number)).minutes)
    assert len(ranged) == 2
    assert all(value >= 50 or value <= 9 for value in ranged)


def test_without_a_hash_identities_share_one_schedule() -> None:
    assert parse("0 9 * * MON-FRI", identity="a") is parse("0 9 * * MON-FRI", identity="b")


@pytest.mark.parametrize(
    ("expression", "field", "position", "words"),
    [
        ("61 * * * *", "minute", 0, ["'61'", "out of range", "0-59"]),
        ("0 24 * * *", "hour", 2, ["'24'", "0-23"]),
        ("0 0 0 * *", "day of month", 4, ["'0'", "1-31"]),
        ("0 0 32W * *", "day of month", 4, ["'32W'", "1-31"]),
        ("0 0 * 13 *", "month", 6, ["'13'", "JAN-DEC"]),
        ("0 0 * JANUARY *", "month", 6, ["'JANUARY'", "JAN-DEC"]),
        ("0 0 * FRI *", "month", 6, ["'FRI'", "JAN-DEC"]),
        ("0 0 * * 8", "day of week", 8, ["'8'", "0-7", "SUN-SAT"]),
        ("0 0 * * L", "day of week", 8, ["FRIL"]),
        ("0 0 * * FRI#6", "day of week", 8, ["'FRI#6'", "1 to 5"]),
        ("0 0 * * FRI#0", "day of week", 8, ["1 to 5"]),
        ("0 0 * * 15W", "day of week", 8, ["'15W'"]),
        ("0 0 L-31 * *", "day of month", 4, ["'L-31'", "L-30"]),
        ("0 0 1,,2 * *", "day of month", 6, ["empty"]),
        ("0 0 1, * *", "day of month", 6, ["empty"]),
        ("*/0 * * * *", "minute", 0, ["'*/0'", "step"]),
        ("5-70 * * * *", "minute", 0, ["'5-70'", "0-59"]),
        ("1-2-3 * * * *", "minute", 0, ["'1-2-3'", "cannot be read"]),
        ("-1 * * * *", "minute", 0, ["'-1'"]),
        ("1.5 * * * *", "minute", 0, ["'1.5'"]),
        ("MON * * * *", "minute", 0, ["'MON'", "0-59"]),
        ("0 10 20,x 1 * *", "hour", 8, ["'X'", "0-23"]),
        ("* * * *", None, 0, ["4 fields", "5 (minute", "6 (the second first)"]),
        ("0 0 0 1 1 ? 2026", None, 12, ["7 fields", "year", "Quartz"]),
        ("", None, 0, ["0 fields"]),
        ("@reboot", None, 0, ["'@reboot'", "@hourly", "@annually"]),
        ("@every 5m", None, 0, ["fixedRate"]),
        ("@daily 5", None, 0, ["'@daily'", "'5'"]),
        ("CRON_TZ=UTC 0 0 * * *", None, 0, ["timeZone"]),
        ("0 0 * * MON–FRI", None, 11, ["'–'", "position 11"]),
        ("0\u00a00 * * *", None, 1, ["position 1"]),
        ("0 0 * * FRı", None, 10, ["position 10"]),
        ("٣ 0 * * *", None, 0, ["ASCII"]),
    ],
)
def test_a_refusal_names_the_place_the_text_and_what_is_allowed(
    expression: str, field: str | None, position: int, words: list[str]
) -> None:
    with pytest.raises(CronError) as refusal:
        parse(expression)
    assert refusal.value.field == field
    assert refusal.value.position == position
    message = str(refusal.value)
    for word in words:
        assert word in message
    if field is not None:
        assert field in message
        assert "allowed:" in message
        assert "for example" in message


def test_an_expression_has_at_most_256_characters() -> None:
    longest = "0 0 " + ",".join(["1"] * 124) + " *  *"
    assert len(longest) == 256
    assert parse(longest) == parse("0 0 1 * *")
    with pytest.raises(CronError, match="256"):
        parse(longest + " ")


@pytest.mark.parametrize(
    ("expression", "follows"),
    [
        ("30 2 * * *", False),
        ("0-59 0-23 * * *", False),
        ("0,30 1,2 * * *", False),
        ("* 30 2 * * *", False),
        ("30 2 */2 * *", False),
        ("H H * * *", False),
        ("* 2 * * *", True),
        ("30 * * * *", True),
        ("30 ? * * *", True),
        ("*/15 2 * * *", True),
        ("0/30 2 * * *", True),
        ("30 0-12/2 * * *", True),
        ("5,10-20/5 2 * * *", True),
        ("H/15 2 * * *", True),
        ("@hourly", True),
        ("@daily", False),
        ("0 */24 * * *", False),
        ("0 0/24 * * *", False),
        ("0 23/2 * * *", False),
        ("*/60 2 * * *", False),
        ("H/60 2 * * *", False),
        ("5-9/5 2 * * *", False),
        ("0 9-17/1 * * *", False),
        ("H(0-9)/1 2 * * *", False),
        ("0 */23 * * *", True),
        ("*/1 2 * * *", True),
        ("30,* 2 * * *", True),
        ("30 ?/1 * * *", True),
    ],
)
def test_a_wildcard_or_a_step_over_several_values_follows_the_clock(expression: str, follows: bool) -> None:
    assert parse(expression).follows_clock is follows


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31W 4 *", "0 0 L-29 2 *"])
def test_a_date_that_no_year_has_never_fires(expression: str) -> None:
    assert parse(expression).never_fires(UTC)
    assert parse(expression).next_after(0, UTC) is None
    assert parse(expression).latest_until(0, UTC) is None
    assert parse(expression).count(0, 10**15, UTC) == 0


@pytest.mark.parametrize("expression", ["0 0 29 2 *", "0 0 29W 2 *", "0 0 L-28 2 *", "0 0 ? 2 FRI#5", "0 0 30 2 MON"])
def test_a_rare_date_does_fire(expression: str) -> None:
    assert not parse(expression).never_fires(UTC)
