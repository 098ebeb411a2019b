"""The timing wheel against a sorted list, and the cases that break wheels."""

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tickwheel_operator.engine.wheel import Timer, TimingWheel

START = 1_790_000_000_000
DAY = 86_400_000


def payloads(timers: list[Timer]) -> list[object]:
    return [timer.payload for timer in timers]


def test_timers_are_due_in_order_of_instant_to_the_millisecond() -> None:
    wheel = TimingWheel(START)
    for distance in (5_000, 3, 1_023, 1_024, 1_025, 2, 3_600_000, 1):
        wheel.insert(START + distance, distance)

    assert wheel.advance(START) == []
    assert payloads(wheel.advance(START + 1)) == [1]
    assert payloads(wheel.advance(START + 1_023)) == [2, 3, 1_023]
    assert payloads(wheel.advance(START + 5_000)) == [1_024, 1_025, 5_000]
    assert payloads(wheel.advance(START + DAY)) == [3_600_000]
    assert len(wheel) == 0


def test_timers_of_one_instant_are_due_in_the_order_of_insertion() -> None:
    wheel = TimingWheel(START)
    at = START + 700_000
    first = [wheel.insert(at, number) for number in range(3)]
    assert wheel.next_occupied() == at  # opens the slot; what comes now is dealt out directly
    for number in range(3, 6):
        wheel.insert(at, number)
    wheel.cancel(first[0])
    wheel.insert(at, 6)
    assert payloads(wheel.advance(at)) == [1, 2, 3, 4, 5, 6]


def test_next_occupied_is_the_exact_instant_however_far_away() -> None:
    wheel = TimingWheel(START)
    assert wheel.next_occupied() is None
    far = START + 900 * 365 * DAY + 7
    timer = wheel.insert(far, "far")
    assert wheel.next_occupied() == far
    near = wheel.insert(START + 12_345, "near")
    assert wheel.next_occupied() == START + 12_345
    wheel.cancel(near)
    assert wheel.next_occupied() == far
    wheel.cancel(timer)
    assert wheel.next_occupied() is None


def test_nothing_fires_early_after_next_occupied_has_looked() -> None:
    wheel = TimingWheel(START)
    wheel.insert(START + 10_500, "b")
    wheel.next_occupied()
    assert wheel.advance(START + 10_499) == []
    wheel.insert(START + 9_000, "a")
    assert wheel.next_occupied() == START + 9_000
    assert payloads(wheel.advance(START + 10_500)) == ["a", "b"]


def test_a_clock_that_jumps_by_years_fires_all_in_order() -> None:
    wheel = TimingWheel(START)
    instants = [START + number * 7 * DAY + number for number in range(500)]
    for at in reversed(instants):
        wheel.insert(at, at)
    assert payloads(wheel.advance(START + 20_000 * DAY)) == instants


def test_a_clock_that_steps_back_fires_nothing_and_loses_nothing() -> None:
    wheel = TimingWheel(START)
    wheel.insert(START + 1_000, "before")
    wheel.insert(START + DAY, "after")
    assert payloads(wheel.advance(START + 2_000)) == ["before"]

    assert wheel.advance(START - DAY) == []
    assert wheel.now_ms == START + 2_000
    wheel.insert(START - DAY + 500, "armed while the clock was back")
    assert wheel.next_occupied() == START - DAY + 500
    assert wheel.advance(START - DAY + 499) == []
    assert payloads(wheel.advance(START - DAY + 500)) == ["armed while the clock was back"]
    assert payloads(wheel.advance(START + DAY)) == ["after"]


@pytest.mark.parametrize("at_ms", [0, 1, -1, -1_025, -(10**15), 10**17])
def test_instants_of_any_age_are_in_order(at_ms: int) -> None:
    wheel = TimingWheel(START)
    wheel.insert(START, "now")
    wheel.insert(at_ms, "other")
    assert wheel.next_occupied() == min(at_ms, START)
    due = [(timer.at_ms, timer.payload) for timer in wheel.advance(10**18)]
    assert due == sorted([(START, "now"), (at_ms, "other")])


