"""Authentication and permission by Kubernetes: TokenReview and SubjectAccessReview.

A worker presents the token that kubelet projects into its pod, of audience `tickwheel`, so that it is of no use
against the API server. Who holds it and what RBAC grants is asked of the API server and remembered for seconds. Caches
are keyed by the token's hash, are bounded, and never outlive the token; tokens themselves are not kept. Which of them
may speak for which pool is `gateway.pool_rules`.

Invariant: nothing is granted that the API server did not grant at most `cache_s` ago, and an API server that cannot be
asked grants nothing (503, not 401: the worker is to try again, not to give up).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

import aiohttp
import msgspec
from kubernetes.aio import client as kubernetes_client

from tickwheel_operator.clock import Clock, SystemClock
from tickwheel_operator.gateway.auth import Principal, PrincipalKind
from tickwheel_operator.gateway.claims import Claims, read_claims
from tickwheel_operator.gateway.pool_rules import Owners, PoolRules, Pools
from tickwheel_operator.gateway.refusals import Reason, Refused

__all__ = [
    "KubernetesReviewer",
    "Review",
    "ReviewUnavailable",
    "Reviewer",
    "SubjectAccessAuthorizer",
    "TokenReviewAuthenticator",
]

_ACCOUNT_PREFIX = "system:serviceaccount:"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_CONCURRENT_REVIEWS = 16
"""How many reviews are asked of the API server at once: a restart brings all workers together."""


class ReviewUnavailable(Exception):
    """The API server could not be asked. The message is for the operator's log."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What the API server says of a token."""

    authenticated: bool
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    audiences: tuple[str, ...] = ()
    """Those of the asked-for audiences that the token has; empty from an authenticator that knows none."""
    error: str = ""


class Reviewer(Protocol):
    """The two questions. Both raise `ReviewUnavailable`."""

    async def review_token(self, token: str, audience: str) -> Review:
        """Whose token is it."""
        ...

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        """Whether RBAC lets the principal create TaskRuns there, and the API server's reason."""
        ...


