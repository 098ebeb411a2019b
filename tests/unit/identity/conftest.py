from __future__ import annotations

import pytest
from tests.unit.identity.table import POOLS, FakeOwners, FakeReviewer, ManualClock

from tickwheel_operator.identity.token_review import TokenReviewAuthenticator


@pytest.fixture
def owners() -> FakeOwners:
    return FakeOwners()


@pytest.fixture
def reviewer() -> FakeReviewer:
    return FakeReviewer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authenticator(reviewer, owners, clock) -> TokenReviewAuthenticator:
    return TokenReviewAuthenticator(reviewer, lambda namespace, pool: POOLS.get((namespace, pool)), owners, clock=clock)
