"""Permission to submit runs, by Kubernetes RBAC: asked by a SubjectAccessReview, and remembered for seconds.

Whoever has a token may ask about any namespace, also about one that does not exist, so answers are asked for in fair
turns, and whoever was refused often waits. Invariant: nothing is granted that the API server did not grant at most
`cache_s` ago.
"""

from __future__ import annotations

import hashlib

import msgspec

from tickwheel_operator.clock import Clock, SystemClock
from tickwheel_operator.identity.answers import Answers
from tickwheel_operator.identity.callers import Principal
from tickwheel_operator.identity.refusal import Reason, Refused
from tickwheel_operator.identity.reviewer import Reviewer, ReviewUnavailable
from tickwheel_operator.turns import Allowance, Crowded, Turns

__all__ = ["SubjectAccessAuthorizer"]

_CONCURRENT = 16
"""How many reviews are asked of the API server at once."""
_OF_ONE = 8
"""How many of these for callers of one namespace."""
_WAITING = 2_000
_REFUSED_PER_S = 10.0
_REFUSED_BURST = 100


class SubjectAccessAuthorizer:
    """Whoever may create TaskRuns in a namespace may submit runs there."""

    def __init__(
        self,
        reviewer: Reviewer,
        *,
        cache_s: float = 10.0,
        refused_cache_s: float = 5.0,
        cache_size: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        self._reviewer = reviewer
        self._cache_ms = int(cache_s * 1000)
        self._refused_cache_ms = int(refused_cache_s * 1000)
        self._clock = clock or SystemClock()
        self._allowed: Answers[str] = Answers(cache_size)
        # Apart from the permissions, so that a flood of refusals cannot push them out.
        self._refused: Answers[str] = Answers(cache_size)
        self._turns = Turns(_CONCURRENT, most_of_one=_OF_ONE, waiting=_WAITING)
        self._accounts: dict[str, Turns] = {}
        """By the callers' namespace, while any of them asks or waits."""
        self._allowance = Allowance(per_s=_REFUSED_PER_S, burst=_REFUSED_BURST)

    async def check_submit(self, principal: Principal, namespace: str) -> None:
        # All that RBAC decides by is in the key: two tokens of one user may differ in groups and extra.
        key = hashlib.sha256(msgspec.json.encode((namespace, principal))).digest()
        if self._allowed.get(key, self._clock.boot_ms()) is not None:
            return
        self._check_allowance(principal)
        try:
            reason = await self._in_turn(principal, namespace, key)
        except Crowded:
            raise Refused(
                Reason.CANNOT_BE_CHECKED,
                "the permission cannot be checked now: too many callers wait for the API server's answer",
                who=principal.username,
            ) from None
        if reason is not None:
            raise Refused(
                Reason.NOT_PERMITTED,
                f"{principal.username} may not create taskruns.tickwheel.io in namespace {namespace!r}"
                f"{': ' + reason if reason else ''}; grant it by a Role with `apiGroups: [tickwheel.io], resources: "
                "[taskruns], verbs: [create]` and a RoleBinding",
                who=f"{principal.username} {namespace}",
            )

    def _check_allowance(self, principal: Principal) -> None:
        if not self._allowance.is_left(principal.username, self._clock.boot_ms()):
            raise Refused(
                Reason.TOO_MANY,
                f"{principal.username} was refused too often: after {_REFUSED_BURST} refusals it may ask "
                f"{_REFUSED_PER_S:g} times a second",
                who=principal.username,
            )

    async def _in_turn(self, principal: Principal, namespace: str, key: bytes) -> str | None:
        """Fair between the callers' own namespaces, since a caller may name as many others as it likes, and between
        the accounts of each."""
        home = principal.namespace or principal.username
        accounts = self._accounts.setdefault(home, Turns(_OF_ONE, most_of_one=_OF_ONE, waiting=_WAITING))
        try:
            async with accounts.of(principal.username), self._turns.of(home):
                return await self._review(principal, namespace, key)
        finally:
            if accounts.is_idle:
                self._accounts.pop(home, None)

    async def _review(self, principal: Principal, namespace: str, key: bytes) -> str | None:
        """None: it is permitted; else the API server's reason, which may be empty."""
        boot_ms = self._clock.boot_ms()
        # Another request of the same caller may have been before this one in the queue.
        if self._allowed.get(key, boot_ms) is not None:
            return None
        if (refused := self._refused.get(key, boot_ms)) is not None:
            return refused
        self._check_allowance(principal)  # those that wait spend it too
        try:
            allowed, reason = await self._reviewer.may_create_runs(principal, namespace)
        except ReviewUnavailable as error:
            raise Refused(
                Reason.CANNOT_BE_CHECKED, f"the permission cannot be checked now: {error}", who=principal.username
            ) from None
        if allowed:
            self._allowed.put(key, reason, boot_ms + self._cache_ms)
            return None
        self._allowance.spend(principal.username, boot_ms)
        self._refused.put(key, reason, boot_ms + self._refused_cache_ms)
        return reason
