"""Authentication by Kubernetes: TokenReview, what it costs, and what is remembered of it.

A worker presents the token that kubelet projects into its pod, of audience `tickwheel`, so that it is of no use
against the API server. Who holds it is asked of the API server and remembered for seconds. Caches are keyed by the
token's hash, are bounded, and never outlive the token; tokens themselves are not kept. Which of them may speak for
which pool is `identity.pool_rules`.

Whoever reaches the port may send tokens, so a review is asked only of what can be a ServiceAccount's token, in fair
turns by address, and of an address whose tokens were refused often only at a bounded rate.

Invariants: nobody is let in whom the API server did not accept before; it did so at most `cache_s` ago, or, while it
cannot be asked, at most `outage_s` ago. Whoever is not known yet is not let in meanwhile (503, not 401: the worker is
to try again, not to give up).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging

from tickwheel_operator.clock import Clock, SystemClock
from tickwheel_operator.identity.answers import Answers
from tickwheel_operator.identity.callers import Principal, PrincipalKind
from tickwheel_operator.identity.claims import Claims, read_claims
from tickwheel_operator.identity.pool_rules import Owners, PoolRules, Pools
from tickwheel_operator.identity.refusal import Reason, Refused
from tickwheel_operator.identity.reviewer import Review, Reviewer, ReviewUnavailable
from tickwheel_operator.turns import Allowance, Crowded, Turns

__all__ = ["TokenReviewAuthenticator"]

_log = logging.getLogger(__name__)
_ACCOUNT_PREFIX = "system:serviceaccount:"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_CONCURRENT = 16
"""How many reviews are asked of the API server at once: a restart brings all workers together. As many again for
callers that are known."""
_OF_ONE = 8
"""How many of these for one address, or one account that is known."""
_WAITING = 2_000
_REFUSED_PER_S = 20.0
_REFUSED_BURST = 100
_PATIENCE_S = 2.0
"""How long a caller that was accepted before waits for the next review: its work must be renewed within seconds."""
_OUTAGE_PAUSE_MS = 5_000
"""After a review that failed, those who were accepted before are not asked about."""
_OUTAGE_QUIET_MS = 30_000
"""An outage is logged once: when there was none for so long."""
_SKEW_MS = 60_000
"""How far the operator's clock may be ahead before a token that is good is refused as expired."""


