"""Whose token it is: what the caches hold, what a stranger may cost, and who goes on while the API server is away."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from tests.unit.identity.table import NOW_MS, SOURCE, SlowReviewer, jwt, refused, settled

from tickwheel_operator.identity.callers import PrincipalKind, StaticTokenAuthenticator
from tickwheel_operator.identity.refusal import Reason
from tickwheel_operator.identity.token_review import TokenReviewAuthenticator


def test_an_empty_static_token_is_refused():
    with pytest.raises(ValueError, match="empty"):
        StaticTokenAuthenticator("")


async def test_a_user_token_that_claims_a_pod_has_none(authenticator, reviewer):
    """Only of a ServiceAccount does the API server say it: of another user, anybody may have said so."""
    reviewer.users["human"], reviewer.pods["human"] = "alice", "own-1"
    principal = await authenticator.authenticate(jwt("human"), SOURCE)
    assert (principal.pod, principal.pod_uid) == ("", "")


async def test_a_refused_token_is_told_by_its_own_words_which_are_marked_and_cut_short(authenticator):
    claims = {
        "exp": NOW_MS / 1000 - 90,
        "aud": ["tickwheel"],
        "kubernetes.io": {"namespace": "shops", "pod": {"name": "a\n" + "x" * 500}, "serviceaccount": {"name": "w"}},
    }
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    detail = (await refused(authenticator.authenticate(f"x.{payload}.y", SOURCE))).detail
    assert "expired 90 s ago" in detail and "as it says itself" in detail
    assert "pod shops/a?" in detail and "x" * 63 not in detail
    claims = {"aud": "https://kubernetes.default.svc", "exp": NOW_MS / 1000 + 90}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    problem = await refused(authenticator.authenticate(f"x.{payload}.y", SOURCE))
    assert "(it says it is for https://kubernetes.default.svc)" in problem.detail


@pytest.mark.parametrize("claims", ['{"exp":1e308}', '{"exp":-1}', '{"aud":[1]}', "[" * 5_000, '{"kubernetes.io":3}'])
async def test_a_token_with_odd_claims_is_refused_like_any_other(authenticator, claims):
    payload = base64.urlsafe_b64encode(claims.encode()).decode()
    assert (await refused(authenticator.authenticate(f"x.{payload}.y", SOURCE))).reason is Reason.INVALID_TOKEN


# --- the caches ------------------------------------------------------------------------------------------------------


async def test_a_good_token_is_asked_about_once_a_minute(authenticator, reviewer, clock):
    for elapsed, asked in [(0, 1), (0, 1), (59_999, 1), (60_000, 2), (119_999, 2)]:
        clock.elapsed_ms = elapsed
        principal = await authenticator.authenticate(jwt("good"), SOURCE)
        assert len(reviewer.asked) == asked
    assert (principal.kind, principal.namespace, principal.account) == (
        PrincipalKind.SERVICE_ACCOUNT,
        "shops",
        "shop-worker",
    )


async def test_a_good_token_is_not_remembered_beyond_its_expiry(authenticator, reviewer, clock):
    token = jwt("good", NOW_MS + 20_000)
    await authenticator.authenticate(token, SOURCE)
    clock.elapsed_ms = 19_999
    await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 1
    clock.elapsed_ms = 20_000
    del reviewer.users["good"]
    assert (await refused(authenticator.authenticate(token, SOURCE))).reason is Reason.INVALID_TOKEN


async def test_a_token_without_an_expiry_is_remembered_a_minute(authenticator, reviewer, clock):
    token = jwt("good", exp=None)
    await authenticator.authenticate(token, SOURCE)
    clock.elapsed_ms = 59_999
    await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 1


async def test_a_refused_token_is_asked_about_again_after_five_seconds(authenticator, reviewer, clock):
    assert (await refused(authenticator.authenticate(jwt("late"), SOURCE))).reason is Reason.INVALID_TOKEN
    reviewer.users["late"] = "system:serviceaccount:shops:shop-worker"
    clock.elapsed_ms = 4_999
    assert (await refused(authenticator.authenticate(jwt("late"), SOURCE))).reason is Reason.INVALID_TOKEN
    assert len(reviewer.asked) == 1
    clock.elapsed_ms = 5_000
    assert (await authenticator.authenticate(jwt("late"), SOURCE)).account == "shop-worker"


async def test_an_api_server_that_cannot_be_asked_refuses_nobody_for_good(authenticator, reviewer):
    reviewer.down = True
    problem = await refused(authenticator.authenticate(jwt("good"), SOURCE))
    assert problem.reason is Reason.CANNOT_BE_CHECKED
    reviewer.down = False
    assert (await authenticator.authenticate(jwt("good"), SOURCE)).account == "shop-worker"


@pytest.mark.parametrize("audiences", [(), ("https://kubernetes.default.svc",)])
async def test_a_token_of_another_audience_is_refused(authenticator, reviewer, audiences):
    reviewer.audiences = audiences
    problem = await refused(authenticator.authenticate(jwt("good"), SOURCE))
    assert problem.reason is Reason.WRONG_AUDIENCE and "not for audience `tickwheel`" in problem.detail


async def test_the_absence_of_a_token_is_not_asked_about(authenticator, reviewer):
    assert (await refused(authenticator.authenticate("", SOURCE))).reason is Reason.NO_TOKEN
    assert reviewer.asked == []


async def test_many_requests_with_one_new_token_ask_about_it_few_times(authenticator, reviewer):
    await asyncio.gather(*(authenticator.authenticate(jwt("good"), SOURCE) for _ in range(500)))
    assert len(reviewer.asked) <= 16


async def test_a_flood_of_bad_tokens_does_not_push_good_ones_out(reviewer, owners, clock):
    authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, cache_size=10, clock=clock)
    await authenticator.authenticate(jwt("good"), SOURCE)
    for number in range(50):
        await refused(authenticator.authenticate(jwt(f"bad-{number}"), SOURCE))
    await authenticator.authenticate(jwt("good"), SOURCE)
    assert reviewer.asked.count("good") == 1
    assert len(authenticator._refused._entries) == 10


@pytest.mark.parametrize(
    "username", ["system:serviceaccount:", "system:serviceaccount:shops", "system:serviceaccount::x", "shops:x"]
)
async def test_a_username_that_only_looks_like_an_account_is_none(authenticator, reviewer, username):
    reviewer.users["odd"] = username
    assert (await authenticator.authenticate(jwt("odd"), SOURCE)).kind is PrincipalKind.USER


# --- what a stranger costs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "reason", "words"),
    [
        ("opaque", Reason.INVALID_TOKEN, "is no ServiceAccount token"),
        ("a.b", Reason.INVALID_TOKEN, "is no ServiceAccount token"),
        ("a.!.c", Reason.INVALID_TOKEN, "is no ServiceAccount token"),
        ("good..x", Reason.INVALID_TOKEN, "is no ServiceAccount token"),
        ("good.bm90IGpzb24.x", Reason.INVALID_TOKEN, "is no ServiceAccount token"),
        (jwt("good", aud="vault"), Reason.WRONG_AUDIENCE, "not for audience `tickwheel` (it says it is for vault)"),
        (jwt("good", aud=[]), Reason.INVALID_TOKEN, "does not accept"),
        (jwt("good", NOW_MS - 60_000), Reason.INVALID_TOKEN, "expired 60 s ago"),
    ],
)
async def test_what_cannot_be_a_token_of_ours_is_refused_without_a_review(
    authenticator, reviewer, token, reason, words
):
    problem = await refused(authenticator.authenticate(token, SOURCE))
    assert problem.reason is reason and words in problem.detail
    assert reviewer.asked == []


async def test_a_token_that_has_just_expired_by_the_operators_clock_is_asked_about(authenticator, reviewer):
    """That clock may be ahead of the API server's."""
    assert (await authenticator.authenticate(jwt("good", NOW_MS - 59_000), SOURCE)).account == "shop-worker"


