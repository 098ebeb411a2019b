"""Callers, pods and pools from tables, and a clock that stands still: what tests of who is calling stand on."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager

import pytest

from tickwheel_operator.identity.callers import PoolAccess, Principal
from tickwheel_operator.identity.pod_owners import OwnerUnknown, PoolOwner
from tickwheel_operator.identity.refusal import Refused
from tickwheel_operator.identity.reviewer import Review, ReviewUnavailable

NOW_MS = 1_790_000_000_000
SOURCE = "10.0.0.7"
POOLS = {
    ("shops", "shops"): PoolAccess(uid="u-shops", has_template=False, accounts=frozenset({"shop-worker"})),
    ("shops", "open"): PoolAccess(uid="u-open", has_template=False, accounts=frozenset()),
    ("shops", "own"): PoolAccess(uid="u-own", has_template=True, accounts=frozenset()),
    ("shops", "strict"): PoolAccess(uid="u-strict", has_template=True, accounts=frozenset({"other"})),
}


class ManualClock:
    """Both clocks stand still until a test moves them."""

    def __init__(self) -> None:
        self.elapsed_ms = 0

    def now_ms(self) -> int:
        return NOW_MS + self.elapsed_ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return self.elapsed_ms


class FakeReviewer:
    """Implements `Reviewer` from a table; `KubernetesReviewer` is tested against HTTP in `test_reviewer`."""

    def __init__(self) -> None:
        self.users = {"good": "system:serviceaccount:shops:shop-worker", "human": "alice"}
        self.audiences: tuple[str, ...] = ("tickwheel",)
        self.pods = {"in-own": "own-1", "in-open": "open-1", "in-none": "none-1", "in-strict": "strict-1"}
        self.users.update(dict.fromkeys(self.pods, self.users["good"]))
        self.allowed = True
        self.down = False
        self.asked: list[str] = []

    async def review_token(self, token: str, audience: str) -> Review:
        name = token.split(".")[0]
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.down:
            raise ReviewUnavailable("the API server could not be reached to create a TokenReview: OSError")
        username = self.users.get(name)
        if username is None:
            return Review(authenticated=False)
        pod = self.pods.get(name)
        prefix = "authentication.kubernetes.io/pod"
        extra = ((f"{prefix}-name", (pod,)), (f"{prefix}-uid", (f"uid-of-{pod}",))) if pod else ()
        return Review(authenticated=True, username=username, groups=("g",), audiences=self.audiences, extra=extra)

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        self.asked.append(f"{principal.username} in {namespace}")
        if self.down:
            raise ReviewUnavailable("the API server could not be reached to create a SubjectAccessReview: OSError")
        return self.allowed, "" if self.allowed else "no rule"


class SlowReviewer(FakeReviewer):
    """Answers when its test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.at_once = self.most = 0

    async def review_token(self, token: str, audience: str) -> Review:
        async with self._counted():
            return await super().review_token(token, audience)

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        async with self._counted():
            return await super().may_create_runs(principal, namespace)

    @asynccontextmanager
    async def _counted(self):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.gate.wait()
            yield
        finally:
            self.at_once -= 1


class FakeOwners:
    """Implements `Owners` from a table; `PodOwners` is tested in `test_pod_owners`."""

    def __init__(self) -> None:
        self.owners: dict[str, PoolOwner | None] = {
            "uid-of-own-1": PoolOwner("own", "u-own"),
            "uid-of-open-1": PoolOwner("open", "u-open"),
            "uid-of-none-1": None,
            "uid-of-strict-1": PoolOwner("strict", "u-strict"),
        }
        self.down = False

    async def owner(self, namespace: str, pod: str, pod_uid: str) -> PoolOwner | None:
        if self.down:
            raise OwnerUnknown(f"cannot look up the owner of Pod {namespace}/{pod}")
        return self.owners[pod_uid]


def jwt(user: str, expires_ms: int = NOW_MS + 3_600_000, **claims) -> str:
    said = {"exp": expires_ms / 1000, "aud": ["tickwheel"], **claims}
    return f"{user}.{base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b'=').decode()}.signature"


async def refused(awaitable) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaitable
    return caught.value


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