class TokenReviewAuthenticator:
    """Kubernetes tokens. A hit in the cache costs one hash of the token, about 2 us with the rest."""

    def __init__(
        self,
        reviewer: Reviewer,
        pools: Pools,
        owners: Owners,
        *,
        audience: str = "tickwheel",
        cache_s: float = 60.0,
        outage_s: float = 600.0,
        refused_cache_s: float = 5.0,
        cache_size: int = 20_000,
        patience_s: float = _PATIENCE_S,
        clock: Clock | None = None,
    ) -> None:
        """Good tokens are remembered for `cache_s` or until they expire, refused ones for `refused_cache_s`. While
        the API server cannot be asked, a token that it accepted goes on for up to `outage_s` after that."""
        self._reviewer = reviewer
        self._rules = PoolRules(pools, owners)
        self._audience = audience
        self._cache_ms = int(cache_s * 1000)
        self._outage_ms = int(outage_s * 1000)
        self._refused_cache_ms = int(refused_cache_s * 1000)
        self._patience_s = patience_s
        self._clock = clock or SystemClock()
        self._good: Answers[Principal] = Answers(cache_size)
        self._earlier: Answers[Principal] = Answers(cache_size)
        """The same for longer: for while the API server cannot be asked."""
        # Apart from the good ones, so that a flood of bad tokens cannot push them out.
        self._refused: Answers[tuple[Reason, str, str]] = Answers(cache_size)
        self._turns = Turns(_CONCURRENT, most_of_one=_OF_ONE, waiting=_WAITING)
        self._allowance = Allowance(per_s=_REFUSED_PER_S, burst=_REFUSED_BURST)
        self._known_turns = Turns(_CONCURRENT, most_of_one=_OF_ONE, waiting=_WAITING)
        self._outage_until_ms = -_OUTAGE_QUIET_MS

    async def authenticate(self, token: str, source: str) -> Principal:
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        boot_ms = self._clock.boot_ms()
        principal = self._good.get(key, boot_ms)
        if principal is not None:
            return principal
        earlier = self._earlier.get(key, boot_ms)
        if earlier is not None:
            return await self._confirm(token, key, source, earlier)
        refusal = self._refused.get(key, boot_ms) or self._refusal_unasked(token)
        if refusal is not None:
            raise Refused(*refusal[:2], who=refusal[2])
        self._check_allowance(source)
        return await self._ask(token, key, source)

    def _check_allowance(self, source: str) -> None:
        if not self._allowance.is_left(source, self._clock.boot_ms()):
            raise Refused(
                Reason.TOO_MANY,
                f"too many tokens from this address were refused: after {_REFUSED_BURST} refusals "
                f"{_REFUSED_PER_S:g} new tokens a second are looked at",
            )

    def _refusal_unasked(self, token: str) -> tuple[Reason, str, str] | None:
        """Why it cannot be a token of ours, by its own words; None: it can. No trust, only a filter: what passes is
        reviewed."""
        if not token:
            return (
                Reason.NO_TOKEN,
                "there is no token: send the header `Authorization: Bearer <token>` with a ServiceAccount token of "
                f"audience `{self._audience}`",
                "",
            )
        claims = read_claims(token)
        if claims is None:
            return (
                Reason.INVALID_TOKEN,
                "what was sent is no ServiceAccount token (a JWT: three parts with dots between them): send the one "
                f"that is projected with audience `{self._audience}`",
                "",
            )
        now_ms = self._clock.now_ms()
        if self._audience not in claims.audiences or claims.remaining_ms(now_ms - _SKEW_MS) <= 0:
            return self._why(claims, False, now_ms)
        return None

    async def _confirm(self, token: str, key: bytes, source: str, earlier: Principal) -> Principal:
        """Review a token again that was accepted. A worker is not sent away because the API server cannot be asked:
        its attempts would be lost."""
        try:
            # Apart from those who are not known: they may share an address.
            async with self._known_turns.of(earlier.username):
                if self._clock.boot_ms() < self._outage_until_ms:
                    return earlier
                try:
                    async with asyncio.timeout(self._patience_s):
                        return await self._review(token, key, source)
                except TimeoutError:
                    self._note_outage(f"no answer within {self._patience_s:g} s")
                except Refused as refused:
                    if refused.reason is not Reason.CANNOT_BE_CHECKED:
                        raise
                    self._note_outage(refused.detail)
                return earlier
        except Crowded:
            raise _crowded() from None

    def _note_outage(self, why: str) -> None:
        boot_ms = self._clock.boot_ms()
        if boot_ms >= self._outage_until_ms + _OUTAGE_QUIET_MS:
            _log.warning("callers that were accepted before go on for up to %d s: %s", self._outage_ms // 1000, why)
        self._outage_until_ms = boot_ms + _OUTAGE_PAUSE_MS

    async def _ask(self, token: str, key: bytes, source: str) -> Principal:
        try:
            async with self._turns.of(source):
                self._check_allowance(source)  # those that wait spend it too
                return await self._review(token, key, source)
        except Crowded:
            raise _crowded() from None

    async def _review(self, token: str, key: bytes, source: str) -> Principal:
        boot_ms = self._clock.boot_ms()
        # Another request with the same token may have been before this one in the queue.
        principal = self._good.get(key, boot_ms)
        if principal is not None:
            return principal
        refusal = self._refused.get(key, boot_ms)
        if refusal is None:
            claims = read_claims(token) or Claims()
            try:
                review = await self._reviewer.review_token(token, self._audience)
            except ReviewUnavailable as error:
                raise Refused(
                    Reason.CANNOT_BE_CHECKED, f"the token cannot be checked now: {error}", who=claims.pod
                ) from None
            now_ms = self._clock.now_ms()
            if review.authenticated and review.username and self._audience in review.audiences:
                principal = _principal(review)
                remaining_ms = claims.remaining_ms(now_ms)
                self._good.put(key, principal, boot_ms + min(self._cache_ms, remaining_ms))
                self._earlier.put(key, principal, boot_ms + min(self._outage_ms, remaining_ms))
                return principal
            refusal = self._why(claims, review.authenticated, now_ms)
            self._allowance.spend(source, boot_ms)
            self._earlier.forget(key)
            self._refused.put(key, refusal, boot_ms + self._refused_cache_ms)
        reason, detail, who = refusal
        raise Refused(reason, detail, who=who)

    def _why(self, claims: Claims, authenticated: bool, now_ms: int) -> tuple[Reason, str, str]:
        """The API server's own reason is not passed on: some authenticators quote the token in it. What the token says
        of itself tells as much, and is marked as its own words."""
        mend = f"project one of audience `{self._audience}` and read it anew from its file"
        whose = claims.holder()
        if authenticated or (claims.audiences and self._audience not in claims.audiences):
            has = f" (it says it is for {claims.audiences_shown()})" if claims.audiences else ""
            return Reason.WRONG_AUDIENCE, f"the token{whose} is not for audience `{self._audience}`{has}: {mend}", whose
        if claims.remaining_ms(now_ms) <= 0:
            ago_s = (now_ms - claims.expires_ms()) // 1000
            return Reason.INVALID_TOKEN, f"the token{whose} expired {ago_s:,} s ago: {mend}", whose
        why = "it is not of this cluster, or its pod or ServiceAccount is gone or was made anew"
        return Reason.INVALID_TOKEN, f"the API server does not accept the token{whose}: {why}; {mend}", whose

    async def check_worker(self, principal: Principal, namespace: str, pool: str, worker: str) -> None:
        await self._rules.check(principal, namespace, pool, worker)


def _crowded() -> Refused:
    return Refused(
        Reason.CANNOT_BE_CHECKED, "the token cannot be checked now: too many callers wait for the API server's answer"
    )


def _principal(review: Review) -> Principal:
    namespace, _, account = review.username.removeprefix(_ACCOUNT_PREFIX).partition(":")
    is_account = review.username.startswith(_ACCOUNT_PREFIX) and bool(namespace and account)
    extra = dict(review.extra)
    pod, pod_uid = (extra.get(key, ("",))[0] if is_account else "" for key in (_POD_NAME, _POD_UID))
    return Principal(
        username=review.username,
        kind=PrincipalKind.SERVICE_ACCOUNT if is_account else PrincipalKind.USER,
        namespace=namespace if is_account else "",
        account=account if is_account else "",
        uid=review.uid,
        groups=review.groups,
        extra=review.extra,
        pod=pod,
        pod_uid=pod_uid,
    )