async def test_a_flood_of_forged_tokens_from_one_address_delays_no_other_and_is_cut_off(owners, clock):
    reviewer = SlowReviewer()
    authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, clock=clock)
    flood = [asyncio.create_task(refused(authenticator.authenticate(jwt(f"f{n}"), "6.6.6.6"))) for n in range(500)]
    await settled()
    good = asyncio.create_task(authenticator.authenticate(jwt("good"), SOURCE))
    await settled()
    assert reviewer.most == 9, "eight of the flood, and the good one at once"
    reviewer.gate.set()
    assert (await good).account == "shop-worker"
    problems = await asyncio.gather(*flood)
    assert {problem.reason for problem in problems} == {Reason.INVALID_TOKEN, Reason.TOO_MANY}
    assert sum(problem.reason is Reason.INVALID_TOKEN for problem in problems) <= 100 + 8
    assert (await refused(authenticator.authenticate(jwt("once more"), "6.6.6.6"))).reason is Reason.TOO_MANY
    asked = len(reviewer.asked)
    clock.elapsed_ms += 60_000
    await refused(authenticator.authenticate(jwt("later"), "6.6.6.6"))
    assert len(reviewer.asked) == asked + 1


# --- while the API server cannot be asked ----------------------------------------------------------------------------


async def test_callers_that_were_accepted_go_on_through_an_outage_of_reviews_for_ten_minutes(
    authenticator, reviewer, clock, caplog
):
    token = jwt("good")
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    for elapsed in (60_000, 300_000, 599_999):
        clock.elapsed_ms = elapsed
        assert (await authenticator.authenticate(token, SOURCE)).account == "shop-worker"
    assert (await refused(authenticator.authenticate(jwt("human"), SOURCE))).reason is Reason.CANNOT_BE_CHECKED, (
        "nobody new"
    )
    assert len([r for r in caplog.records if "go on for up to 600 s" in r.getMessage()]) == 3
    clock.elapsed_ms = 600_000
    assert (await refused(authenticator.authenticate(token, SOURCE))).reason is Reason.CANNOT_BE_CHECKED


