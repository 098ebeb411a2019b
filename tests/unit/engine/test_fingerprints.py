"""A schedule's fingerprint tells its trigger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine.filters import Filter
from tickwheel_operator.engine.fingerprints import trigger_of
from tickwheel_operator.engine.triggers import (
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
)
from tickwheel_operator.ledger import facts as f

INSTANTS = st.integers(0, 4_000_000_000_000)
BASES = st.one_of(
    st.builds(CronTrigger, st.sampled_from(["*/5 * * * *", "0 0 9 ? * MON-FRI", "@daily"]), st.just("Asia/Shanghai")),
    st.builds(CronTrigger, st.just("H H * * *"), st.just("UTC"), st.just("shops/hello")),
    st.builds(FixedRateTrigger, st.integers(1, 10**9), INSTANTS),
    st.builds(OnceTrigger, INSTANTS),
    st.builds(
        DailyIntervalTrigger,
        st.integers(1, 60).map(lambda minutes: minutes * 60_000),
        st.integers(0, 11 * 3_600).map(lambda seconds: seconds * 1_000),
        st.integers(12 * 3_600, 24 * 3_600).map(lambda seconds: seconds * 1_000),
        st.integers(1, 127),
        st.just("Europe/Berlin"),
    ),
)
WINDOWS = st.builds(Filter, not_before_ms=st.none() | INSTANTS, not_after_ms=INSTANTS)


@given(BASES | st.builds(FilteredTrigger, BASES, WINDOWS))
def test_what_a_trigger_says_of_itself_makes_it_again(trigger: Trigger) -> None:
    assert trigger_of(trigger.describe(), "shops/hello") == trigger


@pytest.mark.parametrize(
    "schedule",
    ["manual", "30s after the end of the last run", "after a run of other succeeded", "suspended every 1s", "?"],
)
def test_a_schedule_without_instants_is_none(schedule: str) -> None:
    assert trigger_of(schedule, "shops/hello") is None


def test_a_trigger_that_was_changed_while_nobody_led_counts_what_it_left_undone() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    edited = task_spec(generation=2, trigger=FixedRateTrigger(60_000, T0))
    new = driver.successor(edited, now_ms=T0 + 5_500)
    assert [(skip.count, skip.reason) for skip in new.of(f.Skipped)] == [(4, f.SkipReason.EDITED)]
