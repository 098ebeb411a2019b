"""Who may submit runs: what is remembered, and what a stranger may cost."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.identity.table import SlowReviewer, jwt, refused, settled

from tickwheel_operator.identity.callers import Principal, PrincipalKind
from tickwheel_operator.identity.permission import SubjectAccessAuthorizer
from tickwheel_operator.identity.refusal import Reason
from tickwheel_operator.identity.token_review import TokenReviewAuthenticator


async def test_two_tokens_of_one_user_with_other_groups_are_authorized_apart(reviewer, clock):
    authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
    for groups in (("a",), ("b",)):
        principal = Principal(username="alice", kind=PrincipalKind.USER, groups=groups)
        await authorizer.check_submit(principal, "shops")
    assert len(reviewer.asked) == 2


@pytest.mark.parametrize("home", ["elsewhere", "shops"], ids=["of another namespace", "of the same namespace"])
async def test_a_caller_that_asks_about_namespaces_it_makes_up_delays_no_other_and_is_cut_off(clock, home):
    reviewer = SlowReviewer()
    authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
    reviewer.allowed = False
    intruder = Principal(username="intruder", kind=PrincipalKind.SERVICE_ACCOUNT, namespace=home)
    submitter = Principal(username="submitter", kind=PrincipalKind.SERVICE_ACCOUNT, namespace="shops")
    flood = [asyncio.create_task(refused(authorizer.check_submit(intruder, f"made-up-{n}"))) for n in range(500)]
    await settled()
    good = asyncio.create_task(refused(authorizer.check_submit(submitter, "shops")))
    await settled()
    assert reviewer.at_once == (9 if home == "elsewhere" else 8)
    reviewer.gate.set()
    assert (await good).reason is Reason.NOT_PERMITTED, "which is its answer: nobody is permitted anything here"
    asked = reviewer.asked.index("submitter in shops")
    assert asked <= 16, "it was next, though hundreds waited"
    problems = await asyncio.gather(*flood)
    assert {problem.reason for problem in problems} == {Reason.NOT_PERMITTED, Reason.TOO_MANY}
    assert sum(problem.reason is Reason.NOT_PERMITTED for problem in problems) <= 100 + 8
    assert (await refused(authorizer.check_submit(intruder, "one-more"))).reason is Reason.TOO_MANY
    assert authorizer._accounts == {}


async def test_no_more_than_sixteen_reviews_of_each_kind_are_asked_at_once_by_however_many(owners, clock):
    for kind in ("tokens", "permissions"):
        reviewer = SlowReviewer()
        authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, clock=clock)
        authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
        callers = []
        for n in range(300):
            stranger = Principal(username=f"u{n % 30}", kind=PrincipalKind.SERVICE_ACCOUNT, namespace=f"n{n % 30}")
            asked = (
                authenticator.authenticate(jwt(f"x{n}"), f"10.0.0.{n % 30}")
                if kind == "tokens"
                else authorizer.check_submit(stranger, f"made-up-{n}")
            )
            callers.append(asyncio.create_task(asked))
        await settled()
        assert reviewer.at_once == 16
        reviewer.gate.set()
        await asyncio.gather(*callers, return_exceptions=True)
        assert reviewer.most == 16 and len(reviewer.asked) == 300
