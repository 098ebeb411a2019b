"""All expressions with the same instants have one normal text, which is an expression again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tests.unit.engine.test_cron_oracle import EXPRESSIONS, SMALL_HOURS

from tickwheel_operator.engine.cron import normal_text, parse


@settings(max_examples=500, deadline=None)
@given(expression=EXPRESSIONS | SMALL_HOURS)
def test_the_normal_text_is_the_schedule_that_it_was_made_of(expression: str) -> None:
    text = normal_text(expression)
    assert parse(text) == parse(expression)
    assert normal_text(text) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 9 * * MON-FRI", "0  9 *\t* 1-5"),
        ("0 9 * * mon,tue,wed,thu,fri", "0 9 ? * FRI,THU,WED,TUE,MON"),
        ("0 9 * * MON-FRI", "0 0 09 */1 JAN-DEC 1-3,4,5"),
        ("*/15 * * * *", "0,15,30,45 * * * *"),
        ("*/15 2 * * *", "0/15 2 * * *"),
        ("0 0 * * 0", "@weekly"),
        ("0 0 * * 7", "0 0 * * SUN"),
        ("0 0 1,L * *", "0 0 L,1,1 * *"),
        ("0 0 * * FRI#2,FRIL", "0 0 * * 5L,5#2"),
        ("0 0 1-31 * *", "0 0 * * *"),
        ("0 0 1-31 * MON", "0 0 * * 0-6"),
        ("0 */24 * * *", "0 0 * * *"),
        ("H/60 5 * * *", "H(0-59)/60 5 * * *"),
    ],
)
def test_expressions_with_the_same_instants_have_one_text(one: str, other: str) -> None:
    assert parse(one, identity="t") == parse(other, identity="t")
    assert normal_text(one, "t") == normal_text(other, "t")


def test_the_normal_text_of_a_hash_is_what_it_chose() -> None:
    text = normal_text("H H * * *", "shops/hello")
    assert parse(text) == parse("H H * * *", identity="shops/hello")
    assert "H" not in text
    assert normal_text("H H * * *", "shops/other") != text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("*/15 2 * * *", "0,15,30,45 2 * * *"),  # it follows the clock
        ("0 0 13 * FRI", "0 0 13 * *"),
        ("0 0 1 * *", "0 0 1W * *"),
        ("0 9 * * *", "* 9 * * *"),
    ],
)
def test_other_instants_are_another_text(one: str, other: str) -> None:
    assert normal_text(one) != normal_text(other)
