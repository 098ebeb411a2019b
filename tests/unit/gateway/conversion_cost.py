"""What the gateway's hot paths cost, in microseconds: `PYTHONPATH=. python tests/unit/gateway/conversion_cost.py`.

Not a test: a time is a figure for a comment, never an assertion.
"""

from __future__ import annotations

import asyncio
import timeit
from collections.abc import Callable

import msgspec
from tests.unit.gateway.scripted import NOW_MS, WORKER, delivery

from tickwheel_operator.engine.messages import Pulled
from tickwheel_operator.gateway import convert
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.identity.callers import PoolAccess
from tickwheel_operator.identity.pod_owners import PoolOwner
from tickwheel_operator.identity.reviewer import Review
from tickwheel_operator.identity.token_review import TokenReviewAuthenticator

BATCH = 200


class _Everybody:
    async def review_token(self, token: str, audience: str) -> Review:
        prefix = "authentication.kubernetes.io/pod"
        return Review(
            authenticated=True,
            username="system:serviceaccount:shops:w",
            audiences=(audience,),
            extra=((f"{prefix}-name", ("shops-0",)), (f"{prefix}-uid", ("u",))),
        )

    async def may_create_runs(self, principal: object, namespace: str) -> tuple[bool, str]:
        return True, ""


class _Owned:
    async def owner(self, namespace: str, pod: str, pod_uid: str) -> PoolOwner | None:
        return PoolOwner("shops", "p")


def _show(name: str, work: Callable[[], object], per: int) -> None:
    count = 500
    best = min(timeit.repeat(work, number=count, repeat=7)) / count / per * 1e6
    print(f"{name:45} {best:8.3f} us")


def main() -> None:
    pulled = Pulled(request=1, deliveries=[delivery(10**6 + number) for number in range(BATCH)])

    def answer() -> bytes:
        return convert.encode(convert.pull_answer(pulled, epoch=3, now_ms=NOW_MS, lease_ms=15_000))

    _show("pull answer of 200, per lease", answer, BATCH)
    ready = convert.pull_answer(pulled, epoch=3, now_ms=NOW_MS, lease_ms=15_000)
    _show("  of it the encoder", lambda: convert.encode(ready), BATCH)
    config = GatewayConfig()
    plain = msgspec.json.encode({"worker": WORKER, "succeeded": list(range(10**6, 10**6 + BATCH))})
    results = msgspec.json.encode(
        {"worker": WORKER, "results": [{"token": number, "value": {"count": 3}} for number in range(BATCH)]}
    )
    for name, body in (("report, per token", plain), ("report, per result", results)):
        _show(
            name,
            lambda body=body: convert.report_command(convert.decode_report(body), request=1, config=config),
            BATCH,
        )
    access = PoolAccess(uid="p", has_template=True, accounts=frozenset())
    authenticator = TokenReviewAuthenticator(_Everybody(), lambda namespace, pool: access, _Owned())
    token = "t" * 1_000

    async def authenticate() -> None:
        for _ in range(BATCH):
            principal = await authenticator.authenticate(token, "127.0.0.1")
            await authenticator.check_worker(principal, "shops", "shops", "shops-0")

    _show("authentication of a known token", lambda: asyncio.run(authenticate()), BATCH)


if __name__ == "__main__":
    main()