def test_a_limit_bounds_a_batch_and_the_rest_follows_in_order() -> None:
    wheel = TimingWheel(START)
    for number in range(10_000):
        wheel.insert(START + number // 4_000, number)
    batches = []
    while batch := wheel.advance(START + 10, limit=1_500):
        batches.append(payloads(batch))
        assert len(wheel) == 10_000 - sum(map(len, batches))
    assert [len(batch) for batch in batches] == [1_500] * 6 + [1_000]
    assert [number for batch in batches for number in batch] == list(range(10_000))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_returns_nothing(limit: int) -> None:
    wheel = TimingWheel(START)
    wheel.insert(START, "x")
    assert wheel.advance(START, limit=limit) == []
    assert len(wheel) == 1


def test_a_timer_armed_while_a_batch_is_handled_is_due_in_the_next_batch() -> None:
    wheel = TimingWheel(START)
    wheel.insert(START + 5, "first")
    wheel.insert(START + 9, "last")
    assert payloads(wheel.advance(START + 10, limit=1)) == ["first"]
    wheel.insert(START + 7, "between")
    assert payloads(wheel.advance(START + 10, limit=1)) == ["between"]
    wheel.insert(START + 9, "after last")
    assert payloads(wheel.advance(START + 10)) == ["last", "after last"]


def test_only_an_armed_timer_can_be_cancelled() -> None:
    wheel = TimingWheel(START)
    cancelled, fired, kept = (wheel.insert(START + number, number) for number in range(3))
    assert cancelled.armed
    assert wheel.cancel(cancelled) is True
    assert wheel.cancel(cancelled) is False
    assert not cancelled.armed
    assert wheel.advance(START + 1) == [fired]
    assert wheel.cancel(fired) is False
    assert not fired.armed
    assert len(wheel) == 1
    assert kept.armed
    assert repr(kept) == f"<Timer armed at {START + 2} ms: 2>"


def test_a_cancelled_or_fired_timer_is_freed_at_once() -> None:
    class Payload:
        pass

    wheel = TimingWheel(START)
    one, two = Payload(), Payload()
    refs = [weakref.ref(one), weakref.ref(two)]
    handle = wheel.insert(START + 5_000, one)
    wheel.insert(START + 6_000, two)
    gc.disable()
    try:
        wheel.cancel(handle)
        wheel.advance(START + 6_000)
        del handle, one, two
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_a_wheel_that_has_emptied_keeps_nothing() -> None:
    wheel = TimingWheel(START)
    timers = [wheel.insert(START + number * 777_777, number) for number in range(2_000)]
    for timer in timers[::2]:
        wheel.cancel(timer)
    wheel.advance(START + 10**10)
    kept = (wheel._slots, wheel._quarters, wheel._days, wheel._spans)
    assert [len(level) for level in kept] == [0, 0, 0, 0]


# --- against a sorted list --------------------------------------------------------------------------------

DISTANCES = st.one_of(
    st.integers(-2_000, 5_000),
    st.integers(-3 * DAY, 3 * DAY),
    st.integers(0, 3).map(lambda number: number * 1_024),
    st.integers(-(10**13), 10**14),
)


class WheelAgainstASortedList(RuleBasedStateMachine):
    """Any order of calls; the model is a list that is sorted at every question."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.serial = 0
        self.armed: list[tuple[int, int, Timer]] = []

    @initialize()
    def start(self) -> None:
        self.wheel = TimingWheel(START)

    @rule(distance=DISTANCES, copies=st.integers(1, 3))
    def insert(self, distance: int, copies: int) -> None:
        for _ in range(copies):
            timer = self.wheel.insert(self.now + distance, self.serial)
            self.armed.append((self.now + distance, self.serial, timer))
            self.serial += 1

    @precondition(lambda self: self.armed)
    @rule(data=st.data())
    def insert_beside_another(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(self.armed))[0] + data.draw(st.integers(-1, 1))
        self.armed.append((at, self.serial, self.wheel.insert(at, self.serial)))
        self.serial += 1

    @precondition(lambda self: self.armed)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.armed))
        self.armed.remove(entry)
        assert self.wheel.cancel(entry[2])
        assert not self.wheel.cancel(entry[2])

    @rule(step=DISTANCES, limit=st.one_of(st.none(), st.integers(0, 5)))
    def advance(self, step: int, limit: int | None) -> None:
        self.now += step
        expected = sorted(entry for entry in self.armed if entry[0] <= self.now)[:limit]
        due = self.wheel.advance(self.now, limit=limit)
        assert [(timer.at_ms, timer.payload) for timer in due] == [entry[:2] for entry in expected]
        assert all(timer is entry[2] and not timer.armed for timer, entry in zip(due, expected, strict=True))
        self.armed = [entry for entry in self.armed if entry not in expected]

    @precondition(lambda self: self.armed)
    @rule(late=st.integers(0, 3))
    def advance_to_the_next(self, late: int) -> None:
        self.now = min(self.armed)[0] - 1
        self.advance(late, None)

    @rule()
    def look_ahead(self) -> None:
        assert self.wheel.next_occupied() == (min(self.armed)[0] if self.armed else None)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.wheel) == len(self.armed)
        assert all(entry[2].armed for entry in self.armed)


WheelAgainstASortedList.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWheelAgainstASortedList = WheelAgainstASortedList.TestCase


@settings(max_examples=50, deadline=None)
@given(distances=st.lists(st.integers(0, 40_000), min_size=1, max_size=400), period=st.integers(1, 9_000))
def test_a_host_that_sleeps_until_the_next_occupied_instant_misses_nothing(distances: list[int], period: int) -> None:
    # Every timer arms itself again once, a period later, as a schedule does.
    wheel = TimingWheel(START)
    for number, distance in enumerate(distances):
        wheel.insert(START + distance, (number, True))
    fired = []
    while (at := wheel.next_occupied()) is not None:
        for timer in wheel.advance(at):
            assert timer.at_ms == at
            number, again = timer.payload
            fired.append((at - START, number))
            if again:
                wheel.insert(at + period, (number, False))
    expected = [(distance, number) for number, distance in enumerate(distances)]
    expected += [(distance + period, number) for distance, number in expected]
    assert sorted(fired) == sorted(expected)
    assert [at for at, _ in fired] == sorted(at for at, _ in fired)
