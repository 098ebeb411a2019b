"""What a worker knows of the operator's clock: simulated networks, drifts and jumps, and a real exchange."""

from __future__ import annotations

import logging
import random
import time
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwheel._clock import DRIFT, OperatorClock
from tickwheel._leader_clock import LeaderClock
from tickwheel._protocol import PullAnswer

WALL = 1_790_000_000.0


class Machines:
    """A worker's monotonic clock, and an operator's wall clock that is `offset` ahead and drifts."""

    def __init__(self, offset: float, drift: float = 0.0) -> None:
        self.now = 1_000.0
        self.offset = offset
        self.drift = drift
        self.clock = OperatorClock()

    @property
    def true_offset(self) -> float:
        return self.offset + self.drift * (self.now - 1_000.0)

    def exchange(self, there: float, answering: float, back: float, *, jump: float = 0.0) -> bool:
        """A request that takes `there` seconds, is worked on (and the operator's clock jumps), and is answered."""
        sent = self.now
        self.now += there
        received_us = int((self.now + self.true_offset) * 1e6)
        self.now += answering
        self.offset += jump
        answered_us = int((self.now + self.true_offset) * 1e6)
        self.now += back
        return self.clock.exchange(sent=sent, received_us=received_us, answered_us=answered_us, got=self.now)

    def wrong_by(self) -> tuple[float, float]:
        """By how much the estimate is wrong, and by how much it says that it may be."""
        known = self.clock.estimate(self.now)
        assert known is not None
        return abs(known[0] - self.true_offset), known[1]


delays = st.floats(0.000_05, 0.5)
exchanges = st.lists(
    st.tuples(delays, st.floats(0, 20.0), delays, st.floats(0, 30.0)),
    min_size=1,
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(exchanges, st.floats(-(10**6), 10**6), st.floats(-DRIFT, DRIFT))
def test_the_estimate_is_never_more_wrong_than_it_says(exchanged, offset, drift):
    machines = Machines(WALL + offset, drift)
    quickest, age = inf, 0.0
    for there, answering, back, pause in exchanged:
        assert machines.exchange(there, answering, back)
        machines.now += pause
        age += there + answering + back + pause
        quickest = min(quickest, there + back)
        wrong, error = machines.wrong_by()
        assert wrong <= error + 3e-6
        # Delays that are not alike both ways make it no worse than half the quickest round trip, and the drift since.
        assert error <= quickest / 2 + 2 * DRIFT * age + 3e-6


def test_slow_exchanges_do_not_spoil_what_quick_ones_taught():
    machines = Machines(WALL)
    chance = random.Random(5)
    for _ in range(200):
        quick = chance.random() < 0.1
        machines.exchange(0.0002 if quick else chance.uniform(0.001, 0.2), 0.01, chance.uniform(0.0002, 0.1))
    wrong, error = machines.wrong_by()
    assert wrong <= error < 0.001


def test_what_is_known_ages():
    machines = Machines(WALL)
    machines.exchange(0.0002, 0, 0.0002)
    machines.now += 100
    assert machines.wrong_by()[1] == pytest.approx(0.0002 + 100 * DRIFT, rel=0.01)


@pytest.mark.parametrize("jump", [-3600.0, -0.5, 0.5, 3600.0])
def test_a_jump_of_the_operators_clock_is_noticed_by_the_next_exchange(jump):
    machines = Machines(WALL)
    for _ in range(5):
        machines.exchange(0.001, 0.01, 0.001)
    machines.offset += jump
    assert not machines.exchange(0.002, 0.01, 0.002)
    wrong, error = machines.wrong_by()
    assert wrong <= error <= 0.003


def test_a_jump_ahead_while_a_pull_waits_leaves_nothing_known_until_the_next_exchange():
    machines = Machines(WALL)
    machines.exchange(0.001, 0.01, 0.001)
    assert not machines.exchange(0.001, 10, 0.001, jump=60)
    assert machines.clock.estimate(machines.now) is None
    assert machines.exchange(0.001, 0.01, 0.001)
    assert machines.wrong_by()[0] < 0.002


def test_an_operator_that_does_not_tell_the_time_teaches_nothing():
    clock = OperatorClock()
    assert clock.exchange(sent=1.0, received_us=0, answered_us=0, got=1.1)
    assert clock.estimate(2.0) is None


def test_jumps_are_told_once_a_minute(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = [1_000.0]
    monkeypatch.setattr("tickwheel._leader_clock.monotonic", lambda: now[0])
    clock = LeaderClock()
    # A clock that is slewed by 500 ppm, as NTP does it, contradicts what was known again and again.
    for _ in range(1_300):
        now[0] += 0.1
        told_us = int((WALL + now[0] * 1.0005) * 1e6)
        clock.learn(PullAnswer(epoch=1, now_ms=0, received_us=told_us, answered_us=told_us), now[0] - 0.0001, "there")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3, told
    assert told[0] == "the clock of there jumped, or ours did not run evenly: its offset is measured anew"


async def until_known(operator, good):
    """The clock that the last pull told, once it is as good as that."""
    await operator.until(lambda: operator.pulls and (clock := operator.pulls[-1].clock) is not None and good(clock))
    return operator.pulls[-1].clock


async def test_a_pull_tells_the_offset_once_it_is_known(operator, start):
    operator.clock_ahead_s = 7.5
    await start({"h": lambda ctx: 1}, pull_wait=0.05)
    # An exchange with a pause in it teaches little.
    known = await until_known(operator, lambda clock: clock.error_us < 100_000)
    assert operator.pulls[0].clock is None
    assert abs(known.offset_us + 7_500_000) <= known.error_us + 2_000
    assert known.error_us > 0


async def test_the_workers_own_clock_may_jump(operator, start, monkeypatch):
    await start({"h": lambda ctx: 1}, pull_wait=0.05)
    await operator.until(lambda: len(operator.pulls) > 3)
    real = time.time_ns
    monkeypatch.setattr("tickwheel._link.time_ns", lambda: real() + 3600 * 10**9)
    await until_known(operator, lambda clock: abs(clock.offset_us - 3600e6) < 100_000 and clock.error_us < 100_000)


async def test_another_leader_is_another_clock(operator, start):
    await start({"h": lambda ctx: 1}, pull_wait=0.05)
    await operator.until(lambda: len(operator.pulls) > 3)
    operator.clock_ahead_s = None  # so that nothing is learnt from the new one
    operator.move_leader()
    await operator.until(lambda: len(operator.pulls) > 5 and operator.pulls[-1].epoch == 2)
    assert operator.pulls[-1].clock is None


async def test_another_epoch_is_another_clock(operator, start):
    await start({"h": lambda ctx: 1}, pull_wait=0.05)
    await operator.until(lambda: len(operator.pulls) > 3 and operator.pulls[-1].clock is not None)
    operator.clock_ahead_s = None
    operator.epoch += 1
    await operator.until(lambda: operator.pulls[-1].epoch == 2)
    assert operator.pulls[-1].clock is None