async def test_an_outage_is_not_asked_about_for_each_caller(authenticator, reviewer, clock):
    token = jwt("good")
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    clock.elapsed_ms = 60_000
    for _ in range(50):
        await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 2
    reviewer.down = False
    clock.elapsed_ms += 5_000
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    clock.elapsed_ms += 59_999
    await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 3, "it was accepted again, for a minute"


async def test_a_review_that_hangs_does_not_hold_up_who_was_accepted(owners, clock):
    reviewer = SlowReviewer()
    authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, patience_s=0.01, clock=clock)
    reviewer.gate.set()
    await authenticator.authenticate(jwt("good"), SOURCE)
    reviewer.gate.clear()
    clock.elapsed_ms = 60_000
    assert (await authenticator.authenticate(jwt("good"), SOURCE)).account == "shop-worker"


async def test_a_token_that_is_refused_after_an_outage_is_out_at_once(authenticator, reviewer, clock):
    token = jwt("good")
    await authenticator.authenticate(token, SOURCE)
    del reviewer.users["good"]
    clock.elapsed_ms = 60_000
    assert (await refused(authenticator.authenticate(token, SOURCE))).reason is Reason.INVALID_TOKEN
    reviewer.down = True
    clock.elapsed_ms += 5_000
    assert (await refused(authenticator.authenticate(token, SOURCE))).reason is Reason.CANNOT_BE_CHECKED


async def test_no_outage_keeps_a_token_beyond_its_end(authenticator, reviewer, clock):
    token = jwt("good", NOW_MS + 90_000)
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    clock.elapsed_ms = 89_999
    await authenticator.authenticate(token, SOURCE)
    clock.elapsed_ms = 90_000
    await refused(authenticator.authenticate(token, SOURCE))