class KubernetesReviewer:
    """The questions, put to the API server. Its account needs `create` on tokenreviews and subjectaccessreviews
    (the ClusterRole `system:auth-delegator`)."""

    def __init__(self, api_client: kubernetes_client.ApiClient, *, timeout_s: float = 10.0) -> None:
        self._authentication = kubernetes_client.AuthenticationV1Api(api_client)
        self._authorization = kubernetes_client.AuthorizationV1Api(api_client)
        self._timeout_s = timeout_s

    async def review_token(self, token: str, audience: str) -> Review:
        body = kubernetes_client.V1TokenReview(
            spec=kubernetes_client.V1TokenReviewSpec(token=token, audiences=[audience])
        )
        try:
            answer = await self._authentication.create_token_review(body, _request_timeout=self._timeout_s)
        except (kubernetes_client.ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ReviewUnavailable(_cause("create a TokenReview", error)) from None
        status = answer.status
        if status is None:
            return Review(authenticated=False)
        user = status.user
        return Review(
            authenticated=bool(status.authenticated),
            username=(user and user.username) or "",
            uid=(user and user.uid) or "",
            groups=tuple((user and user.groups) or ()),
            extra=tuple((key, tuple(values)) for key, values in ((user and user.extra) or {}).items()),
            audiences=tuple(status.audiences or ()),
            error=status.error or "",
        )

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        body = kubernetes_client.V1SubjectAccessReview(
            spec=kubernetes_client.V1SubjectAccessReviewSpec(
                user=principal.username,
                uid=principal.uid or None,
                groups=list(principal.groups),
                extra={key: list(values) for key, values in principal.extra},
                resource_attributes=kubernetes_client.V1ResourceAttributes(
                    group="tickwheel.io", resource="taskruns", verb="create", namespace=namespace
                ),
            )
        )
        try:
            answer = await self._authorization.create_subject_access_review(body, _request_timeout=self._timeout_s)
        except (kubernetes_client.ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ReviewUnavailable(_cause("create a SubjectAccessReview", error)) from None
        status = answer.status
        return (False, "") if status is None else (bool(status.allowed), status.reason or "")


def _cause(what: str, error: Exception) -> str:
    """Why the API server did not answer, without anything of the request in it: that holds the token."""
    if isinstance(error, kubernetes_client.ApiException):
        hint = " (grant the operator's account the ClusterRole system:auth-delegator)" if error.status == 403 else ""
        return f"the API server refused to {what}: {error.status} {error.reason}{hint}"
    return f"the API server could not be reached to {what}: {type(error).__name__}"


_Value = TypeVar("_Value")


class _Cache(Generic[_Value]):
    """Answers with an end, at most `size` of them; the oldest go first. Times are of the boot clock, milliseconds."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[bytes, tuple[int, _Value]] = {}

    def get(self, key: bytes, boot_ms: int) -> _Value | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and boot_ms < entry[0] else None

    def put(self, key: bytes, value: _Value, until_ms: int) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (until_ms, value)


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
        refused_cache_s: float = 5.0,
        cache_size: int = 20_000,
        clock: Clock | None = None,
    ) -> None:
        """Good tokens are remembered for `cache_s` or until they expire, refused ones for `refused_cache_s`."""
        self._reviewer = reviewer
        self._rules = PoolRules(pools, owners)
        self._audience = audience
        self._cache_ms = int(cache_s * 1000)
        self._refused_cache_ms = int(refused_cache_s * 1000)
        self._clock = clock or SystemClock()
        self._good: _Cache[Principal] = _Cache(cache_size)
        # Apart from the good ones, so that a flood of bad tokens cannot push them out.
        self._refused: _Cache[tuple[Reason, str, str]] = _Cache(cache_size)
        self._turn = asyncio.Semaphore(_CONCURRENT_REVIEWS)

    async def authenticate(self, token: str, headers: Mapping[str, str]) -> Principal:
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        principal = self._good.get(key, self._clock.boot_ms())
        if principal is not None:
            return principal
        if not token:
            raise Refused(
                Reason.NO_TOKEN,
                "there is no token: send the header `Authorization: Bearer <token>` with a ServiceAccount token of "
                f"audience `{self._audience}`",
            )
        async with self._turn:
            return await self._review(token, key)

    async def _review(self, token: str, key: bytes) -> Principal:
        boot_ms = self._clock.boot_ms()
        # Another request with the same token may have been before this one in the queue.
        principal = self._good.get(key, boot_ms)
        if principal is not None:
            return principal
        refusal = self._refused.get(key, boot_ms)
        if refusal is None:
            claims = read_claims(token)
            try:
                review = await self._reviewer.review_token(token, self._audience)
            except ReviewUnavailable as error:
                raise Refused(
                    Reason.CANNOT_BE_CHECKED, f"the token cannot be checked now: {error}", who=claims.pod
                ) from None
            now_ms = self._clock.now_ms()
            if review.authenticated and review.username and self._audience in review.audiences:
                principal = _principal(review)
                self._good.put(key, principal, boot_ms + min(self._cache_ms, claims.remaining_ms(now_ms)))
                return principal
            refusal = self._why(claims, review.authenticated, now_ms)
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


class SubjectAccessAuthorizer:
    """Kubernetes RBAC: whoever may create TaskRuns in a namespace may submit runs there."""

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
        self._answers: _Cache[tuple[bool, str]] = _Cache(cache_size)

    async def check_submit(self, principal: Principal, namespace: str) -> None:
        # All that RBAC decides by is in the key: two tokens of one user may differ in groups and extra.
        key = hashlib.sha256(msgspec.json.encode((namespace, principal))).digest()
        boot_ms = self._clock.boot_ms()
        answer = self._answers.get(key, boot_ms)
        if answer is None:
            try:
                answer = await self._reviewer.may_create_runs(principal, namespace)
            except ReviewUnavailable as error:
                raise Refused(
                    Reason.CANNOT_BE_CHECKED, f"the permission cannot be checked now: {error}", who=principal.username
                ) from None
            life_ms = self._cache_ms if answer[0] else self._refused_cache_ms
            self._answers.put(key, answer, boot_ms + life_ms)
        allowed, reason = answer
        if not allowed:
            raise Refused(
                Reason.NOT_PERMITTED,
                f"{principal.username} may not create taskruns.tickwheel.io in namespace {namespace!r}"
                f"{': ' + reason if reason else ''}; grant it by a Role with `apiGroups: [tickwheel.io], resources: "
                "[taskruns], verbs: [create]` and a RoleBinding",
                who=f"{principal.username} {namespace}",
            )
