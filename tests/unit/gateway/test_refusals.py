"""One line for each reason and caller a minute, in bounds; every refusal is counted."""

from __future__ import annotations

import logging

import pytest

from tickwheel_operator.gateway.refusals import Refusals
from tickwheel_operator.identity.refusal import Reason


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def refusals(now, caplog) -> Refusals:
    caplog.set_level(logging.WARNING)
    return Refusals(lambda: now[0])


def note(refusals: Refusals, who: str, reason: Reason = Reason.WRONG_AUDIENCE, *, peer: str = "10.0.0.1") -> None:
    refusals.note(reason, "the detail", peer=peer, what="POST '/v1/pull'", who=who)


def test_the_same_caller_is_named_once_a_minute_with_how_often_it_was_refused(refusals, now, caplog):
    for second in range(0, 90, 10):
        now[0] = float(second)
        note(refusals, "shops/a")
    assert refusals.counts["WrongAudience"] == 9
    assert [record.getMessage() for record in caplog.records] == [
        "refused POST '/v1/pull' from 10.0.0.1: WrongAudience: the detail",
        "refused POST '/v1/pull' from 10.0.0.1: WrongAudience: the detail (5 more times in the minute before)",
    ]


def test_another_caller_and_another_reason_have_lines_of_their_own(refusals, caplog):
    note(refusals, "shops/a")
    note(refusals, "shops/b")
    note(refusals, "shops/b", Reason.INVALID_TOKEN)
    note(refusals, "shops/b")
    assert len(caplog.records) == 3


def test_a_flood_of_callers_is_counted_and_not_written(refusals, now, caplog):
    for number in range(10_000):
        note(refusals, f"pod-{number}", peer=f"10.0.0.{number % 250}")
    assert len(caplog.records) == 201 and "only counted" in caplog.records[-1].getMessage()
    assert refusals.counts["WrongAudience"] == 10_000
    assert len(refusals._told) == 200
    now[0] = 60.0
    note(refusals, "pod-9999")
    assert len(caplog.records) == 202


def test_one_address_that_makes_up_callers_does_not_hide_those_of_others(refusals, now, caplog):
    for number in range(10_000):
        note(refusals, f"made-up-{number}", peer="6.6.6.6")
    assert len(caplog.records) == 21 and "of 6.6.6.6 within a minute" in caplog.records[-1].getMessage()
    note(refusals, "shops/a")
    assert len(caplog.records) == 22
    now[0] = 60.0
    note(refusals, "made-up-1", peer="6.6.6.6")
    assert len(caplog.records) == 23


def test_the_last_refusal_of_an_address_is_known_for_two_minutes(refusals, now):
    note(refusals, "shops/a", Reason.INVALID_TOKEN, peer="::ffff:10.0.0.1")
    now[0] = 1.0
    note(refusals, "shops/a", Reason.HANDSHAKE, peer="10.0.0.2")
    assert refusals.latest({"10.0.0.1"}) == ("InvalidToken", "the detail")
    assert refusals.latest({"10.0.0.1", "10.0.0.2"}) == ("HandshakeFailed", "the detail")
    assert refusals.latest({"10.0.0.3"}) is None
    now[0] = 122.0
    assert refusals.latest({"10.0.0.1", "10.0.0.2"}) is None


def test_refusals_of_very_many_addresses_stay_in_bounds(refusals):
    for number in range(3_000):
        note(refusals, "", peer=f"10.0.{number // 250}.{number % 250}")
    assert refusals.latest({"10.0.0.0"}) is None
    assert refusals.latest({"10.0.11.249"}) is not None
